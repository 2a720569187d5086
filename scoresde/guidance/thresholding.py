"""`DynamicallyThresholded`: x0 is scaled back into the range of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from .._tensor import check_number
from ..score import ScoreModel
from ..score.combining import combine
from ..score.preconditioning import Preconditioning, Quantity
from ..sde import Node
from .base import Guided

__all__ = ["DynamicallyThresholded"]

_OF_X0 = Preconditioning("x0", scale_input=False)  # quantities from x0


class DynamicallyThresholded(Guided):
    """Another model with x0 clipped to [−s, s] and divided by s/limit where s is above the limit.

    s is a quantile of |x0| over the entries of a sample. Saharia et al. 2022, arXiv:2205.11487,
    section 2.3. It is meant for guided models of images, whose x0 leaves [−1, 1].

    Args:
        model: Any score model, such as a `ClassifierFree` one.
        quantile: The quantile, in (0, 1].
        limit: Largest |x0| of data, above 0.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a number is out of range.
    """

    def __init__(self, model: ScoreModel, quantile: float = 0.995, limit: float = 1.0) -> None:
        super().__init__(model)
        self.quantile = check_number("quantile", quantile, above=0, at_most=1)
        self.limit = check_number("limit", limit, above=0)

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        x0 = self._asked(self.model.given(self.y), "x0", x, node)
        s = torch.quantile(x0.flatten(1).abs(), self.quantile, dim=1)
        s = s.clamp(min=self.limit).reshape(-1, *[1] * (x.ndim - 1))
        c_skip, c_out = _OF_X0.skip_and_out(quantity, node)
        return combine(c_skip, x, c_out, x0.clamp(-s, s) * (self.limit / s))
