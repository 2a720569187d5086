"""Samplers of this package, and of classes with its interface, beside those of other libraries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ...noise import SampleNoise
from ...score import FunctionScore, ScoreModel
from ...sde import VE
from .base import Denoiser, End, ForeignSampler, Levels, Start

__all__ = ["OwnSampler"]


@dataclass(frozen=True)
class OwnSampler(ForeignSampler):
    """A `Sampler` on a grid with the given noise levels, under VE.

    Attributes:
        sampler: The sampler.
    """

    sampler: Any

    @property
    def takes_generator(self) -> bool:
        """True: the seed of the generator is the seed of the sampler's noise."""
        return True

    def at_tolerance(self, value: float) -> OwnSampler | None:
        """The sampler with other `rtol` and `atol`, if it is adaptive."""
        if not self.sampler.adaptive:
            return None
        return replace(self, sampler=replace(self.sampler, rtol=value, atol=value))

    def run(
        self,
        denoiser: Denoiser,
        start: Start,
        levels: Levels,
        steps: int,
        generator: torch.Generator,
    ) -> End:
        """Run the sampler; the last time is above 0, because t = 0 is σ_min/2."""
        sde = VE(levels.sigma_min / 2, levels.sigma_max)
        ts = sde.t_of_lam(-levels.sigmas(steps).log())
        ts[0] = 1.0
        model = _score_model(sde, denoiser)
        y = start(levels.sigma_max)
        noise = SampleNoise(generator.initial_seed(), range(len(y)))
        end = self.sampler.run(model, y, ts, noise).state
        return End(end.double(), 0.0 if self.sampler.reaches_data else levels.sigma_min)


def _score_model(sde: VE, denoiser: Denoiser) -> ScoreModel:
    """The denoiser as a score model under VE, where α = 1."""
    return FunctionScore(sde, lambda x, t: denoiser.eps(x, sde.sigma(t)))
