"""The doctor on networks of flow matching whose conventions are mixed up."""

from itertools import product

import pytest
import torch

import scoresde
from scoresde import VP, Dataset, DataSpec, GaussianMixture, Linear, wrap

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


@pytest.mark.parametrize(
    "convention",
    [c if c == (1, 1) else pytest.param(c, marks=pytest.mark.slow) for c in CONVENTIONS],
)
def test_each_convention_is_told_from_all_others(convention):
    """Claimed as one of the four, a network of each is recognised in one step, or healthy."""
    claims = CONVENTIONS if convention != (1, 1) else ((1, 1), (0, 1))
    for data_at, sign in claims:
        report = examined(network(*convention), data_at=data_at, velocity_sign=sign)
        found = report.search.reading.meaning
        natural = 1 - 2 * found.data_at
        assert (found.data_at, found.velocity_sign or natural) == convention, report
        assert report.healthy == ((data_at, sign) == convention), report
        assert len(report.mistakes) <= 1


@pytest.mark.slow
def test_the_words_and_the_settings_to_use():
    report = examined(network(1, -1))
    assert report.mistakes == (
        "the network's time is 1 at the data, not 0, and it predicts the velocity x0 − ε, not the "
        "velocity ε − x0: the other convention of flow matching",
    )
    assert "what to do: set preconditioning.data_at = 1\n" in str(report)
    report = examined(network(0, -1))
    assert "the velocity has the other sign" in report.mistakes[0]
    assert "what to do: set preconditioning.velocity_sign = -1\n" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "data_at"), [("eps", 0), ("x0", 1), ("v", 0)])
def test_a_velocity_claimed_as_another_target(target, data_at):
    sign = 1 - 2 * data_at
    report = examined(network(data_at, sign), target=target)
    found = report.search.reading.meaning
    assert (found.target, found.data_at, found.velocity_sign) == ("velocity", data_at, None), report
    assert "the network predicts the velocity" in report.mistakes[0]


@pytest.mark.slow
@pytest.mark.parametrize(("data_at", "scale"), [(0, 1.0), (1, 1000.0)])
def test_a_network_of_flow_matching_claimed_as_one_of_diffusion(data_at, scale):
    net = network(data_at, 1 - 2 * data_at, scale)
    report = examined(net, VP(), "eps", label_scale=1000)
    found = report.search.reading
    assert found.sde == Linear(), report
    assert (found.meaning.target, found.meaning.data_at) == ("velocity", data_at)
    assert found.meaning.label_scale == scale
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
