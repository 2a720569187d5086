"""Fixtures of the tests of bounds: given draws, exact densities, quadrature rules."""

import numpy as np
import pytest
import torch
from calls import Known

from scoresde.noise import Noise


class Given(Noise):
    """Draws written down beforehand, a tensor z for each call: z itself or, as `uniform`, Φ(z)."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def _draw(self, shape, purpose, dtype, device):
        z = self.draws.pop(0).reshape(shape)
        return {"fresh": z, "uniform": torch.special.ndtr(z)}[purpose]


@pytest.fixture
def given():
    """given(z, ...): a source of noise with these draws."""
    return Given


@pytest.fixture
def exact_density():
    """exact_density(t): log p_t of a mixture in closed form, as a likelihood method."""

    def make(t):
        return Known(lambda model, x, noise: model.log_prob(x.to(torch.float64), t), t)

    return make


@pytest.fixture
def node_at():
    """node_at(sde, t): the SDE at one time."""
    return lambda sde, t: sde.nodes(torch.tensor([t], dtype=torch.float64))[0]


@pytest.fixture
def legendre():
    """legendre(n): nodes and weights for ∫₀¹ f(u) du."""

    def make(n):
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
        return 0.5 * (nodes + 1), 0.5 * weights

    return make


@pytest.fixture
def hermite():
    """hermite(n): nodes and weights for E f(z), z ~ N(0, 1)."""

    def make(n):
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(n))
        return nodes, weights / weights.sum()

    return make
