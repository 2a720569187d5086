"""A sampler under certification: its claim, and the runs that several laws share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..interop.samplers import ForeignSampler, Levels
from ..interop.samplers.own import OwnSampler
from .level_orders import STEPS, Moments, measure_moments
from .level_problems import (
    EVEN,
    mixture_denoiser,
    mixture_states,
    point_denoiser,
    point_states,
)
from .runs import Outcome, run_sampler

__all__ = ["FEW", "SAME", "Subject", "difference"]

FEW = STEPS[0]  # steps of laws for which their number does not matter
SAME = 1e-5  # relative difference that counts as rounding; schedulers may compute in float32


@dataclass(frozen=True)
class Subject:
    """A sampler with its claim, and the runs that several laws share."""

    sampler: ForeignSampler
    order: int | None
    like: OwnSampler | None
    steps: tuple[int, ...]

    def run(self, steps: int = FEW, levels: Levels = EVEN, **seeds: int) -> Outcome:
        """A run on the mixture."""
        return run_sampler(self.sampler, mixture_denoiser(), mixture_states, levels, steps, **seeds)

    @cached_property
    def first(self) -> Outcome:
        """The run with both seeds 0."""
        return self.run()

    @cached_property
    def point(self) -> Outcome:
        """A run on data that are one point: the distance to it tells the noise level of a state."""
        return run_sampler(self.sampler, point_denoiser(), point_states, EVEN, FEW)

    @cached_property
    def repeats(self) -> bool:
        """Whether equal seeds give equal results."""
        return difference(self.run().y, self.first.y) == 0

    @cached_property
    def adaptive(self) -> bool:
        """Whether it has tolerances, and evaluations that do not depend on the number of steps."""
        if self.sampler.at_tolerance(1e-3) is None:
            return False
        return self.run(STEPS[1]).calls == self.first.calls

    @cached_property
    def moments(self) -> Moments:
        """The moments of a sampler that draws noise."""
        return measure_moments(self.sampler, EVEN, self.steps)

    @cached_property
    def draws_noise(self) -> bool:
        """Whether other seeds give other results."""
        return difference(self.run(seed=1, global_seed=1).y, self.first.y) > SAME


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of two states, relative to the size of the second."""
    return float((a - b).abs().max() / b.abs().max())
