"""Likelihood and sampling of padded sets, against sets of independent Gaussian points."""

import dataclasses

import pytest
import torch

from scoresde import VP, log_likelihood, sample
from scoresde._condition import ConditionSpec
from scoresde.data import DataSpec
from scoresde.likelihood import (
    ContinuousVLB,
    Dequantized,
    ExactTrace,
    GaussianNoising,
    Hutchinson,
    Ode,
    Path,
    Probing,
    XTrace,
    decode,
    encode,
    fit_gaussian,
    neglected,
    round_trip,
    sample_with_log_prob,
)
from scoresde.samplers import (
    DDIM,
    AdaptiveSDE,
    Ancestral,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
)
from scoresde.score import ScoreModel
from scoresde.score.base import cast

MOST, FEATURES = 6, 2
SIZES = torch.tensor([1, 3, 6, 2])
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
STD = torch.tensor([0.5, 0.8], dtype=torch.float64)


class IndependentPoints(ScoreModel):
    """Sets of independent points N(MEAN, diag STD²): the exact score, wrong at the padding."""

    def __init__(self, sde=None):
        super().__init__(sde or VP())
        self.data = DataSpec((MOST, FEATURES), -4, 4, sizes=(1, MOST))
        self.condition, self.needs_labels = self.data.condition, True

    def eps(self, x, t):
        node = self.sde.at(t, x)
        alpha, sigma = cast(node.alpha, x), cast(node.sigma, x)
        return sigma * (x - alpha * MEAN.to(x)) / (alpha**2 * STD.to(x) ** 2 + sigma**2)


def sets(seed=0):
    z = torch.randn(len(SIZES), MOST, FEATURES, generator=torch.manual_seed(seed)).double()
    x = MEAN + STD * z
    return x * present()[:, :, None]


def present(sizes=SIZES):
    return torch.arange(MOST) < sizes[:, None]


def exact(x, sizes=SIZES, t=0.0, model=None):
    """log p_t of the points that exist."""
    node = (model or IndependentPoints()).sde.nodes([t or 1e-5])[0]
    alpha, sigma = (node.alpha, node.sigma) if t else (1.0, 0.0)
    std = (alpha**2 * STD**2 + sigma**2).sqrt()
    each = torch.distributions.Normal(alpha * MEAN, std).log_prob(x).sum(2)
    return (each * present(sizes)).sum(1)


def of_the_flow(found, x):
    """log p of the probability-flow ODE: from p at t_min, and the prior in place of p_1."""
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(found.latent)
    prior = (normal.sum(2) * present()).sum(1)
    return exact(x, t=found.t_min) - exact(found.latent, t=1.0) + prior


@pytest.mark.parametrize(
    ("method", "within"),
    [
        (Ode("dopri5", 1e-7, 1e-7, trace=Hutchinson()), 1e-5),  # signs are exact: J is diagonal
        (Path(steps=64, nodes=16, trace=ExactTrace()), 1e-2),  # the error of 16 nodes
        pytest.param(Ode("dop853", 1e-9, 1e-9, trace=ExactTrace()), 1e-7, marks=pytest.mark.slow),
    ],
)
def test_closed_form(method, within):
    x = sets()
    found = log_likelihood(IndependentPoints(), x, method, y=SIZES, seed=0)
    torch.testing.assert_close(found.log_prob, of_the_flow(found, x), atol=within, rtol=0)
    assert not found.latent[~present()].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "trace", [Hutchinson(probes=4), Hutchinson("orthogonal", 4), Probing(2, 3)]
)
@pytest.mark.parametrize("method", [Ode("dop853"), Path(nodes=32)])
def test_probes(method, trace):
    # The Jacobian is diagonal: signs are exact, orthogonal probes have the error that they say.
    x = sets()
    method = dataclasses.replace(method, trace=trace)
    found = log_likelihood(IndependentPoints(), x, method, y=SIZES, seed=0)
    error = (found.log_prob - exact(x)).abs()
    assert bool((error <= 5 * found.std_error + 2e-2).all())


@pytest.mark.slow
def test_sketch_is_unbiased():
    # XTrace assumes probes that are Gaussian in all D directions, so they are not cut.
    x = sets()
    found = [
        log_likelihood(IndependentPoints(), x, Path(trace=XTrace(4)), y=SIZES, seed=seed)
        for seed in range(4)
    ]
    error = torch.stack([f.log_prob for f in found]).mean(0) - exact(x)
    spread = torch.stack([f.std_error for f in found]).square().mean(0).sqrt() / 2
    assert bool((error.abs() <= 4 * spread + 1e-2).all())


@pytest.mark.slow
def test_a_set_alone():
    # As in a batch: per-sample steps, and errors averaged over the points that exist.
    x, method = sets(), Ode("dop853", trace=ExactTrace())
    model = IndependentPoints()
    whole = log_likelihood(model, x, method, y=SIZES)
    for i in range(len(x)):
        alone = log_likelihood(model, x[i : i + 1], method, y=SIZES[i : i + 1])
        assert float(alone.log_prob) == pytest.approx(float(whole.log_prob[i]), abs=1e-12)


class Unpadded(IndependentPoints):
    """The same for sets of one size, without padding."""

    def __init__(self, n):
        super().__init__()
        self.data = DataSpec((n, FEATURES), -4, 4)
        self.condition, self.needs_labels = ConditionSpec(), False


@pytest.mark.parametrize(
    "method", [pytest.param(Ode("dopri5", per_sample=True), marks=pytest.mark.slow), Path()]
)
def test_padding_changes_nothing(method):
    # Steps and values of a padded set are those of the set itself.
    x, i = sets(), 1
    n = int(SIZES[i])
    method = dataclasses.replace(method, trace=ExactTrace())
    padded = log_likelihood(IndependentPoints(), x[i : i + 1], method, y=SIZES[i : i + 1], seed=0)
    bare = log_likelihood(Unpadded(n), x[i : i + 1, :n], method, seed=0)
    assert float(padded.log_prob) == pytest.approx(float(bare.log_prob), abs=1e-10)
    assert padded.nfe == bare.nfe


@pytest.mark.slow
def test_bound():
    # The bound of the exact model is the exact log-density, up to the decoder, O(σ(t_min)).
    x = sets()
    found = log_likelihood(IndependentPoints(), x, ContinuousVLB(draws=8), y=SIZES, seed=0)
    assert bool(((found.log_prob - exact(x)).abs() <= 5 * found.std_error + 0.02).all())


def test_cut_off():
    x, model, t = sets(), IndependentPoints(), 1e-3
    found = neglected(model.given(SIZES), x, t, order=2)
    wanted = exact(x) - exact(x, t=t)
    # of second order in σ²(t_min) = 2e-4
    torch.testing.assert_close(found.value, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIM(),
        *(
            pytest.param(sampler, marks=pytest.mark.slow)
            for sampler in (
                *(Ancestral(), AdaptiveSDE(), PredictorCorrector(EulerMaruyama(), Langevin())),
                *(ProbabilityFlowODE(), ProbabilityFlowODE(per_sample=True)),
            )
        ),
    ],
)
def test_samples(sampler):
    sizes = SIZES.repeat(100)
    found = sample(
        IndependentPoints(), sampler, n=400, y=sizes, nfe=None if sampler.adaptive else 30
    )
    there = present(sizes)
    assert not found.x[~there].any()
    assert not found.x_init[~there].any()
    points = found.x[there].double()
    # 1200 points: 4 standard errors of the mean, and the sampler's bias of 30 steps
    assert bool(((points.mean(0) - MEAN).abs() < 4 * STD / 1200**0.5 + 0.02).all())
    assert bool((points.std(0) / STD - 1).abs().max() < 4 / 2400**0.5 + 0.05)


@pytest.mark.slow
def test_samples_with_log_prob():
    method = Ode("dop853", 1e-8, 1e-8, trace=ExactTrace())
    model = IndependentPoints()
    drawn = sample_with_log_prob(
        model, (4, MOST, FEATURES), method, seed=0, y=SIZES, dtype=torch.float64
    )
    torch.testing.assert_close(drawn.log_prob, of_the_flow(drawn, drawn.x), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_latent_codes():
    x = sets()
    there = round_trip(IndependentPoints(), x, Ode("dop853", 1e-9, 1e-9), y=SIZES)
    assert float(there.error.max()) < 1e-6
    assert not there.latent[~present()].any()


@pytest.mark.parametrize(
    ("sizes", "change", "match"),
    [
        (SIZES + 1, None, "y must hold sizes of sets 1 to 6, got 7"),
        (SIZES - 1, None, "y must hold sizes of sets 1 to 6, got 0"),
        (SIZES[:3], None, "leading dimension 4"),
        (SIZES.double(), None, "integer sizes of sets"),
        (None, None, "y must be given|must be one tensor"),
        (SIZES, 1.0, "x must be 0 after the points of a set.*first in set 0 of 1 points"),
    ],
)
def test_refused(sizes, change, match):
    x = sets()
    if change is not None:
        x[0, 3, 1] = change
    with pytest.raises((TypeError, ValueError), match=match):
        log_likelihood(IndependentPoints(), x, y=sizes, seed=0)


def test_control_is_refused():
    x, model = sets(), IndependentPoints()
    with pytest.raises(ValueError, match="control must be None for sets of different size"):
        log_likelihood(model, x, Path(control=fit_gaussian(model.sde, x)), y=SIZES, seed=0)
    with pytest.raises(ValueError, match="x_init must be 0 after the points"):
        sample(model, x_init=torch.ones(4, MOST, FEATURES), y=SIZES)
    with pytest.raises(ValueError, match="x must be 0 after the points"):
        encode(model, torch.ones(4, MOST, FEATURES), y=SIZES)
    with pytest.raises(ValueError, match="z must be 0 after the points"):
        decode(model, torch.ones(4, MOST, FEATURES), y=SIZES)


def test_noise_is_refused():
    model = IndependentPoints()
    method = Dequantized(model.data, dequantization=GaussianNoising())
    with pytest.raises(ValueError, match="sets of different size"):
        log_likelihood(model, sets(), method, y=SIZES, seed=0)
