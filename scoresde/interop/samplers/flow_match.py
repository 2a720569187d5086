"""Schedulers of diffusers for flow matching, x = (1 − u) x_0 + u ε with a network of ε − x_0.

They call u "sigma". The σ of this package's adapters is σ/α = u/(1 − u).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import End, Levels, NotMeasured, Start

__all__ = ["FlowSpace", "flow_scheduler", "is_flow_match"]

# Settings with which the scheduler chooses or turns its u in a way that is not followed here.
_UNKNOWN = ("use_dynamic_shifting", "shift_terminal", "invert_sigmas")


def is_flow_match(kind: type) -> bool:
    """Whether a scheduler's class is one of flow matching that takes its u as a list."""
    return "shift" in inspect.signature(kind.__init__).parameters and (
        "sigmas" in inspect.signature(kind.set_timesteps).parameters
    )


def flow_scheduler(kind: type, levels: Levels, steps: int, options: Mapping[str, Any]) -> Any:
    """A scheduler whose u are those of the given levels, ready; its last step goes to u = 0.

    Args:
        kind: The class.
        levels: The noise levels σ/α.
        steps: Number of evaluations.
        options: Keyword arguments of the constructor.

    Raises:
        NotMeasured: If a setting chooses the u in another way.
    """
    for key in _UNKNOWN:
        if options.get(key):
            raise NotMeasured(f"{key} must not be set")
    scheduler = kind(**options)
    sigmas = levels.sigmas(max(steps - 1, 1))[:steps]
    u = sigmas / (1 + sigmas)
    # the scheduler itself shifts what it is given: u ↦ s u/(1 + (s − 1) u)
    shift = float(scheduler.config.shift)
    scheduler.set_timesteps(sigmas=(u / (shift - (shift - 1) * u)).tolist())
    return scheduler


class FlowSpace:
    """States x = (1 − u) y of a scheduler with a list `sigmas` of u."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def first(self, start: Start) -> Tensor:
        """The scheduler's state at its first noise level."""
        sigma = self.level(self.scheduler.timesteps[0])
        return start(sigma) / (1 + sigma)

    def inside(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's input, x itself."""
        return x

    def level(self, t: Tensor) -> float:
        """u/(1 − u) of the present step."""
        u = float(self.scheduler.sigmas[self.scheduler.step_index or 0])
        return u / (1 - u)

    def denoised_state(self, x: Tensor, inside: Tensor, sigma: float) -> Tensor:
        """y = x/(1 − u) = (1 + σ) x."""
        return x.double() * (1 + sigma)

    def output(self, x0: Tensor, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """ε − x_0."""
        return (y - x0) / sigma - x0

    def end(self, x: Tensor) -> End:
        """The last state, at u = 0."""
        return End(x, 0.0)
