"""Grids from JSON files: their meaning, and one line of error for every mistake."""

import json
import math

import numpy as np
import pytest
import torch

from scoresde.grid import log_snr, snapped
from scoresde.names.grids import GridFile, parse_grid, read_grid
from scoresde.plain import ConfigError
from scoresde.sde import VE, VP, TabulatedVP


@pytest.fixture
def write(tmp_path):
    """write(content): a file of that text, those bytes, or that value as JSON; its path."""

    def call(content):
        path = tmp_path / "grid.json"
        if not isinstance(content, (bytes, str)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return call


@pytest.mark.parametrize(
    "content", [[1, 0.5, 0.25], {"ts": [1.0, 0.5, 0.25]}, "\ufeff[1,\r\n5e-1, 0.25]"]
)
def test_times_are_taken_as_they_are(write, sde, content):
    got = read_grid(write(content))
    assert got.steps == 2
    assert got.times(sde).dtype == torch.float64
    assert got.times(sde).tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("kind", ["ts", "lams", "sigmas"])
def test_noise_levels_and_log_snr_give_back_the_times(write, sde, kind):
    ts = log_snr(sde, 12)
    lams = sde.lam(ts)
    values = {"ts": ts, "lams": lams, "sigmas": sde.sigma(ts) / sde.alpha(ts)}[kind]
    got = read_grid(write({kind: values.tolist()})).times(sde)
    # λ near t = 1 has lost 9 of its 16 digits for TabulatedVP (1 − σ)
    torch.testing.assert_close(got, ts, rtol=1e-9, atol=1e-10)
    assert float(got[0]) <= 1


def test_sigmas_are_sigma_over_alpha(write):
    sigmas = [80.0, 3.0, 0.002]
    ts = read_grid(write({"sigmas": sigmas})).times(VE(0.002, 80.0))
    # log σ is linear in t
    wanted = np.log(np.array(sigmas) / 0.002) / math.log(40000)
    np.testing.assert_allclose(ts, wanted, atol=1e-14)


def test_the_sde_s_own_ends_are_within_its_range(write, sde):
    """Rounding of the last digit that was written does not put an end out of range."""
    for kind, sign in (("lams", 1), ("sigmas", -1)):
        first = float(sde.lam(sde.t_regular)) * (1 + 1e-15)
        values = [first, float(sde.lam(0.5))]
        values = values if sign == 1 else [math.exp(-v) for v in values]
        ts = read_grid(write({kind: values})).times(sde)
        assert float(ts[0]) == pytest.approx(sde.t_regular, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "sde", "message"),
    [
        ({"sigmas": [80, 1]}, VE(), r"sigmas\[0\] = 80.0 is outside the range of VE, 0.01 to 50"),
        ({"sigmas": [1, 1e-3]}, VE(), r"sigmas\[1\] = 0.001 is outside the range of VE"),
        ({"sigmas": [200, 1]}, VP(), r"sigmas\[0\] = 200.0 is outside the range of VP, 0 to 152"),
        ({"lams": [-9, 1]}, VP(), r"lams\[0\] = -9.0 is outside the range of VP, -5.02.* to inf"),
        (
            {"lams": [-9, 1]},
            TabulatedVP(VP().ddpm_betas(100)),
            r"lams\[0\] = -9.0 is outside the range of TabulatedVP",
        ),
        ([1, 0], VP(), r"t_min must be greater than 0 for VP"),
    ],
)
def test_levels_outside_the_sde_are_refused(write, values, sde, message):
    path = write(values)
    with pytest.raises(ConfigError, match=message) as caught:
        read_grid(path).times(sde)
    assert str(caught.value).startswith(f"{path}: ")


def test_time_0_is_one_where_there_is_noise(write):
    assert read_grid(write([1, 0])).times(VE()).tolist() == [1.0, 0.0]


def test_levels_that_the_sde_cannot_tell_apart(write):
    lams = [0.0, 5e-324, 1.0]
    with pytest.raises(ConfigError, match="must decrease strictly"):
        read_grid(write({"lams": lams})).times(VP())


BAD = [
    ("", "not valid JSON: Expecting value: line 1 column 1"),
    ("[1, 0.5,\n 0.1", r"not valid JSON: .* line 2 column 5"),
    ("[1, 0.5 # no", "not valid JSON: .* line 1 column 9"),
    ("[1, NaN]", "not valid JSON: NaN is not a number of JSON"),
    ("[Infinity, 1]", "Infinity is not a number of JSON"),
    ('{"ts": [1, 0.5], "ts": [1, 0.1]}', "key 'ts' is given twice"),
    ("[" * 200_000, "not valid JSON"),
    ("[1, " + "9" * 5000 + "]", "not valid JSON"),
    (b"\x80\x02binary", "not UTF-8 text .invalid start byte at byte 0"),
    ("3", r"ts must be an array of numbers, got 3"),
    ('"uniform"', r'ts must be an array of numbers, got "uniform"'),
    ("null", r"ts must be an array of numbers, got null"),
    ({"times": [1, 0.5]}, "unknown key 'times'; .*allowed: ts, sigmas, lams"),
    ({"sigma": [1, 0.5]}, "unknown key 'sigma'; did you mean sigmas?"),
    ({}, "must hold one of ts, sigmas, lams, got 0"),
    ({"ts": [1, 0.5], "lams": [0, 1]}, "must hold one of ts, sigmas, lams, got 2"),
    ({"ts": 3}, "ts must be an array of numbers, got 3"),
    ([], "ts must hold 2 to 1000001 numbers, got 0"),
    ([1], "ts must hold 2 to 1000001 numbers, got 1"),
    ([1, "0.5"], r'ts\[1\] must be a number, got "0.5"'),
    ([1, True], r"ts\[1\] must be a number, got true"),
    ([[1, 0.5]], r"ts must hold 2"),
    ([[1, 0.5], [1, 0.4]], r"ts\[0\] must be a number, got \[1, 0.5\]"),
    ([1, ["x" * 100]], r"ts\[1\] must be a number, got \[\"x{35}\.\.\.$"),
    ("[1e400, 1]", r"ts\[0\] must be finite"),
    ("[1" + "0" * 400 + ", 1]", r"ts\[0\] must be finite, got 10{36}\.\.\.$"),
    ([1.5, 0.5], r"ts\[0\] must lie in \[0, 1\], got 1.5"),
    ([1, -0.1], r"ts\[1\] must lie in \[0, 1\], got -0.1"),
    ([1, 0.5, 0.5], r"ts must decrease strictly, got ts\[1\] = 0.5 and ts\[2\] = 0.5"),
    ([0.1, 1], r"ts must decrease strictly, got ts\[0\] = 0.1 and ts\[1\] = 1.0"),
    ({"sigmas": [80, 1, 0]}, r"sigmas\[2\] must be greater than 0, got 0.0 \(leave a final 0 out"),
    ({"sigmas": [1, 2]}, r"sigmas must decrease strictly, got sigmas\[0\] = 1.0"),
    ({"lams": [2, 1]}, r"lams must increase strictly, got lams\[0\] = 2.0 and lams\[1\] = 1.0"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
def test_mistakes_are_one_line_that_names_the_file(write, content, message):
    path = write(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_grid(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < len(path) + 200


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="none.json: no such file"):
        read_grid(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_grid(str(tmp_path))


def test_the_same_content_is_the_same_grid(write):
    path = write([1, 0.5])
    assert read_grid(path) == GridFile(path, "ts", (1.0, 0.5))


def test_a_named_grid_moves_to_the_ladder():
    sde, plain = TabulatedVP(VP().ddpm_betas(100)), parse_grid("log_snr:t_min=0.05")
    grid = parse_grid("log_snr:t_min=0.05:ladder=true")
    assert str(grid) == "log_snr:t_min=0.05:ladder=true"
    ts, labels = plain(sde, 10), sde.label(grid(sde, 10))
    assert torch.allclose(labels, labels.round(), atol=1e-9)
    assert not torch.allclose(sde.label(ts), sde.label(ts).round(), atol=1e-9)
    assert torch.equal(grid(sde, 10), snapped(sde, ts))
    with pytest.raises(ConfigError, match="grid uniform: ladder must be of type bool, got int"):
        parse_grid("uniform:ladder=1")
    with pytest.raises(ValueError, match="VP has no discrete times"):
        grid(VP(), 10)
