"""What all adapters share: the denoiser that a sampler calls, noise levels, and the interface.

States are y = x/α = x_0 + σ ε, and σ means σ/α: libraries differ in α, but not in these two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..._tensor import float64

__all__ = [
    "Call",
    "Denoiser",
    "End",
    "ForeignSampler",
    "GivenLevels",
    "Levels",
    "NotMeasured",
    "Start",
]


Start = Callable[[float], Tensor]  # the states y, shape (B, *D), float64, at a noise level


class NotMeasured(Exception):
    """Raised if an adapter cannot run a library in the way that a measurement needs."""


class Call(NamedTuple):
    """One evaluation: the state y, shape (B, *D), float64, and its noise level."""

    y: Tensor
    sigma: float


class Denoiser:
    """D(y, σ) = E[x_0 | y = x_0 + σ ε], which remembers its evaluations.

    Args:
        x0: The exact denoiser, called with y in float64 and a number σ > 0.

    Attributes:
        calls: The evaluations so far.
    """

    def __init__(self, x0: Callable[[Tensor, float], Tensor]) -> None:
        self._x0 = x0
        self.calls: list[Call] = []

    def __call__(self, y: Tensor, sigma: Tensor | float, **unused: object) -> Tensor:
        """D(y, σ) in the dtype of y; at σ = 0 it is y.

        Args:
            y: State, shape (B, *D).
            sigma: Noise level, a number or a tensor with the same value in all entries.
            **unused: Further arguments that a library passes on.

        Raises:
            NotMeasured: If the samples of the batch have several noise levels.
            ValueError: If σ is no finite number of at least 0.
        """
        levels = torch.as_tensor(sigma, dtype=torch.float64).flatten()
        wrong = levels[~(levels.isfinite() & (levels >= 0))]
        if len(wrong) or not len(levels):
            got = f"{float(wrong[0]):g}" if len(wrong) else "no number"
            raise ValueError(f"sigma must be finite and at least 0, got {got}")
        if (levels != levels[0]).any():
            ends = f"{float(levels.min()):.3g} to {float(levels.max()):.3g}"
            raise NotMeasured(f"samples of one batch have several noise levels, {ends}")
        level, state = float(levels[0]), y.detach().to(torch.float64).clone()
        self.calls.append(Call(state, level))
        return (self._x0(state, level) if level > 0 else state).to(y.dtype)

    def eps(self, y: Tensor, sigma: Tensor | float) -> Tensor:
        """(y − D(y, σ))/σ."""
        x0 = self(y, sigma)
        return (y - x0) / self.calls[-1].sigma


@dataclass(frozen=True)
class Levels:
    """Noise levels between two ends.

    Attributes:
        sigma_max: The first σ.
        sigma_min: The last σ, above 0.
        uneven: Whether the steps in λ = −log σ have lengths h, 3h, h, 3h, … instead of equal ones.
            On equal steps a method that treats the ratio of two steps wrongly keeps its order.
    """

    sigma_max: float
    sigma_min: float
    uneven: bool = False

    def sigmas(self, steps: int) -> Tensor:
        """The noise levels of `steps` steps, decreasing, shape (steps + 1,), float64."""
        lengths = float64([1.0, 3.0 if self.uneven else 1.0]).repeat((steps + 1) // 2)[:steps]
        u = torch.cat([torch.zeros(1, dtype=torch.float64), lengths.cumsum(0) / lengths.sum()])
        sigmas = torch.exp(torch.lerp(*float64([[self.log_max], [self.log_min]]), u))
        sigmas[0], sigmas[-1] = self.sigma_max, self.sigma_min
        return sigmas

    @property
    def log_max(self) -> float:
        """The logarithm of the first σ."""
        return math.log(self.sigma_max)

    @property
    def log_min(self) -> float:
        """The logarithm of the last σ."""
        return math.log(self.sigma_min)


@dataclass(frozen=True)
class GivenLevels(Levels):
    """Noise levels one by one.

    Attributes:
        values: The levels, decreasing, above 0.
    """

    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float]) -> GivenLevels:
        """The levels of a list."""
        return cls(values[0], values[-1], values=tuple(values))

    def sigmas(self, steps: int) -> Tensor:
        """The levels themselves, whatever the number of steps."""
        return float64(self.values)


class End(NamedTuple):
    """Where a sampler ends.

    Attributes:
        y: The state, shape (B, *D), float64.
        sigma: The σ at which its library puts it.
        remarks: What is unusual about the call, in words.
    """

    y: Tensor
    sigma: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignSampler(ABC):
    """A sampler of another library.

    Attributes:
        name: Its name, for results.
        keeps_levels: Whether its steps go exactly from one of the given noise levels to the next.
    """

    name: str
    keeps_levels: ClassVar[bool] = True

    def at_tolerance(self, value: float) -> ForeignSampler | None:
        """The sampler with all its tolerances set to a value; None if it has none."""
        return None

    @property
    @abstractmethod
    def takes_generator(self) -> bool:
        """Whether its randomness can come from a given `torch.Generator`."""

    @abstractmethod
    def run(
        self,
        denoiser: Denoiser,
        start: Start,
        levels: Levels,
        steps: int,
        generator: torch.Generator,
    ) -> End:
        """Carry states from the sampler's first noise level to its end.

        Args:
            denoiser: The model.
            start: The states to start from, at `levels.sigma_max`, or at the first noise level of
                a library that starts below it.
            levels: The noise levels. A library with a grid of its own keeps it, between these ends.
            steps: Number of steps that the library is asked for.
            generator: Where draws come from, if the sampler takes a generator.

        Raises:
            NotMeasured: If the library cannot be given these levels.
        """
