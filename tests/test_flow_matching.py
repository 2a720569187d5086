"""Flow matching: the straight path from t = 1 on, velocity networks in both conventions, its loss.

The oracles are closed forms: of a Gaussian N(m, s²) the flow map under α = 1 − t, σ = t is
x(t) = α m + √(α² s² + σ²) x(1), and at t = 1 the velocity is x − m.
"""

import math

import pytest
import torch

from scoresde import grid
from scoresde.exact import ConditionalMixture, FiniteData, GaussianMixture
from scoresde.likelihood import Ode, Path, log_likelihood
from scoresde.loss import Objective
from scoresde.noise import SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    AngularAdams,
    DPMSolverMultistep,
    EulerMaruyama,
    ProbabilityFlowODE,
    RungeKutta,
    sample,
)
from scoresde.score import FunctionScore, Preconditioning, wrap
from scoresde.sde import VP, Linear

LINEAR = Linear()
MEAN, STD = 0.3, 0.5
QUANTITIES = ("eps", "x0", "v", "velocity")
# data_at, velocity_sign, and the sign of what the network returns with respect to our dx/dt
CONVENTIONS = [(0, None, 1), (0, -1, -1), (1, None, -1), (1, 1, 1)]


@pytest.fixture
def narrow():
    """The exact model of N(0.3, 0.5²) under Linear."""
    return GaussianMixture(LINEAR, [1.0], [[MEAN]], [STD**2])


@pytest.fixture
def plane(mixture):
    """Three Gaussians in the plane under Linear."""
    return mixture(LINEAR)


def velocity_network(exact, data_at=0, velocity_sign=None, sign=1):
    """The exact velocity as a stranger's network in a convention; its label is 1000 τ."""

    def net(x, label):
        tau = label.double() / 1000
        return sign * exact.velocity(x, 1 - tau if data_at else tau)

    options = {"data_at": data_at, "velocity_sign": velocity_sign, "label_scale": 1000}
    return wrap(net, exact.sde, "velocity", label="time", **options)


def noise(n, *shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("data_at", "velocity_sign", "sign"), CONVENTIONS)
@pytest.mark.parametrize("kind", [Linear, VP])
def test_every_quantity_follows_from_a_velocity_in_either_convention(
    mixture, kind, data_at, velocity_sign, sign
):
    exact, x = mixture(kind()), noise(5, 2)
    model = velocity_network(exact, data_at, velocity_sign, sign)
    for t in (1.0, 0.02, torch.tensor([1.0, 0.8, 0.5, 0.1, 0.01]).double()):
        for quantity in QUANTITIES:
            got, want = getattr(model, quantity)(x, t), getattr(exact, quantity)(x, t)
            # the label has lost up to 3 digits to 1 − t and the factor 1000
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("data_at", "velocity_sign", "sign"), CONVENTIONS[1:])
def test_conventions_give_the_same_samples_and_likelihoods(plane, data_at, velocity_sign, sign):
    ours, theirs = (
        velocity_network(plane, *c) for c in (CONVENTIONS[0], (data_at, velocity_sign, sign))
    )
    x = plane.sample(4, 1e-2, seed=1)
    runs = [
        (
            sample(model, shape=(3, 2), nfe=6, seed=0, dtype=torch.float64).x,
            log_likelihood(model, x, Path(8, 4, t_min=1e-2), seed=0).log_prob,
        )
        for model in (ours, theirs)
    ]
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)  # rounding of 1 − t


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(RungeKutta("euler"), 1), (RungeKutta("heun2"), 2), (RungeKutta("rk4"), 4)],
    ids=str,
)
def test_runge_kutta_in_t_keeps_its_order_from_t_1_on(narrow, sampler, order):
    start, t_min = torch.tensor([[1.0], [-0.7]]).double(), 0.1
    alpha = 1 - t_min
    exact = alpha * MEAN + math.hypot(alpha * STD, t_min) * start
    errors = []
    for steps in (10, 20, 40):
        ts = grid.uniform(LINEAR, steps, t_min, t_max=1.0)
        found = sampler.run(narrow, start, ts, SampleNoise(0, [0, 1])).state
        errors.append(float((found - exact).abs().max()))
    observed = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert observed == pytest.approx([order, order], abs=0.3)


@pytest.mark.parametrize(
    "sampler",
    [AngularAdams(), ProbabilityFlowODE("dop853", 1e-9, 1e-9, per_sample=True)],
    ids=["angular", "dop853"],
)
def test_solvers_reach_the_closed_form_from_t_1(narrow, sampler):
    """Also for an angle's grid that begins at θ = π/2."""
    start, t_min = torch.tensor([[1.0], [-0.7]]).double(), 1e-3
    ts = grid.arctan(LINEAR, 200, t_min, t_max=1.0)
    found = sampler.run(narrow, start, ts, SampleNoise(0, [0, 1])).state
    exact = (1 - t_min) * MEAN + math.hypot((1 - t_min) * STD, t_min) * start
    # order 3 in steps of π/400, or a tolerance of 1e-9 at each of some 50 steps
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "network", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["exact", "network"]
)
@pytest.mark.slow
def test_the_likelihood_of_a_mixture_is_exact_from_t_1_on(plane, network):
    """At t = 1 the marginal is the prior, so that the value is log p at t_min."""
    model = velocity_network(plane) if network else plane
    x = plane.sample(3, 1e-5, seed=3)
    want = plane.log_prob(x, 1e-5)
    ode = log_likelihood(model, x, Ode("dop853", 1e-8, 1e-8), seed=0)
    torch.testing.assert_close(ode.log_prob, want, rtol=0, atol=1e-6)
    assert ode.t_max == 1.0
    # the error falls as the third power of the steps of the path: 6e-7 is measured here
    path = log_likelihood(model, x, Path(128, 128), seed=0)
    torch.testing.assert_close(path.log_prob, want, rtol=0, atol=1e-6)


def test_what_needs_lambda_starts_at_minus_6_and_says_so(plane):
    recommended = sample(plane, n=2, nfe=5)
    assert (float(recommended.ts[0]), recommended.start_std) == (1.0, 1.0)
    assert float(sample(plane, DDIM(), n=2, nfe=5).ts[0]) == 1.0  # its step needs no λ
    for sampler in (EDM(), DPMSolverMultistep(), EulerMaruyama()):
        out = sample(plane, sampler, n=2, nfe=8, seed=0)
        first = float(out.ts[0])
        assert first == LINEAR.t_regular
        assert out.start_std == pytest.approx(math.hypot(1 - first, first), rel=1e-12)
        assert bool(torch.isfinite(out.x).all())
        with pytest.raises(ValueError, match=r"cannot start at t = 1, .* start at t = 0.9975"):
            sample(plane, sampler, [1.0, 0.5, 0.1], n=2)


def test_a_model_of_eps_ends_at_lambda_minus_6(plane):
    """x0 does not follow from ε at t = 1; the error of the earlier end is of the order α."""
    model = FunctionScore(LINEAR, plane.eps)
    assert model.t_most == LINEAR.t_regular
    assert float(sample(model, shape=(2, 2), nfe=5, seed=0).ts[0]) == LINEAR.t_regular
    x = plane.sample(3, 1e-2, seed=3)
    found = log_likelihood(model, x, Ode("bosh3", 1e-3, 1e-3, t_min=1e-2), seed=0)
    assert found.t_max == LINEAR.t_regular
    # α = 0.0025 times a mean of about 0.6 and a latent of up to 3
    torch.testing.assert_close(found.log_prob, plane.log_prob(x, 1e-2), rtol=0, atol=0.01)
    for method in (model.x0, model.v, model.velocity):
        with pytest.raises(ValueError, match=r"t must be at most 0.9975.* got 1: α is 0 there"):
            method(x, 1.0)
    with pytest.raises(ValueError, match=r"t must be at most 0.9975"):
        sample(model, AngularAdams(), [1.0, 0.5], (2, 2), seed=0)


def test_exact_models_know_only_the_mean_at_t_1(mixture_parameters):
    weights, means, covs = mixture_parameters
    x, data = noise(4, 2), noise(7, 2, seed=1)
    finite = FiniteData(LINEAR, data)
    for t in (1.0, torch.ones(4, dtype=torch.float64)):
        torch.testing.assert_close(finite.x0(x, t), data.mean(0).expand(4, 2), rtol=0, atol=1e-14)
    torch.testing.assert_close(finite.velocity(x, 1.0), x - data.mean(0), rtol=0, atol=1e-14)
    plain = GaussianMixture(LINEAR, weights, means, covs)
    torch.testing.assert_close(plain.x0(x, 1.0), plain.mean().expand(4, 2), rtol=0, atol=1e-14)
    assert issubclass(ConditionalMixture, GaussianMixture)


class Affine(torch.nn.Module):
    """û = a x + b."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = (torch.nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (a, b))

    def forward(self, x, label):
        return self.a * x + self.b


def test_the_loss_is_that_of_the_velocity_and_its_optimum_at_t_1_is_x_minus_the_mean():
    net = Affine(1.0, -MEAN)
    model = wrap(net, LINEAR, "velocity", label="time")
    # all four sign combinations of x_0 = m ± s and ε = ±1: means and variances are exact
    x0 = torch.tensor([[MEAN + STD], [MEAN - STD]], dtype=torch.float64).repeat(2, 1)
    eps = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()[:, None]
    loss, t, error = Objective("velocity", "uniform")(model, x0, torch.ones(4).double(), eps)
    assert t.tolist() == [1.0] * 4
    assert error.tolist() == [0.0] * 4  # x is the noise itself
    torch.testing.assert_close(loss, (MEAN - x0[:, 0]).square(), rtol=1e-12, atol=0)
    loss.mean().backward()
    assert abs(float(net.a.grad)) < 1e-15
    assert abs(float(net.b.grad)) < 1e-15


@pytest.mark.parametrize("weighting", ["simple", "velocity", "min_snr", "edm", "likelihood"])
@pytest.mark.parametrize("times", ["uniform", "logit_normal", "log_normal", "log_snr", "ladder"])
def test_losses_are_finite_at_both_ends(plane, weighting, times):
    u = torch.tensor([0.0, 0.5, 1.0]).double()
    x0, eps = plane.sample(3, seed=0), noise(3, 2)
    objective = Objective(weighting, times, t_min=1e-3)
    objective.check(LINEAR)
    for model in (velocity_network(plane), FunctionScore(LINEAR, plane.eps)):
        found = objective(model, x0, u, eps)
        assert all(bool(torch.isfinite(values).all()) for values in found)
        assert float(found[1].max()) <= (model.t_most if times != "log_snr" else LINEAR.t_regular)


def test_logit_normal_times_are_log_normal_ones_of_the_straight_path():
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    a, b = (
        Objective("velocity", times, log_mean=-0.3, log_std=0.8).draw_times(LINEAR, u)[0]
        for times in ("logit_normal", "log_normal")
    )
    torch.testing.assert_close(a, 1 - (1 - b), rtol=1e-9, atol=1e-9)
    # the median, which the truncation to t ≥ 1e-5 does not move
    assert float(torch.logit(a[50])) == pytest.approx(-0.3, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "velocity", "label": "time", "data_at": 2}, "data_at must be 0 or 1, got 2"),
        ({"target": "velocity", "label": "sigma", "data_at": 1}, "data_at must be 0 for the label"),
        ({"target": "velocity", "velocity_sign": 2}, "velocity_sign must be 1 or -1, got 2"),
        ({"target": "eps", "velocity_sign": 1}, "velocity_sign must be None for the target 'eps'"),
    ],
)
def test_contradicting_conventions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preconditioning(**arguments)


def test_grids_in_lambda_do_not_begin_where_it_is_infinite(plane):
    for make in (grid.log_snr, grid.karras):
        with pytest.raises(ValueError, match="t_max must be at most 0.9975.* α is 0 there"):
            make(LINEAR, 5, t_max=1.0)
    with pytest.raises(ValueError, match="learned_variance needs an SDE with α"):
        Objective(times="ladder").check(LINEAR, learned_variance=True)
    with pytest.raises(ValueError, match="spread must be at most 0.5 for Linear, got 2"):
        log_likelihood(plane, noise(1, 2), Path(spread=2.0), seed=0)
