"""Clipped: a score model whose x0 stays in the range of the data."""

from __future__ import annotations

from torch import Tensor

from .._tensor import check_number
from .around import Around
from .base import ScoreModel, Time
from .combining import combine

__all__ = ["Clipped"]


class Clipped(Around):
    """Another model with x0 clipped to [low, high], entry by entry, and ε = (x − α x0)/σ.

    Many samplers of DDPMs clip x0 at each step (Ho et al. 2020, arXiv:2006.11239, in their code;
    `clip_sample` in the library diffusers). The result is no score of a density. So a likelihood
    uses the model without clipping, and warns.

    Attributes:
        model: The model that is clipped.

    Args:
        model: Any score model; a condition that is bound to it is kept.
        low: Least value of x0.
        high: Largest value of x0, above `low`.

    Raises:
        TypeError: If the model is no score model.
        ValueError: If the range is empty.
    """

    def __init__(self, model: ScoreModel, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(model)
        self.low = check_number("low", low)
        self.high = check_number("high", high, above=self.low)
        self.nfe = model.nfe
        self._decode_like(model)

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """(x − α x0)/σ with the clipped x0."""
        node = self.sde.at(t, x)
        return combine(1 / node.sigma, x, -node.alpha / node.sigma, self.x0(x, node))

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """The model's x0, clipped."""
        return self.model.given(self.y).x0(x, t).clamp(self.low, self.high)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """α′ x0 + σ′ ε = (σ′ x − (α σ′ − α′ σ) x0)/σ with the clipped x0."""
        node = self.sde.at(t, x)
        skip, out = node.sigma_rate / node.sigma, -node.determinant / node.sigma
        return combine(skip, x, out, self.x0(x, node))
