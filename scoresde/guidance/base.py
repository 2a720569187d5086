"""`Guided`, the base class of guided models, and `Scale`, how much they extrapolate."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_number
from ..evaluation import count_nfe
from ..score import ScoreModel, Time
from ..score.around import Around
from ..score.preconditioning import Quantity
from ..sde import Node

__all__ = ["Guided", "Scale"]

WITHOUT = 1.0  # the scale of the strong model alone


@dataclass(frozen=True)
class Scale:
    """The guidance scale w of each noise level σ/α; 1 means no guidance.

    Args:
        scale: w, at least 0, or a function that gives it for σ/α, a number.
        low: Guidance is left out (w = 1) for σ/α ≤ low.
        high: Guidance is left out for σ/α > high. Guidance in an interval of noise levels is from
            Kynkäänniemi et al. 2024, arXiv:2404.07724.

    Raises:
        TypeError: If the scale is neither a number nor a function.
        ValueError: If the scale is negative or not finite, or not 0 ≤ low < high.
    """

    scale: float | Callable[[float], float]
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not callable(self.scale):
            check_number("scale", self.scale, at_least=0)
        check_number("low", self.low, at_least=0)
        if self.high != math.inf:
            check_number("high", self.high)
        if not self.low < self.high:
            raise ValueError(f"high must be above low, got {self.high} and {self.low}")

    def at(self, node: Node, without: float = WITHOUT) -> float | Tensor:
        """w at a node: a number, or numbers like the node's entries.

        Args:
            node: The time.
            without: The scale outside the interval of noise levels: that of no guidance.
        """
        if not isinstance(node.alpha, Tensor):
            level = node.sigma / node.alpha if node.alpha > 0 else math.inf
            return self._value(level) if self.low < level <= self.high else without
        level = node.sigma / node.alpha
        values = [self._value(number) for number in level.flatten().tolist()]
        w = level.new_tensor(values).reshape(level.shape)
        return torch.where((level > self.low) & (level <= self.high), w, without)

    def _value(self, level: float) -> float:
        if not callable(self.scale):
            return float(self.scale)
        return float(check_number("scale", float(self.scale(level)), at_least=0))


class Guided(Around):
    """A model made of others, which any sampler takes; every evaluation of them is counted.

    Subclasses write `_guided`. The condition that is bound to this model, or given to `sample`, is
    that of the model inside.

    Attributes:
        model: The strong model.

    Args:
        model: The strong model.

    Raises:
        TypeError: If it is no score model.
        ValueError: If it is a student of few steps.
    """

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model)
        if model.distilled is not None:
            raise ValueError(
                f"model must be no student, got {model.distilled.in_words}: distill the guided "
                "model instead"
            )
        self.shape = model.shape
        self._decode_like(model)

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of the log-density of the model's ODE: it is not."""
        return True

    @abstractmethod
    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        """A quantity of the guided model, like x."""

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The guided ε."""
        return self._guided("eps", x, self.sde.at(t, x))

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """The guided x0."""
        return self._guided("x0", x, self.sde.at(t, x))

    def v(self, x: Tensor, t: Time) -> Tensor:
        """The guided v."""
        return self._guided("v", x, self.sde.at(t, x))

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The guided velocity of the probability-flow ODE."""
        return self._guided("velocity", x, self.sde.at(t, x))

    def _asked(self, model: ScoreModel, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        """A quantity of a model inside; its evaluations count as those of this model."""
        with count_nfe(model) as block:
            found = getattr(model, quantity)(x, node)
        for _ in range(block.forward):
            self.nfe.add_forward(node.t)
        return found
