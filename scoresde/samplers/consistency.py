"""Multistep sampling of consistency models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .._tensor import check_type
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler

__all__ = ["Consistency"]


@dataclass(frozen=True)
class Consistency(GridSampler):
    """Multistep consistency sampling: jump to the data, and add fresh noise for the next time.

        x_s = α_s x0(x_t, t) + σ_s z,   and at the last step  x_s = f(x_t, t)

    f is the DDIM step to the last time s, which is the consistency function of a student. It has no
    order: on a score model, whose x0 is the mean E[x_0 | x_t], finer grids do not help, because
    each step loses the variance of x_0 given x_t.

    No order; 1 NFE per step; stochastic, except with one step. Song et al. 2023, "Consistency
    Models", arXiv:2303.01469, algorithm 1, for any SDE.

    Args:
        to_data: Whether the last step ends at σ = 0, which is x0(x_t, t), instead of the last time.
    """

    to_data: bool = False

    def __post_init__(self) -> None:
        check_type("to_data", self.to_data, bool)

    @property
    def reaches_data(self) -> bool:
        """Whether the last step ends at x0."""
        return self.to_data

    @property
    def starts_in_noise(self) -> bool:
        """Yes: only α, σ and x0 are used."""
        return True

    def start(self, sde: SDE, nodes: list[Node]) -> int:
        """The number of steps that are left."""
        return len(nodes) - 1

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: int, noise: Noise
    ) -> tuple[Tensor, int]:
        """One step; x of shape (B, *D)."""
        x0 = model.x0(x, t)
        if state > 1:
            return (s.alpha * x0).add_(noise.fresh(x), alpha=s.sigma), state - 1
        if self.to_data:
            return x0, 0
        return (s.sigma / t.sigma * x).add_(x0, alpha=-s.alpha * math.expm1(t.lam - s.lam)), 0
