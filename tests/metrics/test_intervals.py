"""Laws of intervals: slope near equality, differences of roots, ratios, and pooled samples."""

import math

import numpy as np
import pytest
import torch

from scoresde.metrics import (
    Estimate,
    GaussianStats,
    SquareLaw,
    classifier_accuracy,
    difference,
    frechet_distance,
    mmd2,
    pooled,
    ratio,
)
from scoresde.metrics.estimate import slope_at_equality, square_law


def sampler(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_slope_at_equality_weighs_directions_by_their_squared_variance():
    rows = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]], dtype=torch.float64) + 5
    lam = np.array([4.5, 0.5])  # variances of the two directions
    expected = 4 * (lam**3).sum() / (lam**2).sum() * (1 / 10 + 1 / 20)
    assert slope_at_equality(rows @ rows.T, 10, 20) == pytest.approx(expected)


def test_the_law_has_the_slope_of_equality_there_and_that_of_the_samples_far_away():
    here = square_law(0.3, plain=0.02, excess=0.01, bias=0.3, near=0.7)
    assert here == SquareLaw(zero=0.3, null=0.01, slope=pytest.approx(0.7))
    far = square_law(1000.3, plain=400.02, excess=0.01, bias=0.3, near=0.7)
    assert far.slope == pytest.approx(0.4, rel=1e-3)


def roots(normal):
    """√A and √B, the influences of A and B, and the error of A − B."""
    squares = [normal(50) for _ in range(2)]
    law = SquareLaw(0.1, 0.01, 0.1, root=True)
    a, b = (
        Estimate(v, 0.1, (50, 9), "sliced_w2", "", (x / (2 * v), torch.zeros(0)), law)
        for v, x in zip((1.25, 0.5), squares, strict=True)
    )
    return a, b, float((squares[0] - squares[1]).std()) / 50**0.5


def test_the_difference_of_roots_has_the_error_of_the_difference_of_squares():
    a, b, error = roots(sampler())
    between = (1.25 + 0.5 + 2 * 1.25) / 2  # of the sum and twice the larger
    assert difference(a, b).std_error == pytest.approx(error / between)
    assert difference(b, a).std_error == pytest.approx(error / between)


def test_the_ends_of_a_ratio_are_where_its_numerator_is_reached_by_chance():
    normal = sampler()
    x, y = normal(60), normal(60)
    a, b = (
        Estimate(v, float(m.std()) / 60**0.5, (60,), "m", "", (m - m.mean(),))
        for v, m in ((3.0, x), (1.5, x + y))
    )
    found = ratio(a, b)
    for end in found.interval():
        error = float((x - end * (x + y)).std()) / 60**0.5
        assert abs(3 - end * 1.5) == pytest.approx(2.000995 * error, rel=1e-5)  # t, 59 degrees
    low, high = found.interval()
    assert high - found.value > found.value - low


def test_an_unpaired_difference_has_the_asymmetric_interval_of_its_larger_part():
    normal = sampler()
    a = frechet_distance(normal(80, 2) + 1, GaussianStats.of(normal(900, 2)))
    none = (torch.zeros(80, dtype=torch.float64), torch.zeros(0))
    b = Estimate(0.5, 0.0, a.n, a.name, "", none, SquareLaw(0.0, 0.0, 0.0))
    expected = [end - 0.5 for end in a.interval()]
    assert difference(a, b, paired=False).interval() == pytest.approx(expected)
    assert difference(b, a, paired=False).interval() == pytest.approx([-e for e in expected[::-1]])


def test_the_accuracy_has_the_variance_of_two_correlated_tests():
    normal = sampler()
    found = classifier_accuracy(normal(300, 3), normal(400, 3))
    plain = 0.25 * 0.25 * (1 / 300 + 1 / 400)  # half of two means of fair coins
    assert found.std_error**2 == pytest.approx((1 + 2 / math.pi) * plain, rel=0.05)
    alone = sum(float(move.var()) / len(move) for move in found.influence)
    assert alone == pytest.approx(found.std_error**2)


def test_pooled_samples_share_the_error_of_their_reference():
    normal, y = sampler(), torch.arange(-1.0, 2, dtype=torch.float64)  # variance of its mean 1/3
    one = [Estimate(v, 1.0, (40, 3), "m", "", (normal(40), y)) for v in (1.0, 2.0, 6.0)]
    errors = [math.sqrt(float(e.influence[0].var()) / 40 + 1 / 3) for e in one]
    one = [
        Estimate(e.value, s, e.n, "m", "", e.influence) for e, s in zip(one, errors, strict=True)
    ]
    found = pooled(one)
    assert (found.value, found.n, found.name) == (3.0, (120, 3), "m, mean of 3 samples")
    assert "from 1 to 6" in found.note
    own = sum(float(e.influence[0].var()) / 40 for e in one) / 9
    assert found.std_error**2 == pytest.approx(own + 1 / 3, rel=0.02)


def test_what_cannot_be_pooled_is_refused():
    a = Estimate(1.0, 0.1, (4, 9), "m")
    with pytest.raises(ValueError, match="at least 2, got 1"):
        pooled([a])
    with pytest.raises(ValueError, match=r"same metric and n, got m with n = \(4, 9\) and m with"):
        pooled([a, Estimate(1.0, 0.1, (5, 9), "m")])
    with pytest.raises(ValueError, match="must have influences"):
        pooled([a, a])


@pytest.mark.slow
@pytest.mark.parametrize("metric", [mmd2, frechet_distance, classifier_accuracy])
@pytest.mark.parametrize("shift", [0.0, 0.15, 0.6])
def test_pooled_intervals_hold_the_mean_in_19_of_20_cases(metric, shift):
    """300 repetitions know the share to 1.3 %."""
    normal, found = sampler(8), []
    for _ in range(300):
        y = normal(200, 4)
        found.append(pooled([metric(normal(100, 4) + shift, y) for _ in range(3)]))
    mean = np.mean([each.value for each in found])
    low, high = np.array([each.interval() for each in found]).T
    assert 0.91 < ((low <= mean) & (mean <= high)).mean() < 0.99
