"""Tables of β that end in pure noise, β_N = 1."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import PchipInterpolator

from scoresde.sde import VP, TabulatedVP, cosine_betas, linear_betas, zero_terminal_snr

# The usual ones, the shortest one, and one whose angle changes ten times faster, then slower.
TABLES = {
    "VP": zero_terminal_snr(VP().ddpm_betas(1000)).tolist(),
    "scaled linear": zero_terminal_snr(linear_betas(1000, 0.03, 0.11) ** 2).tolist(),
    "cosine": zero_terminal_snr(cosine_betas(50)).tolist(),
    "two": [0.2, 1.0],
    "almost no noise": [1e-4, 1.0],
    "uneven": [0.1, 0.01, 0.9, 0.001, 1.0],
}
every_table = pytest.mark.parametrize("betas", TABLES.values(), ids=TABLES)
ROUNDING = 1e-12


def inside(n, parts=8):
    """Times in every interval, without the knots."""
    u = (torch.arange(n * parts, dtype=torch.float64) + 0.5) / (n * parts)
    return torch.cat([u, 1 - 0.1 ** torch.arange(1, 14, dtype=torch.float64) / n])


@every_table
def test_the_knots_are_those_of_the_table(betas):
    sde, n = TabulatedVP(betas), len(betas)
    knots = torch.arange(n + 1, dtype=torch.float64) / n
    want = np.concatenate([[1.0], np.cumprod(1 - np.array(betas))])
    np.testing.assert_allclose(sde.alpha(knots) ** 2, want, rtol=1e-11, atol=0)
    end = sde.at(1.0, torch.zeros(1, 1))
    assert end[1:6] == (0.0, 1.0, -math.inf, -math.inf, math.inf)
    assert end.sigma_rate == 0
    assert end.determinant == -end.alpha_rate > 0
    assert float(sde.lam(sde.t_regular)) == pytest.approx(-6)
    assert sde.ends_in_noise
    assert not TabulatedVP(betas[:-1] + [0.5]).ends_in_noise


def slope_of(function, t):
    """d function/dt at each time."""
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@every_table
def test_f_g_and_rates_are_those_of_the_kernel(betas):
    """By automatic differentiation; α' and σ' up to t = 1."""
    sde = TabulatedVP(betas)
    t = inside(len(betas))
    f = slope_of(sde.log_alpha, t)
    torch.testing.assert_close(sde.f(t), f, rtol=1e-9, atol=0)  # 1 − t loses digits
    torch.testing.assert_close(sde.g(t) ** 2, -2 * f, rtol=1e-9, atol=0)
    t = torch.cat([t, torch.ones(1, dtype=torch.float64)])
    found = sde.rates(t)
    torch.testing.assert_close(found[0], slope_of(sde.alpha, t), rtol=1e-9, atol=0)
    # before the last interval σ' = g²/(2σ) + f σ, whose terms cancel
    torch.testing.assert_close(found[1], slope_of(sde.sigma, t), rtol=1e-9, atol=1e-9)
    step = 1e-9 / len(betas)  # long enough for the digits of 1 − t
    chord = -float(sde.alpha(1 - step)) / step
    assert float(found[0][-1]) == pytest.approx(chord, rel=1e-3)
    assert float(found[1][-1]) == 0


@every_table
def test_f_is_continuous_and_lam_falls(betas):
    sde, n = TabulatedVP(betas), len(betas)
    knots = torch.arange(1, n, dtype=torch.float64) / n
    left, right = sde.f(knots - 1e-13), sde.f(knots + 1e-13)
    # 1e-13 times the slope of f, which is largest, about n² f, where an angle turns
    torch.testing.assert_close(left, right, rtol=1e-6, atol=0)
    t = inside(n, 20).sort().values
    assert bool((sde.lam(t).diff() < 0).all())
    assert bool((sde.f(t) <= 0).all())


@every_table
def test_t_of_lam_is_the_inverse_down_to_pure_noise(betas):
    sde = TabulatedVP(betas)
    t = inside(len(betas))
    torch.testing.assert_close(sde.t_of_lam(sde.lam(t)), t, rtol=0, atol=1e-12)
    assert float(sde.t_of_lam(-math.inf)) == 1
    deep = torch.tensor([-6.0, -20.0, -300.0], dtype=torch.float64)
    gap = 1 - sde.t_of_lam(deep)
    assert bool((gap >= 0).all())
    rate = float(sde.rates(1.0)[0])
    assert float(gap[1]) == pytest.approx(math.exp(-20) / -rate, rel=1e-5)  # of 1 − t


def test_intervals_before_the_last_two_are_those_of_the_finite_table():
    betas = TABLES["cosine"]
    n = len(betas)
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-np.array(betas[:-1])))])
    finite = PchipInterpolator(np.arange(n) / n, log_alpha_bar)
    t = torch.linspace(0, (n - 2) / n, 1000, dtype=torch.float64)
    got = 2 * TabulatedVP(betas).log_alpha(t)
    np.testing.assert_allclose(got, finite(t.numpy()), rtol=ROUNDING, atol=1e-15)


def test_rescaling_keeps_the_first_level_and_ends_at_zero():
    before = linear_betas(40, 1e-3, 0.2)
    after = zero_terminal_snr(before)
    alpha, shifted = (torch.cumprod(1 - b, 0).sqrt() for b in (before, after))
    assert float(after[-1]) == 1
    assert float(after[0]) == float(before[0])
    # affine in α, by algorithm 1
    ratio = (shifted[:-1] - shifted[1:]) / (alpha[:-1] - alpha[1:])
    torch.testing.assert_close(ratio, ratio[:1].expand(39), rtol=1e-9, atol=0)
    torch.testing.assert_close(zero_terminal_snr(after), after, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_rescaling_is_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    for before in (linear_betas(1000), linear_betas(1000, 0.03, 0.11) ** 2):
        want = rescale_zero_terminal_snr(before)
        torch.testing.assert_close(zero_terminal_snr(before), want, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.1], "betas must hold at least 2 values, got 1"),
        ([0.1, 1.5], r"betas must lie in \(0, 1\), got betas\[1\] = 1.5"),
        ([1.0, 0.5], r"betas must lie in \(0, 1\), got betas\[0\] = 1"),
        ([0.1, math.nan], r"betas must lie in \(0, 1\), got betas\[1\] = nan"),
    ],
)
def test_bad_tables_are_refused(betas, message):
    with pytest.raises(ValueError, match=message):
        zero_terminal_snr(betas)


def test_one_is_allowed_as_the_last_beta_only():
    with pytest.raises(ValueError, match=r"the last one in \(0, 1\], got betas\[0\] = 1"):
        TabulatedVP([1.0, 0.5])
