"""A clipped model: its x_0 stays in the range, and nothing else changes."""

import pytest
import torch

import scoresde
from scoresde import Clipped, count_nfe
from scoresde._condition import ConditionSpec
from scoresde.exact import GaussianMixture
from scoresde.likelihood import Ode
from scoresde.sde import VP


def model():
    return GaussianMixture(VP(), [1.0], [[0.3, -0.2]], [0.2**2])


def test_x0_is_clipped_and_elsewhere_nothing_changes():
    inner, x = model(), torch.tensor([[0.1, 0.0], [2.5, -2.5]], dtype=torch.float64)
    clipped, t = Clipped(inner, -0.4, 0.4), 0.2
    with count_nfe(clipped) as counted:
        found = clipped.x0(x, t)
    assert counted.forward == 1
    assert torch.allclose(found, inner.x0(x, t).clamp(-0.4, 0.4), atol=1e-12)
    assert not torch.allclose(found, inner.x0(x, t))  # it acts on the second row
    assert torch.equal(clipped.eps(x, t)[0], inner.eps(x, t)[0])


def test_samplers_use_it_and_the_likelihood_says_that_it_does_not():
    inner, x = model(), torch.tensor([[0.3, 0.9]])
    clipped = Clipped(inner, -0.1, 0.1)
    ts = scoresde.grid.log_snr(inner.sde, 10)
    drawn = scoresde.sample(clipped, scoresde.DDIM(), ts, (50, 2), seed=0).x
    assert drawn.abs().max() <= 0.1 + 1e-6
    with pytest.warns(UserWarning, match="that of the model without clipping"):
        found = scoresde.log_likelihood(clipped, x, Ode(rtol=1e-3, atol=1e-3), seed=0)
    plain = scoresde.log_likelihood(inner, x, Ode(rtol=1e-3, atol=1e-3), seed=0)
    assert torch.equal(found.log_prob, plain.log_prob)


def test_a_range_must_have_a_length():
    with pytest.raises(ValueError, match="high must be greater than 1, got -1"):
        Clipped(model(), 1, -1)


class Discrete(GaussianMixture):
    """A model that says of itself what others do not."""

    condition = ConditionSpec(3)
    snapped, evaluations, t_least, t_most = True, 2, 0.1, 0.9


def test_it_says_of_itself_what_the_model_inside_says():
    inner = Discrete(VP(), [1.0], [[0.3, -0.2]], [0.2**2])
    clipped, names = Clipped(inner), ("condition", "snapped", "evaluations", "t_least", "t_most")
    assert [getattr(clipped, name) for name in names] == [getattr(inner, name) for name in names]
    assert clipped.classes == 3
    assert clipped.nfe is inner.nfe
    with pytest.raises(TypeError, match="model must be"):
        Clipped("digits-vp")
