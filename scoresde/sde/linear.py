"""Linear: the straight path of flow matching and rectified flow, as an SDE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import as_time
from .base import SDE

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(SDE):
    """The schedule of flow matching: x_t = (1 − t) x_0 + t ε, on the straight line from x_0 to ε.

        α = 1 − t,   σ = t,   f = −1/(1 − t),   g² = 2t/(1 − t),   λ = log((1 − t)/t)

    So the velocity dx/dt is E[ε − x_0 | x_t]. At t = 1 x is pure noise: α = 0, and f, g and λ are
    infinite. The velocity is regular there, see `SDE.ends_in_noise`. Lipman et al. 2022, "Flow
    Matching for Generative Modeling", arXiv:2210.02747 (with t = 1 at the data); Liu et al. 2022,
    "Flow Straight and Fast", arXiv:2209.03003 (rectified flow, also with t = 1 at the data).
    """

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log(1 − t), −∞ at t = 1."""
        return torch.log1p(-as_time(t))

    def alpha(self, t: Tensor | float) -> Tensor:
        """α = 1 − t."""
        return 1 - as_time(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ = t."""
        return as_time(t).clone()

    def f(self, t: Tensor | float) -> Tensor:
        """f = −1/(1 − t), −∞ at t = 1."""
        return -1 / (1 - as_time(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g = √(2t/(1 − t)), ∞ at t = 1."""
        t = as_time(t)
        return torch.sqrt(2 * t / (1 - t))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ: the sigmoid of −λ."""
        return torch.sigmoid(-as_time(lam))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """α′ = −1 and σ′ = 1."""
        one = torch.ones_like(as_time(t))
        return -one, one
