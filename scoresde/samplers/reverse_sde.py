"""First-order solvers of the reverse-time SDE: Euler–Maruyama and reverse diffusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_number, plain_numbers
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from ..sde import Node
from .base import GridSampler

__all__ = ["EulerMaruyama", "ReverseDiffusion"]


@dataclass(frozen=True)
class EulerMaruyama(GridSampler):
    """Euler–Maruyama on the reverse SDE with the noise η.

        x_s = x_t − (t − s) (f x_t − (1 + η²)/2 g² score) + η g √(t − s) z

    η = 1 is the reverse-time SDE, η = 0 is Euler's method on the probability-flow ODE. As the steps
    tend to 0, the marginals are the same for every η ≥ 0.

    Weak order 1; 1 NFE per step; stochastic unless η = 0. Song et al. 2021, arXiv:2011.13456,
    eq. (6) and section 4.1.

    Args:
        eta: η ≥ 0.

    Raises:
        ValueError: If η is negative.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("eta", self.eta, at_least=0)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        x_s = torch.add(x, reverse_drift(model, x, t, self.eta), alpha=s.t - t.t)
        if self.eta > 0:
            std = self.eta * t.g * math.sqrt(t.t - s.t)
            x_s.add_(noise.increment(x, t.t, s.t), alpha=std)
        return x_s, None


@dataclass(frozen=True)
class ReverseDiffusion(GridSampler):
    """The discretization of the forward chain, used for the reverse SDE.

        x_s = (2 − a) x_t + b² score(x_t, t) + b z,   a = α_t/α_s,   b = σ_{t|s}

    The paper has a = √(1 − β_i) and b² = β_i = β(t)/N for VP, and a is NaN if N < β_max. Here a and
    b are those of the exact transition, which are finite for every grid and SDE. The two versions
    agree as N grows.

    Weak order 1; 1 NFE per step; stochastic. Song et al. 2021, arXiv:2011.13456, eq. (46) and
    appendix E.
    """

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        a, b = model.sde.transition(t, s)
        # score = −ε/σ
        mean = ((2 - a) * x).add_(model.eps(x, t), alpha=-(b**2) / t.sigma)
        return mean.add_(noise.increment(x, t.t, s.t), alpha=b), None
