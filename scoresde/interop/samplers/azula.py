"""Samplers of azula: classes that are made with a denoiser and called with x_T."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Denoiser, End, ForeignSampler, Levels, Start

__all__ = ["AzulaSampler", "is_azula"]


def is_azula(kind: type) -> bool:
    """Whether a class is a sampler of azula, or of a module that extends it."""
    return any(base.__module__ == "azula.sample" for base in kind.__mro__)


@dataclass(frozen=True)
class AzulaSampler(ForeignSampler):
    """A sampler of azula: a class with keyword arguments, or an object.

    Its noise schedule has the given σ/α at equally spaced times, α = 1/√(1 + (σ/α)²).

    Attributes:
        sampler: The class, or an object, whose denoiser and number of steps are replaced.
        arguments: Keyword arguments of the class.
    """

    sampler: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_generator(self) -> bool:
        """False: azula draws from the global state of torch."""
        return False

    def run(
        self,
        denoiser: Denoiser,
        start: Start,
        levels: Levels,
        steps: int,
        generator: torch.Generator,
    ) -> End:
        """Call the sampler with the model as azula's denoiser."""
        model = _Model(denoiser, levels, steps)
        if isinstance(self.sampler, type):
            arguments = {"silent": True, "dtype": torch.float64} | dict(self.arguments)
            sampler = self.sampler(model, steps=steps, **arguments)
        else:
            sampler = copy.copy(self.sampler)
            sampler.denoiser, sampler.steps, sampler.silent = model, steps, True
        first, last = (model.schedule(torch.tensor(t, dtype=torch.float64))[0] for t in (1.0, 0.0))
        return End(sampler(start(levels.sigma_max) * first).double() / last, levels.sigma_min)


class _Model:
    """A denoiser as azula calls it: `schedule(t)` is (α, σ), and a call gives `.mean`."""

    def __init__(self, denoiser: Denoiser, levels: Levels, steps: int) -> None:
        self.denoiser = denoiser
        self.log_sigmas = levels.sigmas(steps).log().numpy()

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ at a time; log(σ/α) is linear between the grid's times."""
        grid = np.linspace(0.0, 1.0, len(self.log_sigmas))
        log_sigma = np.interp(1 - t.double().numpy(), grid, self.log_sigmas)
        sigma = torch.as_tensor(log_sigma, dtype=torch.float64).exp()
        alpha = (1 + sigma**2) ** -0.5
        return alpha, alpha * sigma

    def __call__(self, x: Tensor, t: Tensor, **unused: Any) -> SimpleNamespace:
        """The posterior mean at x."""
        alpha, sigma = self.schedule(t)
        return SimpleNamespace(mean=self.denoiser(x / alpha, sigma / alpha))
