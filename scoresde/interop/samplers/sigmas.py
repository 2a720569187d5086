"""Functions of (denoiser, x, sigmas): those of k-diffusion, and any callable of this form.

    def sampler(denoiser, x, sigmas): ...       x = x_0 + σ ε, denoiser(x, σ) = E[x_0 | x]

`sigmas` decreases, shape (N + 1,), and the result is the state at its last entry. The denoiser
accepts σ as a number or as a tensor of shape (B,), as k-diffusion gives it. A parameter named
`generator` receives a `torch.Generator`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...plain import nearest
from .base import Denoiser, End, ForeignSampler, Levels, Start

__all__ = ["SigmaFunction", "takes_sigmas"]

# Names of arguments that set the error of a step.
TOLERANCES = {"atol", "rtol", "tol", "tolerance"}
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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
        before = {"x": y.clone(), "sigmas": sigmas.clone()}
        known = inspect.signature(self.function).parameters
        given = {"generator": generator} if "generator" in known else {}
        if "disable" in known:  # k-diffusion's name for: no progress bar
            given["disable"] = True
        out = self.function(denoiser, y, sigmas, **given | dict(self.arguments))
        self._check(out, y)
        after = {"x": y, "sigmas": sigmas}
        remarks = [f"it changes {k} in place" for k, v in before.items() if (after[k] != v).any()]
        if out.dtype != y.dtype:
            remarks.append(f"it returns {out.dtype} for {y.dtype}")
        return End(out.detach().double(), float(before["sigmas"][-1]), tuple(remarks))

    def at_tolerance(self, value: float) -> SigmaFunction | None:
        """The function with all its arguments of the names in `TOLERANCES` set to a value."""
        found = TOLERANCES & set(inspect.signature(self.function).parameters)
        if not found:
            return None
        return replace(self, arguments={**self.arguments, **dict.fromkeys(found, value)})

    def _check(self, out: Any, y: Tensor) -> None:
        """Raise a TypeError unless the result can be the state."""
        if not isinstance(out, Tensor) or out.shape != y.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise TypeError(f"{self.name} must return a tensor {tuple(y.shape)}, got {got}")
        if not out.is_floating_point():
            raise TypeError(f"{self.name} must return floating-point numbers, got {out.dtype}")


def takes_sigmas(function: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> bool:
    """Whether a callable takes (denoiser, x, sigmas) by position, and the given arguments.

    Raises:
        ValueError: If it does, but an argument is unknown, or another one is missing.
    """
    try:
        known = inspect.signature(function)
        known.bind_partial(None, None, None)
    except (TypeError, ValueError):
        return False
    named = [p for p in known.parameters.values() if p.kind in _NAMED][3:]
    accepted = [p.name for p in named]
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.parameters.values()):
        for key in arguments:
            if key not in accepted:
                raise ValueError(f"{key!r} is no argument of {name}; {nearest(key, accepted)}")
    given = {"generator", *arguments}
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing:
        raise ValueError(
            f"{name} needs {', '.join(missing)} besides (denoiser, x, sigmas): give "
            + ":".join(f"{key}=VALUE" for key in missing)
        )
    return True
