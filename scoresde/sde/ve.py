"""VE: the SDE of NCSN, whose noise level grows geometrically."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import as_time, check_number, equally_spaced, plain_numbers
from .base import SDE

__all__ = ["VE"]


@dataclass(frozen=True)
class VE(SDE):
    """Variance-exploding SDE (NCSN): α = 1, σ(t) = σ_min (σ_max/σ_min)^t.

        g = σ(t) √(2 log(σ_max/σ_min))

    The standard deviation of the kernel is σ(t), as in the paper's code. So x at t = 0 already
    contains noise of standard deviation σ_min; started from clean data, the SDE would have
    √(σ(t)² − σ_min²). Song et al. 2021, arXiv:2011.13456, eq. (9), (30), (31).

    Args:
        sigma_min: σ(0) > 0.
        sigma_max: σ(1) > σ_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("sigma_min", self.sigma_min, above=0)
        check_number("sigma_max", self.sigma_max)
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                "sigma_max must be greater than sigma_min, "
                f"got {self.sigma_max} and {self.sigma_min}"
            )

    @classmethod
    def from_data(cls, x: Tensor, sigma_min: float = 0.01) -> VE:
        """NCSNv2's choice: σ_max is the largest Euclidean distance between two data points.

        Song & Ermon 2020, arXiv:2006.09011, technique 1.

        Args:
            x: Data, shape (n, *D), n ≥ 2; all n² distances are computed, in pieces.
            sigma_min: σ(0).
        """
        rows = x.detach().flatten(1).double()
        return cls(sigma_min, max(float(torch.cdist(part, rows).max()) for part in rows.split(512)))

    def ladder(self, levels: int | None = None) -> Tensor:
        """Times whose σ are NCSN's geometric sequence from σ_max down to σ_min, shape (L,)."""
        return equally_spaced(1, 0, self._check_levels(levels))

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior: σ_max."""
        return self.sigma_max

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = σ_min (σ_max/σ_min)^t."""
        return self.sigma_min * torch.exp(as_time(t) * self._log_ratio)

    def f(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = σ(t) √(2 log(σ_max/σ_min))."""
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ = −log σ."""
        return (-as_time(lam) - math.log(self.sigma_min)) / self._log_ratio
