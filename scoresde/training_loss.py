"""`TrainingLoss`, what a training minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from torch import Tensor

__all__ = ["TrainingLoss"]


class TrainingLoss(ABC):
    """A loss as a function of the model, the data and random numbers, for `Training`.

    Attributes:
        counts_wrong: Whether the errors are 1 for a wrong class and 0 otherwise.
    """

    counts_wrong: ClassVar[bool] = False

    def check(self, sde: Any, learned_variance: bool = False) -> None:
        """Raise ValueError unless the loss suits a model; it suits all by default.

        Args:
            sde: The forward process; None for a model without one.
            learned_variance: Whether the model has a learned variance.
        """
        return None

    def new_history(self, model: Any) -> Any:
        """An empty history of errors for a loss that learns its times from them; else None."""
        return None

    def at_step(self, n: int, steps: int) -> Self:
        """The loss of step n = 0, 1, ... of a training of `steps` steps: the same by default."""
        return self

    @abstractmethod
    def __call__(
        self, model: Any, x0: Tensor, u: Tensor, eps: Tensor, history: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, times and errors of the samples, shape (B,) each.

        Args:
            model: The model.
            x0: Data, shape (B, *D).
            u: Uniform draws in [0, 1], shape (B,), float64.
            eps: Standard normal noise like x0.
            history: From `new_history`.
        """
