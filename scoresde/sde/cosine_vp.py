"""CosineVP: the cosine schedule in continuous time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import as_time, check_number, plain_numbers
from .base import VariancePreserving

__all__ = ["CosineVP"]


@dataclass(frozen=True)
class CosineVP(VariancePreserving):
    """Variance-preserving SDE on a quarter circle: α = cos θ, σ = sin θ, θ linear in t.

        θ = θ_0 + t (θ_1 − θ_0),   λ = log cot θ,   f = −θ' tan θ,   g² = 2 θ' tan θ

    λ goes from lam_max (t = 0) to lam_min (t = 1). Both are finite: the original form ends at
    θ = π/2, where g is infinite. The schedule is the continuous form of Nichol & Dhariwal 2021,
    arXiv:2102.09672; the truncated form is in Hoogeboom et al. 2023, "Simple diffusion",
    arXiv:2301.11093.

    Args:
        lam_max: λ(0), half the log signal-to-noise ratio at the data end.
        lam_min: λ(1) < λ(0), at the noise end.
    """

    lam_max: float = 10.0
    lam_min: float = -6.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("lam_max", self.lam_max, at_most=20)
        check_number("lam_min", self.lam_min, at_least=-20)
        if not self.lam_min < self.lam_max:
            raise ValueError(
                f"lam_min must be less than lam_max, got {self.lam_min} and {self.lam_max}"
            )

    @property
    def _theta_span(self) -> tuple[float, float]:
        return math.atan(math.exp(-self.lam_max)), math.atan(math.exp(-self.lam_min))

    def _theta(self, t: Tensor | float) -> Tensor:
        theta_0, theta_1 = self._theta_span
        return theta_0 + as_time(t) * (theta_1 - theta_0)

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log cos θ."""
        return torch.log(torch.cos(self._theta(t)))

    def sigma(self, t: Tensor | float) -> Tensor:
        """sin θ."""
        return torch.sin(self._theta(t))

    def f(self, t: Tensor | float) -> Tensor:
        """f = −θ' tan θ."""
        theta_0, theta_1 = self._theta_span
        return -(theta_1 - theta_0) * torch.tan(self._theta(t))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ: θ = arccot e^λ."""
        theta_0, theta_1 = self._theta_span
        return (torch.atan(torch.exp(-as_time(lam))) - theta_0) / (theta_1 - theta_0)
