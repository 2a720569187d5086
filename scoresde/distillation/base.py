"""What the losses of all students have in common."""

from __future__ import annotations

from dataclasses import dataclass

from ..sde import SDE
from ..training_loss import TrainingLoss

__all__ = ["StudentLoss"]


@dataclass(frozen=True)
class StudentLoss(TrainingLoss):
    """The loss of a student, which has no learned variance."""

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
