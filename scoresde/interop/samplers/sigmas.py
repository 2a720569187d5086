"""Functions of (denoiser, x, sigmas): those of k-diffusion, and any callable of this form.

    def sampler(denoiser, x, sigmas): ...       x = x_0 + σ ε, denoiser(x, σ) = E[x_0 | x]

`sigmas` decreases, shape (N + 1,), and the result is the state at its last entry. The denoiser
accepts σ as a number or as a tensor of shape (B,), as k-diffusion gives it. A parameter named
`generator` receives a `torch.Generator`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .base import Denoiser, End, ForeignSampler, Levels, Start

__all__ = ["SigmaFunction", "takes_sigmas"]


@dataclass(frozen=True)
class SigmaFunction(ForeignSampler):
    """A callable of (denoiser, x, sigmas).

    Attributes:
        function: The callable.
        arguments: Further keyword arguments.
        to_zero: Whether the list of noise levels is followed by 0.
    """

    function: Callable[..., Tensor]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    to_zero: bool = False

    @property
    def takes_generator(self) -> bool:
        """Whether the callable has a parameter `generator`."""
        return "generator" in inspect.signature(self.function).parameters

    def run(
        self,
        denoiser: Denoiser,
        start: Start,
        levels: Levels,
        steps: int,
        generator: torch.Generator,
    ) -> End:
        """Call the function."""
        sigmas, y = levels.sigmas(steps), start(levels.sigma_max)
        if self.to_zero:
            sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
        known = inspect.signature(self.function).parameters
        given = {"generator": generator} if "generator" in known else {}
        if "disable" in known:  # k-diffusion's name for: no progress bar
            given["disable"] = True
        out = self.function(denoiser, y, sigmas, **given | dict(self.arguments))
        if not isinstance(out, Tensor) or out.shape != y.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise TypeError(f"{self.name} must return a tensor {tuple(y.shape)}, got {got}")
        return End(out.detach().double(), float(sigmas[-1]))


def takes_sigmas(function: Callable[..., Any]) -> bool:
    """Whether a callable takes three arguments by position, and needs no others."""
    try:
        known = inspect.signature(function)
        given = {"generator": None} if "generator" in known.parameters else {}
        known.bind(None, None, None, **given)
    except (TypeError, ValueError):
        return False
    return True
