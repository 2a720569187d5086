"""Descriptor features see gross failures that principal directions of the pixels miss."""

import pytest
import torch
import torch.nn.functional as F

from scoresde.metrics import (
    DescriptorFeatures,
    GaussianKernel,
    GaussianStats,
    PCAFeatures,
    frechet_distance,
    mmd2,
)

N = 200


def draws(seed):
    return torch.Generator().manual_seed(seed)


def smooth_images(n, seed):
    """Colour images of few smooth shapes, in [-1, 1]."""
    coarse = torch.randn(n, 3, 4, 4, generator=draws(seed))
    return torch.tanh(F.interpolate(coarse, size=12, mode="bicubic", align_corners=False))


def rings(n, seed):
    """Points of a ring: both coordinates are uncorrelated, but dependent."""
    angle = 2 * torch.pi * torch.rand(n, generator=draws(seed))
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.1 * torch.randn(n, 2, generator=draws(seed + 1))


def image_failures(x):
    noise = torch.randn(x.shape, generator=draws(9))
    board = (torch.arange(12)[:, None] + torch.arange(12)) % 2 * 2.0 - 1
    kept = x[x.mean((1, 2, 3)) > 0]
    return {
        "saturated noise": (4 * noise).clamp(-1, 1),
        "faint noise": x + 0.05 * noise,
        "blur": F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "constant colour": x.mean((2, 3), keepdim=True).expand_as(x),
        "low contrast": 0.7 * x,
        "checkerboard": x + 0.05 * board,
        "blocks": F.interpolate(F.avg_pool2d(x, 2), scale_factor=2),
        "missing half": kept[torch.arange(len(x)) % len(kept)],
        "copies": x[torch.arange(len(x)) % 10],
        "salt and pepper": torch.where(noise.abs() > 2.3, noise.sign(), x),
    }


def vector_failures(x):
    noise = torch.randn(x.shape, generator=draws(9))
    kept = x[x[:, 0] > 0]
    return {
        "Gaussian of the same moments": 0.71 * noise,
        "narrow": 0.8 * x,
        "missing half": kept[torch.arange(len(x)) % len(kept)],
        "copies": x[torch.arange(len(x)) % 10],
        "outliers": torch.where(torch.arange(len(x))[:, None] % 20 == 0, 4 * noise, x),
    }


CASES = {"images": (smooth_images, image_failures), "vectors": (rings, vector_failures)}


@pytest.mark.parametrize("kind", CASES)
def test_every_failure_lies_above_real_data(kind):
    make, failures = CASES[kind]
    reference = make(1000, 0)
    space = DescriptorFeatures(reference)
    rows = space(reference)
    stats, kernel = GaussianStats.of(rows, space.label), GaussianKernel.median(rows)

    def measured(x):
        found = space(x)
        return mmd2(found, rows, kernel), frechet_distance(found, stats, space=space.label)

    floor = measured(make(N, 1))
    assert abs(floor[0].value) < 4 * floor[0].std_error  # unbiased: 0 for equal distributions
    for name, x in failures(make(N, 2)).items():
        for found, real in zip(measured(x), floor, strict=True):
            error = (found.std_error**2 + real.std_error**2) ** 0.5
            if name == "outliers":  # their own scatter is large, and a bounded kernel damps them
                if not found.name.startswith("fd_"):
                    continue
                error = real.std_error
            assert found.value - real.value > 4 * error, (name, found, real)


def test_principal_directions_are_blind_to_what_descriptors_see():
    """Against a missing half of the data, saturated noise must weigh more."""
    reference = smooth_images(1000, 0)
    failures = image_failures(smooth_images(N, 2))
    spaces = PCAFeatures.fit(reference, 32), DescriptorFeatures(reference)
    ratios = []
    for space in spaces:
        stats = GaussianStats.of(space(reference))
        noise, lost = (
            frechet_distance(space(failures[name]), stats).value
            for name in ("saturated noise", "missing half")
        )
        ratios.append(noise / lost)
    assert ratios[1] > 10 * ratios[0]


@pytest.mark.parametrize("kind", CASES)
def test_features_are_whitened_on_the_reference(kind):
    reference = CASES[kind][0](500, 0)
    space = DescriptorFeatures(reference)
    rows = space(reference)
    assert rows.shape[1] <= 34
    assert rows.mean(0).abs().max() < 1e-8
    variance = rows.var(0)
    assert variance[0] == pytest.approx(1, abs=1e-6)
    assert variance.max() < 1 + 1e-6  # less where the spread of the data is below the least one
    torch.testing.assert_close(space(reference[:3]), rows[:3])  # no batch enters
    assert DescriptorFeatures(reference.clone()).label == space.label
    assert DescriptorFeatures(reference + 1).label != space.label


def test_a_faint_change_of_clean_drawings_counts_less_than_one_image_again_and_again():
    """A white page has no spread at all, so that whitening alone makes any change enormous."""
    places = 16 * torch.rand(2, N + 600, 1, 1, generator=draws(3))
    across, along = (1 - (torch.arange(16.0) - places).abs()).clamp(-1, 1)
    page = torch.maximum(across, along.mT)[:, None]
    reference, x = page[N:], page[:N]
    space = DescriptorFeatures(reference)
    rows = space(reference)
    kernel = GaussianKernel.median(rows)
    faint = x + 0.02 * torch.randn(x.shape, generator=draws(4))
    for distance in (lambda z: mmd2(z, rows, kernel), lambda z: frechet_distance(z, rows)):
        values = [distance(space(z)).value for z in (x, faint, x[:1].expand_as(x))]
        assert values == sorted(values)
        assert values[2] > 2 * values[1]


def test_leading_directions_of_large_images_are_the_principal_ones(monkeypatch):
    """Subspace iteration finds what the exact solution finds."""
    reference = smooth_images(60, 0)
    exact = DescriptorFeatures(reference)
    monkeypatch.setattr("scoresde.metrics.descriptors._EXACT", 100)
    torch.testing.assert_close(
        DescriptorFeatures(reference)(reference), exact(reference), atol=0.01, rtol=0
    )


def test_a_reference_without_spread_and_other_shapes_are_handled():
    flat = DescriptorFeatures(torch.ones(5, 1, 4, 4))
    assert torch.isfinite(flat(torch.zeros(2, 1, 4, 4))).all()
    with pytest.raises(ValueError, match=r"x must have shape \(n, 1, 4, 4\) .* got \(2, 16\)"):
        flat(torch.zeros(2, 16))
    with pytest.raises(ValueError, match="reference must hold at least 4 samples, got 3"):
        DescriptorFeatures(torch.zeros(3, 2))
