"""`Node`: an SDE at one time, as numbers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Node"]


class Node(NamedTuple):
    """An SDE at one time: float64 numbers, or tensors of shape (B, 1, ..., 1) if times differ.

    Numbers are used because arithmetic on 0-d tensors costs more per step than a small network.

    Where α = 0, lam and f are −∞ and g is ∞. The other entries are finite at all times.

    Attributes:
        t: Time in [0, 1].
        alpha: α(t).
        sigma: σ(t).
        lam: λ(t) = log(α/σ).
        f: f(t) = α′/α.
        g: g(t), the diffusion coefficient.
        alpha_rate: α′(t) = dα/dt.
        sigma_rate: σ′(t) = dσ/dt.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor
    lam: float | Tensor
    f: float | Tensor
    g: float | Tensor
    alpha_rate: float | Tensor
    sigma_rate: float | Tensor

    @property
    def determinant(self) -> float | Tensor:
        """α σ′ − α′ σ > 0, of the equations x = α x0 + σ ε and u = α′ x0 + σ′ ε for x0 and ε.

        It is −α σ dλ/dt, and 1 at all times if α = 1 − t and σ = t.
        """
        return self.alpha * self.sigma_rate - self.alpha_rate * self.sigma
