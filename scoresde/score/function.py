"""FunctionScore: a callable as a score model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._condition import ConditionSpec
from .._reachable import float_parameters
from ..sde import SDE
from .base import ScoreModel, Time
from .call import Call, prediction

__all__ = ["FunctionScore"]


class FunctionScore(ScoreModel):
    """A callable ε(x, t) or ε(x, t, y) as a score model, for example a network of your own.

    The callable receives copies, and its result is copied. So it may change its arguments in place
    and return the same buffer each time. If it uses a network (see `reachable_modules`), it
    receives x and the condition in the dtype of this network's parameters.

    Args:
        sde: The forward process the callable belongs to.
        eps: Maps x of shape (B, *D) and t, a float64 tensor of shape () or (B,), to the noise
            like x, or to what `prediction` takes. It receives the condition as third argument if
            its signature has one that is required or None by default.

    Raises:
        TypeError: If the signature does not allow such a call.
    """

    def __init__(self, sde: SDE, eps: Callable[..., Any]) -> None:
        super().__init__(sde)
        self._caller = Call().fitted(eps)
        self.function = eps
        # In a tuple it is no parameter of this module, which cannot move or convert it.
        self._of_network = tuple(islice(float_parameters(self), 1))

    @property
    def condition(self) -> ConditionSpec | None:
        """No condition is accepted, unless the callable or a subclass's own `eps` may use `y`."""
        uses = self._caller.takes_condition or type(self).eps is not FunctionScore.eps
        return None if uses else ConditionSpec()

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The callable's value, checked and counted."""
        node = self.sde.at(t, x)
        dtype = self._of_network[0].dtype if self._of_network else x.dtype
        y = self._condition_for(x, dtype)
        self.nfe.add_forward(node.t)
        if isinstance(node.t, Tensor):
            time = node.t.to(x.device, torch.float64).flatten().clone()
        else:
            time = torch.full((), node.t, dtype=torch.float64, device=x.device)
        out = self._caller(self.function, x.to(dtype, copy=True), time, y)
        return self._evaluated(prediction(out, x)[0], x, node).clone()
