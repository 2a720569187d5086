"""The probability-flow ODE in the angle θ = arctan(σ/(α d)), and a choice of times along it.

Let d be a scale of the data, n = √(d² α² + σ²) and z = x/n. The ODE of any SDE is then

    dz/dθ = F(z, θ) = (α σ (d − 1/d) z + n v/d)/(α² + σ²),   v = α ε − σ x0

For data N(0, d² I) F is 0, so that a solver has to follow only the deviation of the data from this
Gaussian. θ runs from nearly 0 (data) to nearly π/2 (noise), and F is regular at both ends. The
variables are those of Salimans & Ho 2022, "Progressive distillation", arXiv:2202.00512,
appendix D, where d = 1.

Exact scores are smooth functions of θ. Details of images and the errors of a network are, near
both ends, smooth functions of log(σ/α) instead. The variable u is a compromise:

    u = I_y(κ, κ),   y = sin² θ = σ²/(d² α² + σ²),   du/dlog(σ/α) ∝ (y (1 − y))^κ

with I the distribution function of the beta distribution. Equal spacing in u is equal spacing in θ
for κ = ½, and in log(σ/α) for κ → 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import beta, betainc, betaincinv
from torch import Tensor

from ...sde import SDE, Node

__all__ = ["Angle"]


@dataclass(frozen=True)
class Angle:
    """The coordinates z, θ and u of an SDE between t_min and t_max.

    Args:
        sde: The SDE.
        data_scale: d > 0.
        spread: κ > 0.
        t_min: First time, in [0, 1) and with σ(t_min) > 0.
        t_max: Last time; 1 is allowed where α(1) = 0 too, because θ = π/2 is regular.
    """

    sde: SDE
    data_scale: float
    spread: float
    t_min: float
    t_max: float = 1.0

    def ends(self) -> tuple[Node, Node]:
        """The SDE at t_min and at t_max."""
        first, last = self.sde.nodes([self.t_min, self.t_max])
        return first, last

    def interval(self) -> tuple[float, float]:
        """u at t_min and at t_max."""
        first, last = self.ends()
        return self.u(first), self.u(last)

    def u(self, node: Node) -> float:
        """u at a node whose entries are numbers."""
        return float(betainc(self.spread, self.spread, (node.sigma / self.scale(node)) ** 2))

    def times(self, u: Tensor) -> Tensor:
        """Times t at u, float64, of any shape, kept in [t_min, t_max] despite rounding."""
        y, rest = self._shares(u)
        lam = -0.5 * torch.log(y / rest) - math.log(self.data_scale)
        return self.sde.t_of_lam(lam).clamp(self.t_min, self.t_max)

    def slope(self, u: Tensor) -> Tensor:
        """dθ/du = ½ B(κ, κ) (y (1 − y))^{½ − κ}, like u."""
        y, rest = self._shares(u)
        return 0.5 * beta(self.spread, self.spread) * (y * rest) ** (0.5 - self.spread)

    def scale(self, node: Node) -> float | Tensor:
        """n, like `node.t`."""
        return ((self.data_scale * node.alpha) ** 2 + node.sigma**2) ** 0.5

    def factors(self, node: Node) -> tuple[float | Tensor, float | Tensor]:
        """(a, b) of F = a z + b v, like `node.t`."""
        d, total = self.data_scale, node.alpha**2 + node.sigma**2
        return node.alpha * node.sigma * (d - 1 / d) / total, self.scale(node) / d / total

    def _shares(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """y and 1 − y at u; where y may be 1, the second one by symmetry, with all its digits."""
        y = torch.as_tensor(betaincinv(self.spread, self.spread, u.numpy()), device="cpu")
        if not self.sde.ends_in_noise:
            return y, 1 - y
        rest = betaincinv(self.spread, self.spread, (1 - u).clamp(0, 1).numpy())
        return y, torch.as_tensor(rest, device="cpu")
