"""A module of a user: a network, SDEs and a sampler, which tests name by their place."""

from dataclasses import dataclass

import torch
from torch import nn

from scoresde.samplers import DDIM
from scoresde.sde import SDE, VE

number = 3


class Net(nn.Module):
    """A network of x and t as a column."""

    def __init__(self, shape, width: int = 8, **more):
        super().__init__()
        self.linear = nn.Linear(shape[0] + 1, width)
        self.out = nn.Linear(width, shape[0])

    def forward(self, x, t):
        return self.out(torch.tanh(self.linear(torch.cat([x, t], dim=1))))


class Other(Net):
    """Another class with the same tensors."""


class Plain(SDE):
    """α = exp(−b t/4), α² + σ² = 1; no dataclass, its parameter is an attribute."""

    def __init__(self, beta: float = 12.0):
        self._beta = beta

    def log_alpha(self, t):
        return -0.25 * self._beta * torch.as_tensor(t, dtype=torch.float64)

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def f(self, t):
        return torch.full_like(self.log_alpha(t), -0.25 * self._beta)

    def g(self, t):
        return torch.sqrt(-2 * self.f(t))

    def t_of_lam(self, lam):
        lam = torch.as_tensor(lam, dtype=torch.float64)
        return 2 / self._beta * torch.log1p(torch.exp(-2 * lam))


@dataclass(frozen=True)
class Narrow(VE):
    """VE with another default."""

    sigma_max: float = 9.0


class Mine(DDIM):
    """DDIM, as a class of the user."""


def make_number(shape):
    return number
