"""Guided models against exact scores, densities and counts."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import scoresde
from scoresde.exact import ConditionalMixture, GaussianMixture
from scoresde.guidance import (
    AutoGuided,
    ClassifierFree,
    ClassifierGuided,
    DynamicallyThresholded,
    Projected,
    Scale,
)
from scoresde.likelihood import Ode
from scoresde.samplers import DDIM

QUANTITIES = ("eps", "x0", "v", "velocity")
TIMES = [0.05, 0.4, 0.9]


@pytest.fixture
def joint():
    """joint(sde): the exact p(x | c) of three components in the plane with two classes."""
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]], dtype=torch.float64)
    shares = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]

    def make(sde):
        return ConditionalMixture(sde, [0.5, 0.3, 0.2], means, [0.1, 0.2, 0.05], shares=shares)

    return make


@pytest.fixture
def x():
    return torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


Y = torch.tensor([0, 1, 1, 0])


def score_of(log_density, x):
    point = x.clone().requires_grad_()
    return torch.autograd.grad(log_density(point).sum(), point)[0]


@pytest.mark.parametrize("t", TIMES)
def test_the_guided_score_is_that_of_the_product_of_densities(sde, joint, x, t):
    model, w = joint(sde), 2.5
    given, free = model.given(Y), model.marginal
    wanted = score_of(lambda p: (1 - w) * free.log_prob(p, t) + w * given.log_prob(p, t), x)
    guided = ClassifierFree(model, w).given(Y)
    # Rounding: the score of the narrowest component is about 1/σ² times the terms' rounding.
    torch.testing.assert_close(guided.score(x, t), wanted, rtol=1e-9, atol=1e-9)
    node = sde.at(t, x)
    eps, x0, v = guided.eps(x, t), guided.x0(x, t), guided.v(x, t)
    torch.testing.assert_close(node.alpha * x0 + node.sigma * eps, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(v, node.alpha * eps - node.sigma * x0, rtol=1e-9, atol=1e-9)
    velocity = node.alpha_rate * x0 + node.sigma_rate * eps
    torch.testing.assert_close(guided.velocity(x, t), velocity, rtol=1e-9, atol=1e-9)


def test_scale_one_is_the_conditional_model_and_zero_the_other_to_the_bit(sde, joint, x):
    model = joint(sde)
    for w, wanted in ((1.0, model.given(Y)), (0, model.marginal)):
        guided = ClassifierFree(model, w).given(Y)
        for quantity in QUANTITIES:
            assert torch.equal(getattr(guided, quantity)(x, 0.3), getattr(wanted, quantity)(x, 0.3))
        assert guided.nfe.forward == 4
        assert guided.guided == (w != 1)


def test_two_evaluations_inside_the_interval_and_one_outside(joint, x):
    sde = scoresde.VP()
    level = math.exp(-float(sde.lam(0.5)))
    guided = ClassifierFree(joint(sde), Scale(3.0, high=level)).given(Y)
    for t, cost in ((0.4, 2), (0.6, 1)):
        with scoresde.score.count_nfe(guided) as counted:
            guided.eps(x, t)
        assert counted.forward == cost
    # Times that differ between samples: each sample has its own scale.
    t = torch.tensor([0.4, 0.6, 0.4, 0.6], dtype=torch.float64)
    alone = torch.cat([guided.take(slice(i, i + 1)).eps(x[i : i + 1], t[i]) for i in range(4)])
    torch.testing.assert_close(guided.eps(x, t), alone, rtol=1e-12, atol=1e-12)


def test_guidance_starts_in_pure_noise(joint, x):
    """x0 is the mean of the data at t = 1 of the linear schedule, whatever x is."""
    model, sde = joint(scoresde.sde.Linear()), scoresde.sde.Linear()
    guided = ClassifierFree(model, 3.0).given(Y)
    assert guided.t_most == 1
    weak = model.marginal.mean()
    wanted = weak + 3 * (model.given(Y).mean() - weak)
    torch.testing.assert_close(guided.x0(x, 1.0), wanted, rtol=1e-9, atol=1e-9)
    assert bool(guided.velocity(x, 1.0).isfinite().all())
    assert ClassifierGuided(model.marginal, lambda x, t, y: x.sum(1)).t_most == sde.t_regular


def test_the_scale_may_be_a_function_of_the_noise_level(joint, x):
    sde = scoresde.VP()
    scale = Scale(lambda level: 1 + level)
    level = math.exp(-float(sde.lam(0.4)))
    found = ClassifierFree(joint(sde), scale).given(Y).eps(x, 0.4)
    assert torch.equal(found, ClassifierFree(joint(sde), 1 + level).given(Y).eps(x, 0.4))


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescaling_moves_the_deviation_of_v_towards_the_conditional_one(joint, x, rescale):
    model, w = joint(scoresde.VP()), 4.0
    plain = ClassifierFree(model, w).given(Y).v(x, 0.4).std(1, correction=0)
    wanted = (1 - rescale) * plain + rescale * model.given(Y).v(x, 0.4).std(1, correction=0)
    found = ClassifierFree(model, w, rescale).given(Y).v(x, 0.4).std(1, correction=0)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_projected_guidance_is_plain_guidance_with_its_parallel_part(joint, x):
    model = joint(scoresde.VP())
    plain = ClassifierFree(model, 3.0).given(Y)
    same = Projected(model, 3.0, parallel=1.0).given(Y)
    torch.testing.assert_close(same.eps(x, 0.4), plain.eps(x, 0.4), rtol=1e-10, atol=1e-12)
    strong = model.given(Y).x0(x, 0.4)
    change = Projected(model, 3.0).given(Y).x0(x, 0.4) - strong
    across = (change * strong).sum(1)
    torch.testing.assert_close(across, torch.zeros_like(across), rtol=0, atol=1e-12)
    short = Projected(model, 3.0, norm=0.01, parallel=1.0).given(Y).x0(x, 0.4) - strong
    assert bool((short.norm(dim=1) <= 2 * 0.01 * (1 + 1e-9)).all())


def test_dynamic_thresholding_keeps_x0_in_the_range_and_leaves_small_ones(joint, x):
    model = joint(scoresde.VP())
    small = DynamicallyThresholded(model, limit=100.0).given(Y)
    assert torch.equal(small.x0(x, 0.4), model.given(Y).x0(x, 0.4))
    found = DynamicallyThresholded(ClassifierFree(model, 20.0), quantile=0.5, limit=0.3)
    assert float(found.given(Y).x0(x, 0.4).abs().max()) <= 0.3 * (1 + 1e-12)


@pytest.mark.parametrize("t", TIMES)
def test_an_exact_classifier_gives_the_conditional_score(sde, joint, x, t):
    model = joint(sde)

    def classifier(x, t, y):
        return model.given(y).log_prob(x, t) - model.marginal.log_prob(x, t)

    guided = ClassifierGuided(model.marginal, classifier, condition=model.condition).given(Y)
    for quantity in QUANTITIES:
        wanted = getattr(model.given(Y), quantity)(x, t)
        torch.testing.assert_close(getattr(guided, quantity)(x, t), wanted, rtol=1e-8, atol=1e-8)
    assert (guided.nfe.forward, guided.nfe.derivative) == (4, 4)


def test_the_ode_of_a_guided_model_has_the_density_of_its_linear_map():
    """Gaussian x and y: the guided drift is linear in x, and the density at t = 0 is Gaussian."""
    sde, w, y, t_min = scoresde.VP(), 2.0, 0.7, 1e-3
    cov = torch.tensor([[[0.5, 0.3], [0.3, 0.4]]], dtype=torch.float64)
    model = ConditionalMixture(sde, [1.0], [[0.2, -0.1]], cov, vector=1)
    free, gain = (0.2, 0.5), 0.3 / 0.4
    given = (0.2 + gain * (y + 0.1), 0.5 - gain * 0.3)

    def rate(t, state):
        a, s, f, g = (float(getattr(sde, name)(t)) for name in ("alpha", "sigma", "f", "g"))
        slopes = [wt / (a**2 * v + s**2) for wt, (_, v) in ((1 - w, free), (w, given))]
        linear = f + 0.5 * g**2 * sum(slopes)
        shift = -0.5 * g**2 * a * (slopes[0] * free[0] + slopes[1] * given[0])
        return [linear * state[0] + shift, linear]

    # The mean, and the logarithm of the factor of deviations, from t = 1 down to t_min.
    found = solve_ivp(rate, (1.0, t_min), [0.0, 0.0], rtol=1e-11, atol=1e-12)
    mean, std = found.y[0, -1], math.exp(found.y[1, -1])
    x = torch.tensor([[-0.5], [0.4], [1.3]], dtype=torch.float64)
    wanted = -0.5 * ((x[:, 0] - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * np.pi)
    guided = ClassifierFree(model, w)
    condition = torch.tensor([[y]], dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"not p\(x\) p\(y\|x\)\^w"):
        got = scoresde.log_likelihood(guided, x, Ode(t_min=t_min), y=condition).log_prob
    # The tolerance of the method, 1e-5, in each of some dozens of steps.
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="a guided one; use Ode"):
        scoresde.log_likelihood(guided, x, "path", y=condition)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # at w = 1 there is nothing to warn of
        plain = scoresde.log_likelihood(ClassifierFree(model, 1.0), x, "path", seed=0, y=condition)
    exact = model.given(condition).log_prob(x)
    assert bool(((plain.log_prob - exact).abs() < 5 * plain.std_error + 1e-3).all())


def test_autoguidance_extrapolates_from_the_weak_model(x, mixture):
    sde = scoresde.VP()
    strong = mixture(sde)
    weak = GaussianMixture(sde, [1.0], [[0.0, 0.0]], [0.5])
    found = AutoGuided(strong, weak, 2.0).eps(x, 0.4)
    wanted = 2 * strong.eps(x, 0.4) - weak.eps(x, 0.4)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_sampler_runs_on_it_and_counts_both_models(joint):
    guided = ClassifierFree(joint(scoresde.VP()), 2.0)
    ts = scoresde.grid.log_snr(guided.sde, steps=6)
    out = scoresde.sample(guided, DDIM(), ts, (5, 2), y=torch.tensor([1]), seed=0)
    assert out.nfe == 2 * 7  # six steps and the last denoising
    alone = scoresde.sample(guided, DDIM(), ts, (2, 2), y=torch.tensor([1]), seed=0)
    torch.testing.assert_close(alone.x, out.x[:2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: ClassifierFree(m.marginal, 2.0), "must be conditional"),
        (lambda m: ClassifierFree(m, -1.0), "scale must be at least 0, got -1"),
        (lambda m: ClassifierFree(m, 2.0, rescale=1.5), "rescale must be at most 1, got 1.5"),
        (lambda m: ClassifierFree(m, Scale(2.0, low=3, high=2)), "high must be above low"),
        (lambda m: Projected(m, 2.0, norm=0), "norm must be greater than 0"),
        (lambda m: DynamicallyThresholded(m, quantile=0), "quantile must be greater than 0"),
        (lambda m: AutoGuided(m, GaussianMixture(scoresde.VE(), [1.0], [[0.0] * 2], [1.0]), 2.0),
         "weak must have the SDE of model"),
        (lambda m: ClassifierFree(m, 2.0).labelled(None, 3, "cpu"), "y must be given"),
        (lambda m: ClassifierFree(m, 2.0).labelled(torch.tensor([5]), 3, "cpu"), "classes 0 to 1"),
        (lambda m: ClassifierFree(scoresde.wrap(Conditional(), m.sde, "eps", label="time",
                                                classes=2), 2.0), "label_dropout"),
    ],
)  # fmt: skip
def test_bad_guidance_is_refused_before_an_evaluation(joint, make, words):
    with pytest.raises(ValueError, match=words):
        make(joint(scoresde.VP()))


class Conditional(torch.nn.Module):
    """A network that takes classes and was not trained without them."""

    def forward(self, x, t, y):
        """Nothing is evaluated."""
        raise AssertionError


def test_a_classifier_that_detaches_is_named(joint, x):
    guided = ClassifierGuided(joint(scoresde.VP()).marginal, lambda x, t, y: x.detach().sum(1))
    with pytest.raises(RuntimeError, match="classifier must be differentiable in x"):
        guided.given(Y).eps(x, 0.4)


def test_the_gradient_reaches_what_the_classifier_depends_on(joint, x):
    """Also where x itself needs no gradient, as at the start of sampling."""
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    guided = ClassifierGuided(joint(scoresde.VP()).marginal, lambda x, t, y: weight * x.sum(1))
    node = guided.sde.at(0.4, x)
    (slope,) = torch.autograd.grad(guided.given(Y).eps(x, node).sum(), weight)
    assert float(slope) == pytest.approx(-node.sigma * x.numel(), rel=1e-12)
