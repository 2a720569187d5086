"""`Around`, the base class of score models that evaluate another one."""

from __future__ import annotations

from .._condition import ConditionSpec
from .._tensor import check_type
from .base import ScoreModel

__all__ = ["Around"]


class Around(ScoreModel):
    """A model around another one: what it accepts and where it may be evaluated is the other's.

    Subclasses write `eps`, and what differs. The condition that is bound to the model inside stays
    bound.

    Attributes:
        model: The model inside.

    Args:
        model: The model inside.

    Raises:
        TypeError: If it is no score model.
    """

    def __init__(self, model: ScoreModel) -> None:
        check_type("model", model, ScoreModel)
        super().__init__(model.sde)
        self.model, self.y = model, model.y
        self.data, self.needs_labels = model.data, model.needs_labels

    @property
    def condition(self) -> ConditionSpec | None:
        """The conditions of the model inside."""
        return self.model.condition

    @property
    def evaluations(self) -> int:
        """Evaluations of networks that one evaluation takes at most."""
        return self.model.evaluations

    @property
    def snapped(self) -> bool:
        """Whether the model is exact only at the discrete times of its SDE's ladder."""
        return self.model.snapped

    @property
    def t_least(self) -> float:
        """Least time at which the model inside may be evaluated."""
        return self.model.t_least

    @property
    def t_most(self) -> float:
        """Largest time at which the model inside gives every quantity."""
        return self.model.t_most
