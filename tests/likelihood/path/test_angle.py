"""The ODE in the angle against the ODE in time, and the coordinate in which steps are equal."""

import itertools
import math

import pytest
import torch

from scoresde.exact import GaussianMixture
from scoresde.likelihood.path.angle import Angle
from scoresde.score import reverse_drift
from scoresde.sde import VE, VP, SubVP

DOUBLE = torch.float64
STDS = [0.3, 1.0, 2.5]
SPREADS = [0.05, 1 / 6, 0.5, 2.0]
TIMES = [1e-4, 0.01, 0.2, 0.55, 0.9, 1.0]
T_MIN = 1e-5


def make(sde, std=0.5, spread=1 / 6, t_min=T_MIN):
    return Angle(sde, std, spread, t_min)


def theta_of(sde, std, t):
    """arctan(σ/(α d)) of a tensor of times, differentiable."""
    return torch.atan(sde.sigma(t) / (sde.alpha(t) * std))


def derivative(function, t):
    """By autograd, of a number."""
    t = torch.tensor(t, dtype=DOUBLE, requires_grad=True)
    return float(torch.autograd.grad(function(t), t)[0])


class TestRate:
    """dz/dθ = F = a z + b v is the probability-flow ODE."""

    @pytest.mark.parametrize("std", STDS)
    def test_is_the_ode_by_the_chain_rule(self, sde, mixture, std):
        model, x = mixture(sde), torch.tensor([[0.3, -0.8], [2.0, 1.0]], dtype=DOUBLE)
        angle = make(sde, std)

        def log_scale(time):
            return 0.5 * torch.log((sde.alpha(time) * std) ** 2 + sde.sigma(time) ** 2)

        for t in [min(t, sde.t_regular) for t in TIMES]:
            scale = math.exp(float(log_scale(torch.tensor(t, dtype=DOUBLE))))
            # z = x/n, so that dz/dt = h/n − z d log n/dt
            h = reverse_drift(model, x, t, eta=0.0)
            along_t = h / scale - x / scale * derivative(log_scale, t)
            expected = along_t / derivative(lambda time: theta_of(sde, std, time), t)
            node = sde.at(t, x)
            a, b = angle.factors(node)
            assert angle.scale(node) == pytest.approx(scale, rel=1e-12), t
            # h and z d log n/dt cancel: relative to them, the rounding is 1e-16 over that share
            found = a * x / scale + b * model.v(x, node)
            assert torch.allclose(found, expected, rtol=1e-7, atol=1e-7), t

    @pytest.mark.parametrize("std", STDS)
    def test_vanishes_for_a_gaussian_of_that_deviation(self, sde, std):
        model = GaussianMixture(sde, [1.0], torch.zeros(1, 3, dtype=DOUBLE), [std**2])
        x = torch.tensor([[0.4, -1.0, 2.0]], dtype=DOUBLE)
        for t in TIMES:
            node = sde.at(t, x)
            angle = make(sde, std)
            a, b = angle.factors(node)
            terms = a * x / angle.scale(node), b * model.v(x, node)
            largest = float(terms[0].abs().max())
            torch.testing.assert_close(-terms[0], terms[1], rtol=1e-10, atol=1e-13 * (1 + largest))

    def test_factors_per_sample(self, sde):
        x = torch.zeros(3, 2, dtype=DOUBLE)
        angle, times = make(sde), torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE)
        node = sde.at(times, x)
        columns = (*angle.factors(node), angle.scale(node))
        for i, t in enumerate(times.tolist()):
            one = sde.at(t, x)
            expected = *angle.factors(one), angle.scale(one)
            assert [float(c[i]) for c in columns] == pytest.approx(list(expected), rel=1e-12)

    @pytest.mark.parametrize("kind", [VP, SubVP, VE])
    def test_is_regular_at_both_ends(self, kind, mixture):
        """F and its factors are finite there, because neither σ nor α enters alone."""
        sde, x = kind(), torch.tensor([[0.3, -0.8]], dtype=DOUBLE)
        for t in (1e-9 if kind is not VE else 0.0, 1.0):
            angle, node = make(sde), sde.at(t, x)
            a, b = angle.factors(node)
            rate = a * x + b * mixture(sde).v(x * angle.scale(node), node)
            assert float(rate.abs().max()) < 10


class TestCoordinate:
    """u of equal steps and nodes."""

    def test_times_are_the_inverse(self, sde):
        ts = torch.tensor([1e-5, 1e-3, 0.1, 0.4, 0.8, 1.0], dtype=DOUBLE)
        for case in itertools.product(STDS, SPREADS):
            std, spread = case
            angle = make(sde, std, spread)
            us = torch.tensor([angle.u(node) for node in sde.nodes(ts)], dtype=DOUBLE)
            assert (us.diff() > 0).all(), case
            assert (0 <= us).all(), case
            assert (us <= 1).all(), case
            # near 1 the last bit of u is worth much of t: 1 − y is a power 1/κ of 1 − u
            tolerance = 1e-9 if spread < 1 else 1e-6
            assert torch.allclose(angle.times(us), ts, rtol=tolerance, atol=1e-9), case

    @pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
    def test_any_shape(self, shape):
        u = torch.full(shape, 0.4, dtype=DOUBLE)
        angle = make(VP())
        assert angle.times(u).shape == angle.slope(u).shape == shape

    def test_rounding_does_not_lead_out_of_range(self, sde):
        angle = make(sde, t_min=1e-3)
        ends = [angle.u(node) for node in angle.ends()]
        beyond = torch.tensor([ends[0] * (1 - 1e-12), ends[1] * (1 + 1e-16)], dtype=DOUBLE)
        assert angle.times(beyond).tolist() == pytest.approx([1e-3, 1.0], rel=1e-9)
        assert float(angle.times(beyond)[0]) >= 1e-3
        assert float(angle.times(beyond)[1]) <= 1

    def test_slope_is_that_of_theta(self, sde):
        """By differences, of θ at the times of u."""
        for case in itertools.product(STDS, SPREADS):
            # up to t = 1 of Linear, some θ of κ = 0.05 differ from π/2 by less than t can tell
            angle = Angle(sde, *case, T_MIN, sde.t_regular)
            low, high = (angle.u(node) for node in angle.ends())
            u = torch.linspace(low, high, 9, dtype=DOUBLE)[1:-1]
            gap = 1e-5
            above, below = (theta_of(sde, case[0], angle.times(u + d * gap)) for d in (1, -1))
            # θ''' gap²/6 and 1e-16/gap
            slope = (above - below) / (2 * gap)
            assert torch.allclose(angle.slope(u), slope, rtol=1e-5, atol=0), case

    def test_one_half_is_equal_spacing_in_theta(self):
        angle = make(VP(), spread=0.5)
        u = torch.linspace(0.1, 0.9, 9, dtype=DOUBLE)
        torch.testing.assert_close(angle.slope(u), torch.full_like(u, math.pi / 2))
        assert angle.u(VP().nodes(torch.tensor([0.4]))[0]) == pytest.approx(
            2 / math.pi * float(theta_of(VP(), 0.5, torch.tensor(0.4, dtype=torch.float32))),
            rel=1e-6,
        )

    @pytest.mark.parametrize("spread", [1e-3, 1 / 6, 0.5])
    def test_density_in_the_noise_level(self, spread):
        """du/dlog(σ/α) ∝ (y (1 − y))^κ, y = σ²/(d² α² + σ²); nearly constant for small κ."""
        angle, sde = make(VP(), 0.7, spread), VP()
        ratios = []
        for lam in (-3.0, -1.0, 0.0, 2.0, 4.0):
            times = sde.t_of_lam(torch.tensor([lam - 1e-4, lam, lam + 1e-4], dtype=DOUBLE))
            above, here, below = sde.nodes(times)
            y = here.sigma**2 / (0.49 * here.alpha**2 + here.sigma**2)
            rate = (angle.u(above) - angle.u(below)) / 2e-4
            ratios.append(rate / (y * (1 - y)) ** spread)
        assert ratios == pytest.approx([ratios[0]] * 5, rel=1e-5)

    def test_ends(self):
        first, last = make(VE(), t_min=0.0).ends()
        assert (first.t, first.sigma) == (0.0, pytest.approx(0.01))
        assert (last.t, last.sigma) == (1.0, pytest.approx(50))
        with pytest.raises(ValueError, match="t_min must be greater than 0 for VP"):
            make(VP(), t_min=0.0).ends()
