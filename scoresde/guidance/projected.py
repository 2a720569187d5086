"""`Projected`: adaptive projected guidance."""

from __future__ import annotations

import math

from torch import Tensor

from .._tensor import check_number
from ..score import ScoreModel
from ..score.combining import cast, combine
from ..score.preconditioning import Preconditioning, Quantity
from ..sde import Node
from .base import WITHOUT, Scale
from .classifier_free import ClassifierFree

__all__ = ["Projected"]

_OF_X0 = Preconditioning("x0", scale_input=False)  # quantities from x0


class Projected(ClassifierFree):
    """Adaptive projected guidance: guidance without the part that raises the contrast.

        Δ = x0(x | y) − x0(x),  shortened to |Δ| ≤ norm
        x0 = x0(x | y) + (w − 1) (Δ_⊥ + parallel · Δ_∥)

    Δ_∥ is the part of Δ along x0(x | y), Δ_⊥ the rest. Sadat et al. 2024, arXiv:2410.02416, section
    4. Their momentum is left out, because a model has no memory of earlier steps. With parallel = 1
    and norm = ∞ it is classifier-free guidance.

    Args:
        model: As for `ClassifierFree`.
        scale: w, a number, or a `Scale` that depends on the noise level.
        norm: Largest length of Δ, above 0.
        parallel: Factor of the parallel part, in [0, 1].

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: As for `ClassifierFree`, or if a number is out of range.
    """

    def __init__(
        self,
        model: ScoreModel,
        scale: float | Scale,
        norm: float = math.inf,
        parallel: float = 0.0,
    ) -> None:
        super().__init__(model, scale)
        self.norm = norm if norm == math.inf else check_number("norm", norm, above=0)
        self.parallel = check_number("parallel", parallel, at_least=0, at_most=1)

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        strong, weak = self._pair()
        w = self.scale.at(node)
        if not isinstance(w, Tensor) and w == WITHOUT:
            return self._asked(strong, quantity, x, node)
        first, second = (self._asked(model, "x0", x, node) for model in (strong, weak))
        gap = first - second
        if self.norm < math.inf:
            gap = gap * (self.norm / _dot(gap, gap).sqrt()).clamp(max=1.0)
        along = _dot(gap, first) / _dot(first, first) * first
        change = gap - along + self.parallel * along
        c_skip, c_out = _OF_X0.skip_and_out(quantity, node)
        return combine(c_skip, x, c_out, first + (cast(w, x) - 1) * change)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of the entries of each sample, shape (B, 1, …, 1)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
