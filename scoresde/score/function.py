"""FunctionScore: a callable as a score model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._condition import ConditionSpec
from ..sde import SDE
from .base import ScoreModel, Time

__all__ = ["FunctionScore"]


class FunctionScore(ScoreModel):
    """A callable ε(x, t) as a score model, for example a network of your own.

    The callable receives copies, and its result is copied. So it may change its arguments in place
    and return the same buffer each time. `evaluating` finds the networks that the callable uses
    (see `reachable_modules`). The callable receives no condition.

    Args:
        sde: The forward process the callable belongs to.
        eps: Maps x of shape (B, *D) and t, a float64 tensor of shape () or (B,), to the noise
            like x.
    """

    def __init__(self, sde: SDE, eps: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(sde)
        self.function = eps

    @property
    def condition(self) -> ConditionSpec | None:
        """None is accepted, unless a subclass has its own `eps`, which may use `y`."""
        return ConditionSpec() if type(self).eps is FunctionScore.eps else None

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The callable's value, checked and counted."""
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        if isinstance(node.t, Tensor):
            time = node.t.to(x.device, torch.float64).flatten().clone()
        else:
            time = torch.full((), node.t, dtype=torch.float64, device=x.device)
        return self._evaluated(self.function(x.clone(), time), x, node).clone()
