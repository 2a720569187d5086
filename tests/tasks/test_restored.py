"""What `scoresde restore` says of samples, on exact posteriors; and the scale of its values."""

import math

import numpy as np
import pytest
import torch

from scoresde.data import DataSpec
from scoresde.data.transforms import fit_chain, parse_transforms
from scoresde.exact import GaussianMixture
from scoresde.inverse import posterior
from scoresde.names.operators import parse_operator
from scoresde.sde import VP
from scoresde.tasks.restore_input import Values, dequantized, read_clean, with_noise
from scoresde.tasks.restored import Restored

QUANTIZED = DataSpec((3, 4, 4), -1.0, 1.0, levels=17)
TEXTS = ("mask:box=2x2", "downsample", "grey", "blur:std=0.7", "projection:m=5")


@pytest.mark.parametrize("text", TEXTS)
def test_the_measurement_of_values_is_the_value_of_the_measurement(text):
    values, operator = Values(QUANTIZED), parse_operator(text).of(QUANTIZED.shape)
    v = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = operator.A(values.to_model(v))
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(values.of_measurement(y, operator), operator.A(v), **close)
    torch.testing.assert_close(values.measurement_to_model(operator.A(v), operator), y, **close)
    torch.testing.assert_close(values.of(values.to_model(v)), v, **close)


def test_levels_are_pixel_values_from_black_to_white():
    k = torch.arange(17)
    values = Values(QUANTIZED).of(QUANTIZED.encode(k).double())
    torch.testing.assert_close(values, k / 16.0, rtol=0, atol=1e-6, check_dtype=False)


def test_the_truth_fills_its_cell_and_does_not_depend_on_the_number_of_data(tmp_path):
    x = np.random.default_rng(0).integers(0, 17, (5, 3, 4, 4))
    np.save(tmp_path / "x.npy", x)
    data = read_clean([str(tmp_path / "x.npy")], QUANTIZED)
    truth, point = dequantized(data, seed=3)
    np.testing.assert_allclose(truth.numpy(), x / 16)
    assert torch.equal(QUANTIZED.to_levels(point), torch.from_numpy(x).to(torch.uint8))
    assert len(point.unique()) == point.numel()
    operator = parse_operator("downsample").of(QUANTIZED.shape)
    y = with_noise(truth, point, operator, 0.1, seed=3).y
    two = [part[:2] for part in (truth, point)]
    assert torch.equal(with_noise(*two, operator, 0.1, seed=3).y, y[:2])
    np.save(tmp_path / "x.npy", x / 16)  # as pixel values
    assert torch.equal(read_clean([str(tmp_path / "x.npy")], QUANTIZED).x, data.x)


@pytest.fixture(scope="module")
def exact():
    """Exact posterior samples of Gaussian data in 6 dimensions, of which a mask hides 3."""
    n, s, noise = 60, 40, 0.3
    spec = DataSpec((6,), -4.0, 4.0)
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cov = mixing @ mixing.T / 6
    prior = GaussianMixture(VP(), [1.0], [[0.0] * 6], cov[None])
    operator = parse_operator("mask:share=0.5").of(spec.shape)
    truth = prior.sample(n, seed=1)
    readings = with_noise(truth, truth, operator, noise, seed=2)
    samples = [
        posterior(prior, operator, y, noise).sample(s, seed=i) for i, y in enumerate(readings.y)
    ]
    return Restored(spec, operator, readings, noise, torch.stack(samples))


def std_error(share):
    """Of a coverage over the 60 data, whose numbers are at most fully dependent."""
    return math.sqrt(share * (1 - share) / 60)


def test_exact_samples_are_calibrated_and_agree_with_the_noise(exact):
    found = exact.summary()
    for rows in found["intervals"].values():
        for row in rows:
            assert abs(row["value"] - row["interval"]) < 3 * std_error(row["interval"])
    assert set(found["intervals"]) == {"all", "hidden"}
    # E |y − A x|² = noise² for posterior samples as for the truth; 180 measured numbers.
    assert found["residual"]["rms"] == pytest.approx(0.3, rel=3 / math.sqrt(2 * 180))
    # The squared error of a sample is twice that of the mean, but for 1/S of it.
    error = found["error"]
    ratio = (error["rms_of_samples"]["value"] / error["rms_of_mean"]["value"]) ** 2
    assert ratio == pytest.approx(2, rel=0.15)  # the means of 60 roots, each of 6 numbers
    assert "psnr_of_mean" not in error


def test_narrow_samples_are_found_to_be_so(exact):
    centre = exact.scaled.mean(1, keepdim=True)
    half = Restored(
        exact.spec, exact.operator, exact.readings, 0.3, centre + (exact.scaled - centre) / 2
    )
    for row in half.summary()["intervals"]["hidden"]:
        assert row["value"] < row["interval"] - 3 * std_error(row["interval"])


@pytest.mark.parametrize("text", ["downsample", "projection:m=5", "mask:box=2x2"])
def test_the_measured_row_shows_a_white_image_as_white(text, monkeypatch, tmp_path):
    rows = []
    monkeypatch.setattr("scoresde.tasks.restored.save_restoration", lambda _, r, __: rows.extend(r))
    transform = fit_chain(
        parse_transforms("standardize"),
        lambda: [(torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0)), None)],
        *((3, 4, 4), None, 1),
    )[0]
    for spec in (QUANTIZED, DataSpec((3, 4, 4), -2.0, 5.0, transform=transform)):
        operator, values = parse_operator(text).of(spec.shape), Values(spec)
        white = torch.full((2, 3, 4, 4), spec.high, dtype=torch.float64)
        if spec.levels is not None:
            white = values.to_model(torch.ones_like(white))
        readings = with_noise(values.of(white), white, operator, 0.0, seed=0)
        rows.clear()
        Restored(spec, operator, readings, 0.0, white[:, None]).write(
            tmp_path, {"operator": text, "method": "pigdm"}
        )
        assert [row.name for row in rows][-1].startswith("std")
        for row in rows[:-1]:
            shown = row.images if row.hidden is None else row.images[..., ~row.hidden]
            # A⁺ y is grey where the projection says nothing
            least = 0.5 if row.name == "A⁺ y" else 1 - 1e-9
            assert float(shown.mean()) >= least
            assert float(shown.mean()) <= 1 + 1e-6


def test_results_are_in_the_units_of_data_with_a_transform(exact, tmp_path):
    x = 5 + 3 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    chain, _ = fit_chain(parse_transforms("standardize"), lambda: [(x, None)], (6,), None, 1)
    spec = DataSpec((6,), -4.0, 4.0, transform=chain)
    one = Restored(spec, exact.operator, exact.readings, 0.3, exact.scaled)
    torch.testing.assert_close(one.samples[:, 0], spec.to_units(exact.scaled[:, 0]))
    assert one.values.factor == 1
    before = exact.summary()
    assert one.summary()["residual"] == before["residual"]  # at the model's scale
    assert one.write(tmp_path, {"operator": "mask", "method": "pigdm"}) == ["restored.npz"]
