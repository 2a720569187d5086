"""Influences, paired differences and intervals, against the jackknife and exact mixtures."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from scoresde.metrics import (
    Estimate,
    GaussianKernel,
    GaussianStats,
    difference,
    frechet_distance,
    frechet_extrapolated,
    mmd2,
    paired_rmse,
    ratio,
    sliced_wasserstein,
)

SLICED = partial(sliced_wasserstein, projections=16)
METRICS = {
    "mmd2": mmd2,
    "gaussian": partial(mmd2, kernel=GaussianKernel(1.5)),
    "frechet": frechet_distance,
    "extrapolated": frechet_extrapolated,
    "sliced": SLICED,
}


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def jackknife(metric, x, y):
    """(n − 1) (T − T without row i) for the rows of both samples, centred."""
    value, rows = metric(x, y).value, ([], [])
    for side, sample in enumerate((x, y)):
        for i in range(len(sample)):
            less = torch.cat([sample[:i], sample[i + 1 :]])
            other = metric(less, y) if side == 0 else metric(x, less)
            rows[side].append((len(sample) - 1) * (value - other.value))
    return [np.array(r) - np.mean(r) for r in rows]


@pytest.mark.parametrize("name", ["mmd2", "gaussian", "frechet", "sliced"])
def test_influences_are_those_of_the_jackknife(name):
    normal = sampler()
    x, y = 1.5 * normal(60, 2) + 0.5, normal(40, 2)
    found, exact = METRICS[name](x, y).influence, name in ("mmd2", "gaussian")
    for own, other in zip(found, jackknife(METRICS[name], x, y), strict=True):
        # exact for MMD²; for others the jackknife has terms of the next order in 1/n
        assert np.corrcoef(own.numpy(), other)[0, 1] > (0.999999 if exact else 0.98)
        tolerance = 1e-9 if exact else 0.12
        assert float(own.std()) == pytest.approx(other.std(ddof=1), rel=tolerance)


@pytest.mark.parametrize("name", METRICS)
def test_influences_have_mean_zero_and_give_the_error_far_from_equality(name):
    normal = sampler()
    for far, x in ((False, normal(50, 3)), (True, 1.5 * normal(50, 3) + 3)):
        found = METRICS[name](x, normal(40, 3))
        assert [len(row) for row in found.influence] == [50, 40]
        assert all(abs(float(row.mean())) < 1e-10 for row in found.influence)
        variance = sum(float(row.var()) / len(row) for row in found.influence)
        if far:
            assert math.sqrt(variance) == pytest.approx(found.std_error, rel=0.2)
        same = difference(found, found)
        assert (same.value, same.std_error) == (0, 0)


def test_the_influence_of_known_statistics_is_empty():
    normal = sampler()
    found = frechet_distance(normal(30, 2), GaussianStats.of(normal(50, 2)))
    assert [len(row) for row in found.influence] == [30, 0]


def test_the_error_of_a_paired_difference_is_that_of_the_mean_of_differences():
    """For a metric that is a mean over samples it is s/√n of the differences, exactly."""
    normal = sampler()
    exact, noise = normal(30, 4), normal(30, 4)
    a, b = exact + 0.3 * noise, exact + 0.28 * noise + 0.01 * normal(30, 4)
    gaps = [(x - exact).square().mean(1).sqrt() for x in (a, b)]
    found = difference(paired_rmse(a, exact), paired_rmse(b, exact))
    assert found.value == pytest.approx(float((gaps[0] - gaps[1]).mean()), rel=1e-12)
    assert found.std_error == pytest.approx(float((gaps[0] - gaps[1]).std()) / 30**0.5, rel=1e-12)
    quotient = ratio(paired_rmse(a, exact), paired_rmse(b, exact))
    residual = gaps[0] - quotient.value * gaps[1]
    expected = float(residual.std() / gaps[1].mean()) / 30**0.5
    assert quotient.std_error == pytest.approx(expected, rel=1e-10)


def test_an_unpaired_difference_shares_the_reference_alone():
    y = torch.arange(-1.0, 2)  # variance 1, of its mean 1/3
    a = Estimate(3.0, (2 / 3) ** 0.5, (4, 3), "m", "", (torch.tensor([1.0, -1, 1, -1]), y))
    b = Estimate(1.0, (13 / 3) ** 0.5, (2, 3), "m", "", (torch.tensor([2.0, -2.0]), y))
    found = difference(a, b, paired=False)
    assert found.n == (4, 2, 3)
    assert found.std_error == pytest.approx(math.sqrt((4 / 3) / 4 + 8 / 2))  # nothing from y
    unknown = difference(Estimate(3.0, 0.5, (4, 3), "m"), Estimate(1.0, 1.2, (4, 3), "m"))
    assert unknown.std_error == pytest.approx(1.3)  # as if independent


def test_estimates_that_do_not_belong_together_are_refused():
    a = Estimate(1.0, 0.1, (4, 9), "mmd2_cubic")
    with pytest.raises(ValueError, match="same metric, got mmd2_cubic and sliced_w2"):
        difference(a, Estimate(1.0, 0.1, (4, 9), "sliced_w2"))
    with pytest.raises(ValueError, match=r"same n, got \(4, 9\) and \(5, 9\)"):
        difference(a, Estimate(1.0, 0.1, (5, 9), "mmd2_cubic"))
    with pytest.raises(ValueError, match="size of the reference"):
        difference(a, Estimate(1.0, 0.1, (5, 8), "mmd2_cubic"), paired=False)
    assert math.isnan(ratio(a, Estimate(0.1, 0.1, (4, 9), "mmd2_cubic")).std_error)


def test_intervals_widen_with_the_level_and_use_students_t():
    found = Estimate(1.0, 0.1, (5,), "m")
    low, high = found.interval()
    assert (low + high) / 2 == pytest.approx(1.0)
    assert (high - low) / 2 == pytest.approx(0.2776445, rel=1e-6)  # t with 4 degrees: 2.776445
    wide = found.interval(0.99)
    assert wide[0] < low < high < wide[1]
    with pytest.raises(ValueError, match="level must be less than 1, got 1"):
        found.interval(1)
    assert all(math.isnan(end) for end in Estimate(1.0, math.nan, (5,), "m").interval())


def test_the_ends_of_an_interval_are_where_the_error_there_reaches_the_estimate():
    """|T − θ| = t √Var T at both ends θ, with the variance of the law at θ."""
    normal = sampler()
    for x in (normal(80, 3), 1.2 * normal(80, 3), 1.5 * normal(80, 3) + 1):
        found = mmd2(x, normal(80, 3))
        for end in found.interval():
            law, t = found.law, 1.990450  # 79 degrees of freedom
            error = math.sqrt(law.null + law.slope * max(end, 0))
            assert abs(found.value - end) == pytest.approx(t * error, rel=1e-6)


def mixture(normal, n, shift, scale):
    """n points of ½ N(−1, s²I) + ½ N(1 + shift, s²I) in the plane."""
    signs = torch.sign(normal(n, 1))
    return scale * normal(n, 2) + torch.where(signs > 0, 1.0 + shift, -1.0)


def exact_mmd2(shift, scale, ell):
    """Closed form: E k of two Gaussians is (ℓ²/v)^{d/2} exp(−|μ − μ'|²/(2v)), v = ℓ² + s² + s'²."""

    def mean(a, b):
        total = 0.0
        for mu in (-1.0, 1.0 + a[0]):
            for nu in (-1.0, 1.0 + b[0]):
                v = ell**2 + a[1] ** 2 + b[1] ** 2
                total += ell**2 / v * math.exp(-2 * (mu - nu) ** 2 / (2 * v)) / 4
        return total

    x, y = (shift, scale), (0.0, 1.0)
    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


CASES = [(0.0, 1.0), (0.0, 1.15), (0.8, 1.0)]  # at, near and far from the data


def shares_held(shift, scale, repetitions, n=100, seed=3):
    """Shares of the 95 % intervals that hold the exact MMD², and its exact paired difference."""
    normal, kernel, hits = sampler(seed), GaussianKernel(1.5), np.zeros(2)
    moved = (shift + 0.1, scale)
    truth, other = exact_mmd2(shift, scale, 1.5), exact_mmd2(*moved, 1.5)
    for _ in range(repetitions):
        z, signs, y = normal(n, 2), torch.sign(normal(n, 1)), mixture(normal, n, 0.0, 1.0)
        found = [
            mmd2(s * z + torch.where(signs > 0, 1.0 + m, -1.0), y, kernel)
            for m, s in ((shift, scale), moved)
        ]
        gap = difference(found[1], found[0])
        for i, (each, exact) in enumerate(((found[0], truth), (gap, other - truth))):
            low, high = each.interval()
            hits[i] += low <= exact <= high
    return hits / repetitions


@pytest.mark.parametrize(("shift", "scale"), CASES[:1])
def test_intervals_hold_the_exact_value_of_mixtures(shift, scale):
    """150 repetitions know the share to 1.8 %; the slow test asks for 95 ± 3 %."""
    for share in shares_held(shift, scale, 150):
        assert 0.9 < share <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), CASES)
def test_intervals_hold_the_exact_value_in_95_of_100_cases(shift, scale):
    """1,000 repetitions know the share to 0.7 %."""
    single, paired = shares_held(shift, scale, 1000)
    assert 0.92 < single < 0.98
    assert 0.92 < paired < 0.985


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.2, 0.0), (1.0, 0.3)])
def test_intervals_hold_the_mean_in_19_of_20_cases(name, scale, shift):
    """200 repetitions: the share is known to 1.5 %, and is 92 to 98.5 % in all of 50 settings.

    Paired differences of samples of equal quality have errors that are too large by up to √2.
    """
    normal, d, n = sampler(5), 8, 128
    found, gaps = [], []
    for _ in range(200):
        z, y = normal(n, d), normal(n, d)
        found.append(METRICS[name](scale * z + shift, y))
        worse = 1.05 * scale * (z + 0.3 * normal(n, d)) / math.sqrt(1.09) + shift
        gaps.append(difference(METRICS[name](worse, y), found[-1]))
    for estimates, most in ((found, 0.99), (gaps, 1)):
        mean = np.mean([each.value for each in estimates])
        intervals = np.array([each.interval() for each in estimates])
        held = ((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])).mean()
        assert 0.91 < held <= most
