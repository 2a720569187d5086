"""VP and SubVP: the SDEs whose β(t) is linear in t."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import as_time, check_integer, check_number, equally_spaced, plain_numbers
from .base import SDE, VariancePreserving

__all__ = ["VP", "SubVP"]


@dataclass(frozen=True)
class _LinearBeta(SDE):
    """The common part of VP and SubVP: β(t) = β_min + t (β_max − β_min), α and f."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("beta_min", self.beta_min, at_least=0)
        check_number("beta_max", self.beta_max)
        if not self.beta_max > self.beta_min:
            raise ValueError(
                f"beta_max must be greater than beta_min, got {self.beta_max} and {self.beta_min}"
            )

    def beta(self, t: Tensor | float) -> Tensor:
        """β(t) = β_min + t (β_max − β_min)."""
        return self.beta_min + as_time(t) * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α = −t²/4 (β_max − β_min) − t/2 β_min, the integral of f."""
        t = as_time(t)
        return -0.25 * t * t * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def f(self, t: Tensor | float) -> Tensor:
        """f(t) = −β(t)/2."""
        return -0.5 * self.beta(t)

    def _t_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The root t of the quadratic `log_alpha`, by the formula that loses no digits."""
        b = -2 * log_alpha
        slope = self.beta_max - self.beta_min
        return 2 * b / (torch.sqrt(self.beta_min**2 + 2 * slope * b) + self.beta_min)


@dataclass(frozen=True)
class VP(_LinearBeta, VariancePreserving):
    """Variance-preserving SDE; its discretization is DDPM.

        β(t) = β_min + t (β_max − β_min),   f = −β/2,   g = √β
        log α = −t²/4 (β_max − β_min) − t/2 β_min,   σ² = 1 − α²

    Song et al. 2021, arXiv:2011.13456, eq. (11), (32), (33).

    Args:
        beta_min: β(0) ≥ 0.
        beta_max: β(1) > β_min.
    """

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, from −2 log α = log(1 + e^{−2λ})."""
        return self._t_of_log_alpha(self._log_alpha_of(as_time(lam)))

    def ddpm_betas(self, steps: int) -> Tensor:
        """DDPM's β_1..β_N on N steps: β_i = (β_min + i/(N−1) (β_max − β_min))/N, i = 0..N−1.

        VP(0.1, 20).ddpm_betas(1000) is Ho et al.'s linear schedule 1e-4..0.02. The inverse is
        `TabulatedVP(betas)`, which keeps this ladder, or `VP(N β_1, N β_N)`, its N → ∞ limit.

        Args:
            steps: N, at least 2 and above β_max, so that every β_i < 1.

        Returns:
            Shape (N,), float64.

        Raises:
            ValueError: If N is too small for β_i < 1.
        """
        steps = check_integer("steps", steps, minimum=2)
        if not steps > self.beta_max:
            raise ValueError(
                f"steps must be greater than beta_max = {self.beta_max} (else β_i ≥ 1), got {steps}"
            )
        return equally_spaced(self.beta_min, self.beta_max, steps) / steps


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-VP SDE: β, α and f of VP with the smaller kernel σ = 1 − α².

        g² = β (1 − α⁴)

    Song et al. 2021, arXiv:2011.13456, section 3.4 and appendix B.

    Args:
        beta_min: β(0) ≥ 0.
        beta_max: β(1) > β_min.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = 1 − α²."""
        return -torch.expm1(2 * self.log_alpha(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = √(β (1 − α⁴))."""
        return torch.sqrt(self.beta(t) * -torch.expm1(4 * self.log_alpha(t)))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, from e^{−λ} = 1/α − α = 2 sinh(−log α)."""
        return self._t_of_log_alpha(-torch.asinh(0.5 * torch.exp(-as_time(lam))))
