"""The log-density of SDE samples, against exact models and closed forms."""

import math

import pytest
import torch

from scoresde.exact import GaussianMixture
from scoresde.grid import uniform
from scoresde.likelihood import Ito, Ode, log_likelihood, sample_with_log_prob
from scoresde.samplers import DDIM, sample
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP

DOUBLE = torch.float64


def drawn(model, n, seed=0, **settings):
    return sample_with_log_prob(model, (n, 2), Ito(**settings), seed=seed, dtype=DOUBLE)


def normal_log_prob(x, std):
    return (-0.5 * (x / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))).flatten(1).sum(1)


def errors(model, out):
    """Those of the steps: the value without the prior's mismatch, minus the exact log p."""
    mismatch = normal_log_prob(out.latent, model.sde.prior_std) - model.log_prob(out.latent, 1.0)
    return out.log_prob - mismatch - model.log_prob(out.x, out.t_min)


def test_few_steps_have_the_error_that_they_state(mixture, sde):
    """Errors over `std_error`: standard deviation 1, and mean half the variance.

    The statistical error of a standard deviation from 300 values is 4 %; 20 % allow for 48 steps,
    where the error is not a quadratic form yet.
    """
    model = mixture(sde)
    out = drawn(model, 300, steps=48)
    off = errors(model, out)
    assert 0.8 < float(((off - 0.5 * out.std_error**2) / out.std_error).std()) < 1.2
    error = float(off.std()) / math.sqrt(300)
    assert abs(float((off - 0.5 * out.std_error**2).mean())) < 4 * error
    assert (out.nfe, out.nfe_derivative) == (49, 0)


@pytest.mark.parametrize("kind", [VP, pytest.param(VE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", [0.25, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_error_falls_as_one_over_the_root_of_the_steps(mixture, kind, scale):
    """Every sample's value tends to its log p: 8 times the steps, √8 = 2.8 times less error."""
    model = mixture(kind())
    few, many = (
        float(errors(model, drawn(model, 120, steps=steps, scale=scale)).square().mean().sqrt())
        for steps in (32, 256)
    )
    # each rms has a statistical error of 6 %, and 32 steps are not the limit
    assert 2.1 < few / many < 3.8


def test_no_error_for_the_gaussian_of_the_scale(sde):
    """Each transition is then the exact one, however long the step."""
    model = GaussianMixture(sde, [1.0], torch.zeros(1, 2), [0.7**2])
    out = drawn(model, 4, steps=3, scale=0.7)
    # Rounding at σ = 1e-3. A start at λ = −6 takes the data's variance for 1, which is off by
    # α² (1 − 0.7²) = 3e-6 of x's variance there.
    tolerance = 3e-5 if sde.ends_in_noise else 1e-9
    assert float(errors(model, out).abs().max()) < tolerance
    assert float(out.std_error.max()) < 1e-9


def wrong_model(exact):
    return FunctionScore(exact.sde, lambda x, t: 0.9 * exact.eps(x, t) + 0.05 * torch.sin(x))


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_one_step_is_a_ratio_of_densities(mixture, sde, scale):
    """The chain's density over the forward one, for a wrong score and a long step."""
    model = wrong_model(mixture(sde))
    out = drawn(model, 5, steps=1, scale=scale, t_min=0.3)
    t, s = sde.nodes([sde.t_regular, 0.3])
    factor, spread = sde.transition(t, s)
    mean = (out.latent + spread**2 * model.score(out.latent, t)) / factor
    wide = [math.hypot(node.alpha * scale, node.sigma) for node in (t, s)]
    expected = (
        normal_log_prob(out.latent, sde.start_std(t.t))
        + normal_log_prob(out.x - mean, spread * wide[1] / wide[0])
        - normal_log_prob(out.latent - factor * out.x, spread)
    )
    # under VE both differences cancel 2 digits
    torch.testing.assert_close(out.log_prob, expected, rtol=1e-10, atol=1e-10)


def test_its_inverse_is_unbiased_with_a_wrong_score_and_few_steps(mixture):
    """E[q(x) e^{−r}] = ∫ q = 1 for every density q; the scale is wide, for a finite variance."""
    out = drawn(wrong_model(mixture(VP())), 6000, steps=8, scale=2.0, t_min=0.3)
    std = float(out.x.std())
    weights = (normal_log_prob(out.x - out.x.mean(0), 0.5 * std) - out.log_prob).exp()
    error = float(weights.std()) / math.sqrt(6000)
    assert error < 0.06  # otherwise the next line says little
    assert abs(float(weights.mean()) - 1) < 4 * error


@pytest.mark.slow
def test_the_mean_excess_of_a_wrong_score():
    """½ ∫ g² E|ŝ − ∇ log p̂_t|² dt, with p̂_t from the equation of its variance.

    The score is that of N(0, 0.5² I), times 1.2: everything stays Gaussian.
    """
    sde, wrong, n = VP(), 1.2, 4000
    exact = GaussianMixture(sde, [1.0], torch.zeros(1, 2), [0.25])
    model = FunctionScore(sde, lambda x, t: wrong * exact.eps(x, t))
    out = drawn(model, n, steps=400, scale=0.5, t_min=0.01)
    variance, excess = 1.0, 0.0
    nodes = sde.nodes(uniform(sde, 20_000, 0.01))
    for t, s in zip(nodes[:-1], nodes[1:], strict=True):
        slope, h = wrong / (0.25 * t.alpha**2 + t.sigma**2), t.t - s.t
        excess += 0.5 * h * t.g**2 * 2 * (slope - 1 / variance) ** 2 * variance
        variance += h * (t.g**2 - 2 * (t.f + t.g**2 * slope) * variance)
    gaps = out.log_prob - normal_log_prob(out.x, math.sqrt(variance))
    assert excess > 0.05
    # beside the statistical error, the excess of 400 steps: half of their variance
    finite = 0.5 * float(out.std_error.square().mean())
    assert abs(float(gaps.mean()) - excess) < 4 * float(gaps.std()) / math.sqrt(n) + finite


@pytest.mark.slow
def test_agrees_with_the_ode(mixture):
    """The log p of the ODE at the same points, within the stated errors."""
    model = mixture(VP())
    out = drawn(model, 8, steps=128)
    by_ode = log_likelihood(model, out.x, Ode("dopri8", 1e-4, 1e-4)).log_prob
    # 4 standard errors; 0.02 for the prior's mismatch, which differs between ODE and SDE
    assert ((out.log_prob - by_ode).abs() < 4 * out.std_error + 0.02).all()


def test_samples_do_not_depend_on_the_batch_and_start_as_those_of_sample(mixture):
    model = mixture(VP())
    whole, parts = (
        sample_with_log_prob(model, (5, 2), "ito:steps=6:scale=0.5", seed=3, batch=batch)
        for batch in (None, 2)
    )
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(whole.log_prob, parts.log_prob)
    start = sample(model, DDIM(), n=5, seed=3, nfe=4).x_init
    assert torch.equal(whole.latent, start)
    assert whole.method == Ito(6, 0.5)
    assert whole.seed == 3
    assert drawn(model, 0, steps=2).x.shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"scale": 0.0}, "scale must be greater than 0, got 0"),
        ({"t_min": 0.0}, "t_min must be greater than 0 for VP"),
        ({"t_min": 1.0}, "t_min must be .*less than 1, got 1"),
    ],
)
def test_wrong_settings_are_refused(mixture, settings, match):
    with pytest.raises(ValueError, match=match):
        drawn(mixture(VP()), 1, **settings)
