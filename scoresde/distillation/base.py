"""What the losses of all students have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ..score import ScoreModel
from ..sde import SDE

__all__ = ["StudentLoss"]


@dataclass(frozen=True)
class StudentLoss(ABC):
    """A loss that `Training` takes in the place of an `Objective`."""

    def check(self, sde: SDE, learned_variance: bool = False) -> None:
        """Raise unless the loss suits the student.

        Args:
            sde: The forward process.
            learned_variance: Whether the student has a learned variance.

        Raises:
            ValueError: If it has: it would be that of the teacher's steps.
        """
        if learned_variance:
            raise ValueError(
                "learned_variance must be False for a student: the variance is that of the "
                "teacher's steps"
            )

    def new_history(self, model: ScoreModel) -> None:
        """None: the times are not learned."""
        return None

    def at_step(self, n: int, steps: int) -> StudentLoss:
        """The loss of step n = 0, 1, ... of a training of `steps` steps; the same by default."""
        return self

    @abstractmethod
    def __call__(
        self, model: ScoreModel, x0: Tensor, u: Tensor, eps: Tensor, history: None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, times and unweighted errors, shape (B,) each; arguments as for `Objective`."""
