"""Power-function averages and sums of them: profiles, exact averages, reconstruction."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from scoresde.ema import LARGEST_SIGMA_REL, PowerEMA, Profile, power_exponent, reconstruct
from scoresde.ema.posthoc import inner_products

WIDTHS = (0.05, 0.1)


class One(nn.Module):
    """A network of a few float64 weights, all of one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value, dtype=torch.float64))


def profile(tau, sigma_rel, t):
    """p(τ) by its definition."""
    gamma = power_exponent(sigma_rel)
    return np.where(tau <= t, (gamma + 1) * tau**gamma / t ** (gamma + 1), 0.0)


@pytest.mark.parametrize("sigma_rel", [1e-3, 0.02, 0.1, 0.25, LARGEST_SIGMA_REL])
def test_the_exponent_is_that_of_the_relative_width(sigma_rel):
    """The width by its definition, from moments of the profile, and a root found by bisection."""
    gamma = power_exponent(sigma_rel)
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    # The difference of two moments near 1 has a rounding error of 1e-16.
    assert math.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-16 / sigma_rel**2 + 1e-9)

    def excess(g):
        return (g + 1) ** 0.5 / ((g + 2) * (g + 3) ** 0.5) - sigma_rel

    if gamma > 0:
        assert gamma == pytest.approx(brentq(excess, 0, 2 / sigma_rel, xtol=1e-13), abs=1e-8)
    else:
        assert sigma_rel == LARGEST_SIGMA_REL


@pytest.mark.parametrize("value", [0.0, -0.1, 0.2887, float("nan"), True, "0.1"])
def test_widths_out_of_range_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="sigma_rel must be .*, got"):
        power_exponent(value)


def test_the_recursion_is_the_exact_average_of_piecewise_constant_weights():
    """Σ w_k ∫ p(τ) dτ over (k − 1, k], and no share of the initial weights."""
    weights = np.random.default_rng(0).normal(size=200)
    average = PowerEMA(One(1e6), 0.07)
    for weight in weights:
        average.update(One(weight))
    edges = (np.arange(201) / 200) ** (power_exponent(0.07) + 1)  # ∫ p from 0
    assert average.averages["weight"].tolist() == pytest.approx([np.diff(edges) @ weights] * 2)


def test_inner_products_equal_quadrature():
    profiles = [Profile(0.05, 300), Profile(0.1, 300), Profile(0.1, 1000), Profile(0.2, 700)]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    expected = np.zeros((4, 4))
    for i, a in enumerate(profiles):
        for j, b in enumerate(profiles):
            end = min(a.updates, b.updates)  # both are smooth up to here, one is 0 beyond
            tau = (nodes + 1) * end / 2
            expected[i, j] = (weights * profile(tau, *a) * profile(tau, *b)).sum() * end / 2
    np.testing.assert_allclose(
        inner_products(profiles, profiles), expected, rtol=1e-8
    )  # τ^γ is not smooth at 0


def stored(*updates):
    return [Profile(width, t) for t in updates for width in WIDTHS]


@pytest.mark.parametrize("sigma_rel", [0.03, 0.07, 0.15, 0.25])
def test_weights_that_are_a_polynomial_in_time_are_averaged_in_closed_form(sigma_rel):
    """w(τ) = τ^m has the average t^m (γ + 1)/(γ + m + 1).

    By the inequality of Cauchy and Schwarz, its error is at most ‖Σ x p − p‖ ‖w − c‖ for any c.
    """
    profiles, t = stored(*range(50, 801, 50)), 800
    found = reconstruct(profiles, Profile(sigma_rel, t))
    norm = float(inner_products([Profile(sigma_rel, t)], [Profile(sigma_rel, t)])) ** 0.5
    for m in range(4):

        def average(sigma_rel, at, m=m):
            gamma = power_exponent(sigma_rel)
            return (at / t) ** m * (gamma + 1) / (gamma + m + 1)

        total = sum(x * average(*p) for x, p in zip(found.coefficients, profiles, strict=True))
        spread = m / ((m + 1) * math.sqrt(2 * m + 1)) * math.sqrt(t)  # ‖w − its mean‖
        assert abs(total - average(sigma_rel, t)) <= found.residual * norm * spread + 1e-9
    assert found.residual < 0.1
    assert math.fsum(found.coefficients) == pytest.approx(1, abs=1e-9)


def test_a_stored_average_is_itself_and_earlier_times_use_no_later_snapshot():
    profiles = stored(100, 200, 300)
    found = reconstruct(profiles, Profile(0.1, 200))
    assert found.coefficients == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-9)
    assert found.residual < 1e-6  # √ of the rounding of float64
    assert reconstruct(profiles, Profile(0.07, 200)).coefficients[4:] == (0, 0)


def test_more_snapshots_never_fit_worse():
    fits = [
        reconstruct(stored(*range(800 // n, 801, 800 // n)), Profile(0.02, 800)).residual
        for n in (4, 8, 16)
    ]
    assert fits == sorted(fits, reverse=True)
    assert fits[-1] < fits[0] / 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Profile(0.1, 250), r"updates must be those of a snapshot \(100, 200\), got 250"),
        (Profile(0.005, 200), r"sigma_rel 0.005 cannot be made .* residual is 0\.\d\d, above 0.5"),
        (Profile(0.3, 200), "sigma_rel must be at most 0.288.*, got 0.3"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(stored(100, 200), wanted)
