"""The doctor on networks of flow matching whose conventions are mixed up."""

from itertools import product

import pytest
import torch

import scoresde
from scoresde import VP, Dataset, DataSpec, GaussianMixture, Linear, wrap
from scoresde.verification.diagnosis.reading import Meaning, Reading
from scoresde.verification.diagnosis.velocities import velocities
from scoresde.verification.diagnosis.words import sign_of

N, DIMS = 48, 12
SPEC = DataSpec((DIMS,), -4.0, 4.0, name="three clouds")
MEANS = torch.randn(3, DIMS, generator=torch.Generator().manual_seed(1))
MIXTURE = GaussianMixture(Linear(), [0.5, 0.3, 0.2], MEANS.double(), [0.05] * 3)
CONVENTIONS = tuple(product((0, 1), (1, -1)))  # the time at the data, and s of s dx/dt


def data():
    generator = torch.Generator().manual_seed(2)
    which = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), N, True, generator=generator)
    x = MEANS[which] + 0.05**0.5 * torch.randn(N, DIMS, generator=generator)
    return Dataset("three clouds", x, None, SPEC, split="all")


def network(data_at, sign, scale=1.0):
    """The exact velocity of the mixture as a network of one of the conventions."""

    def net(x, label):
        t = (label.double() / scale - data_at).abs()  # 1 − τ for data_at = 1
        return sign * MIXTURE.velocity(x.double(), t.clamp(1e-6, 1)).to(x.dtype)

    return net


def examined(net, sde=None, target="velocity", **claim):
    model = wrap(net, sde or Linear(), target, **({"label": "time"} | claim))
    return scoresde.doctor(model, data(), n=N)


def test_the_other_three_conventions_are_tried():
    """They are four functions: two directions of time, two signs."""
    made = [Meaning("velocity", "time", False, data_at=d, velocity_sign=s) for d, s in CONVENTIONS]
    for now in made:
        reading = Reading(Linear(), now)
        others = [said.reading.meaning for said in velocities(reading, reading)]
        states = [(other.data_at, sign_of(other)) for other in others]
        assert {*states, (now.data_at, sign_of(now))} == set(CONVENTIONS)
        assert len(states) == 3


@pytest.mark.slow
@pytest.mark.parametrize("i", range(4))
def test_each_convention_is_found(i):
    """In one step, whichever of the others is claimed; all 16 pairs were tried once."""
    convention, (data_at, sign) = CONVENTIONS[i], CONVENTIONS[(i + 1 + i // 2) % 4]
    report = examined(network(*convention), data_at=data_at, velocity_sign=sign)
    found = report.search.reading.meaning
    assert (found.data_at, sign_of(found)) == convention, report
    assert len(report.mistakes) == len(report.search.steps) == 1


@pytest.mark.slow
def test_the_words_and_the_settings_to_use():
    assert examined(network(1, -1), data_at=1).healthy
    report = examined(network(1, -1))
    assert report.mistakes == (
        "the network's time is 1 at the data, not 0, and it predicts the velocity x0 − ε, not the "
        "velocity ε − x0: the other convention of flow matching",
    )
    assert "what to do: set preconditioning.data_at = 1\n" in str(report)


@pytest.mark.slow
def test_a_velocity_claimed_as_another_target():
    report = examined(network(1, -1), target="x0")
    found = report.search.reading.meaning
    assert (found.target, found.data_at, found.velocity_sign) == ("velocity", 1, None), report
    assert report.mistakes == (
        "the network predicts the velocity x0 − ε, not x0, and its time is 1 at the data",
    )


@pytest.mark.slow
def test_a_network_of_flow_matching_claimed_as_one_of_diffusion():
    report = examined(network(1, -1, 1000.0), VP(), "eps", label_scale=1000)
    found = report.search.reading
    assert found.sde == Linear(), report
    assert (found.meaning.target, found.meaning.data_at) == ("velocity", 1)
    assert found.meaning.label_scale == 1000
    assert "this is a network of flow matching" in report.mistakes[0]


@pytest.mark.slow
def test_a_label_of_the_wrong_scale():
    report = examined(network(0, 1, 1000.0))
    assert report.search.reading.meaning.label_scale in (999, 1000), report  # alike on 48 data
    assert "the label's scale is wrong" in report.mistakes[0]


@pytest.mark.slow
def test_another_schedule_claimed_as_linear():
    mixture = GaussianMixture(VP(), [0.5, 0.3, 0.2], MEANS.double(), [0.05] * 3)

    def net(x, t):
        return mixture.eps(x.double(), t.double().clamp(1e-5, 1)).to(x.dtype)

    report = examined(net, target="eps")
    # VP and its table of 1,000 β differ by too little
    assert any(name in report.mistakes[0] for name in ("VP(0.1, 20)", "DDPM's linear β")), report
