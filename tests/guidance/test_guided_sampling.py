"""Every guidance with every sampler on every SDE: it runs, or is refused before any evaluation."""

import pytest
import torch

import scoresde
from scoresde.evaluation import count_nfe
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
from scoresde.samplers import DDIM
from scoresde.samplers.choice import choose
from scoresde.samplers.recommended import recommended

NFE = 24
Y = torch.tensor([0, 1])
ADAPTIVE = ":rtol=0.1:atol=0.1"
# A few steps of each kind: an adaptive solver at a coarse tolerance.
TEXTS = [
    "annealed-langevin:steps=3"
    if name == "annealed-langevin"
    else name + (ADAPTIVE if parse_sampler(name).adaptive else "")
    for name in sorted(SAMPLERS)
]


def joint(sde):
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.6]], dtype=torch.float64)
    return ConditionalMixture(sde, [0.5, 0.5], means, [0.1, 0.2], shares=[[0.9, 0.1], [0.2, 0.8]])


def by_classifier(model):
    def classifier(x, t, y):
        return model.given(y).log_prob(x, t) - model.marginal.log_prob(x, t)

    return ClassifierGuided(model.marginal, classifier, 2.0, model.condition)


KINDS = {
    "cfg": lambda model: ClassifierFree(model, 2.0),
    "interval": lambda model: ClassifierFree(model, Scale(2.0, 0.2, 3.0), 0.5),
    "apg": lambda model: Projected(model, 2.0, norm=1.0),
    "auto": lambda model: AutoGuided(model, joint(model.sde), 2.0),
    "classifier": by_classifier,
    "thresholded": lambda model: DynamicallyThresholded(ClassifierFree(model, 3.0), 0.9),
}


def run(guided, text):
    """The samples and the counted evaluations; None if the pair is refused."""
    sampler = parse_sampler(text)
    budget = {} if sampler.adaptive else {"nfe": NFE}
    with count_nfe(guided) as counted:
        try:
            out = scoresde.sample(guided, sampler, n=2, shape=(2, 2), y=Y, seed=0, **budget)
        except ValueError:
            assert counted.forward == counted.derivative == 0
            return None
    assert bool(out.x.isfinite().all()), text
    assert out.nfe == counted.forward, text
    if not sampler.adaptive:
        assert 0 < out.nfe <= NFE, text
    return out


FEW = ("ancestral", "dpmpp-2m", "heun", "angular", "pc")  # the rest: slow


def test_samplers_take_a_guided_model():
    guided = KINDS["cfg"](joint(scoresde.VP()))
    assert [text for text in FEW if run(guided, text) is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_sampler_on_every_sde(sde, kind):
    """A fifth of the samplers for each pair, another one each time; none is refused if α(1) > 0."""
    guided = KINDS[kind](joint(sde))
    names = [type(sde).__name__, *KINDS]
    first = (sum(map(ord, names[0])) + names.index(kind)) % 5
    refused = [text for text in TEXTS[first::5] if run(guided, text) is None]
    assert refused == [] or sde.ends_in_noise


@pytest.mark.parametrize("nfe", [2, 3, 7, 20])
def test_a_budget_is_one_of_network_evaluations(nfe):
    """A guided model takes two each time, one outside its interval: the budget is by the most."""
    model = joint(scoresde.VP())
    for guided, each in ((ClassifierFree(model, 2.0), 2), (ClassifierFree(model, 1.0), 1)):
        assert guided.evaluations == each
        assert DynamicallyThresholded(guided).evaluations == each
        out = scoresde.sample(guided, n=2, shape=(2, 2), y=Y, nfe=nfe)
        assert out.nfe == nfe // each * each
        assert torch.equal(out.ts, recommended(model, nfe // each, (2,)).ts)
    interval = ClassifierFree(model, Scale(2.0, high=1.0))
    out = scoresde.sample(interval, n=2, shape=(2, 2), y=Y, nfe=nfe)
    assert torch.equal(out.ts, recommended(interval, nfe, (2,)).ts)
    assert out.nfe <= nfe
    twice = AutoGuided(ClassifierFree(model, 2.0), model, 1.5)
    assert twice.evaluations == 3


def test_a_budget_that_is_too_small_is_refused():
    guided = ClassifierFree(joint(scoresde.VP()), 2.0)
    with pytest.raises(ValueError, match="nfe must be at least 2, for one call of this model"):
        choose(guided, None, None, 1)
    with pytest.raises(ValueError, match="nfe must be at least 4, for one step and the final"):
        choose(guided, DDIM(), None, 3)
