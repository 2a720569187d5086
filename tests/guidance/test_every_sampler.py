"""Every guidance with every sampler under every SDE: it runs, or is refused before any network."""

from dataclasses import replace

import pytest
import torch

import scoresde
from scoresde.exact import ConditionalMixture
from scoresde.guidance import (
    AutoGuided,
    ClassifierFree,
    ClassifierGuided,
    DynamicallyThresholded,
    Projected,
    Scale,
)
from scoresde.names.samplers import SAMPLERS, parse_sampler

MEANS = torch.tensor([[-1.0, 0.5], [0.8, -0.6]], dtype=torch.float64)
Y = torch.tensor([0, 1, 1])
COARSE = 0.5  # tolerance of adaptive solvers, with which they take few steps


def log_posterior(model):
    """log p_t(y | x) of equally likely classes, up to a number; differentiable in x."""

    def classifier(x, t, y):
        # All samples have one time in these samplers, but those with a step size for each.
        return model.given(y).log_prob(x, t) - model.marginal.log_prob(x, t)

    return classifier


GUIDANCES = {
    "cfg": lambda m: ClassifierFree(m, 2.0),
    "interval": lambda m: ClassifierFree(m, Scale(3.0, low=0.2, high=5.0), rescale=0.7),
    "apg": lambda m: Projected(m, 3.0, norm=2.0),
    "auto": lambda m: AutoGuided(m, m.marginal, 2.0),
    "classifier": lambda m: ClassifierGuided(m.marginal, log_posterior(m), 2.0, m.condition),
    "threshold": lambda m: DynamicallyThresholded(ClassifierFree(m, 2.0), 0.9, limit=2.0),
}


def joint(sde):
    shares = [[0.9, 0.1], [0.2, 0.8]]
    return ConditionalMixture(sde, [0.5, 0.5], MEANS, [0.1, 0.2], shares=shares)


def coarse(name):
    """A sampler by name; an adaptive one with a loose tolerance."""
    sampler = parse_sampler(name)
    loose = {key: COARSE for key in ("rtol", "atol") if hasattr(sampler, key)}
    return replace(sampler, **loose)


def runs_or_is_refused(sde, kind, name):
    guided = GUIDANCES[kind](joint(sde))
    inside = [m for m in guided.modules() if isinstance(m, scoresde.ScoreModel)]
    sampler, refusal = coarse(name), None
    settings = {} if sampler.adaptive else {"nfe": 8}
    try:
        found = scoresde.sample(guided, sampler, n=3, y=Y, seed=0, shape=(3, 2), **settings)
    except ValueError as error:
        refusal = str(error)
    if refusal is not None:
        assert "\n" not in refusal
        assert sum(m.nfe.forward for m in inside) == 0, refusal
        return
    assert found.x.shape == (3, 2)
    assert found.x.isfinite().all()
    assert found.nfe > 0


@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_guidance_runs(kind):
    runs_or_is_refused(scoresde.VE(), kind, "ddim")


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_guidance_under_every_process(sde, kind):
    runs_or_is_refused(sde, kind, "heun")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_with_guidance(all_sdes, name):
    """Processes and kinds of guidance take turns."""
    turn, processes = list(SAMPLERS).index(name), list(all_sdes)
    kinds = list(GUIDANCES)
    runs_or_is_refused(processes[turn % len(processes)], kinds[turn % len(kinds)], name)
