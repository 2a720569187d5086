"""Which adapter an object needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ...samplers import Sampler
from .azula import AzulaSampler, is_azula
from .base import ForeignSampler
from .diffusers import DiffusersScheduler, is_scheduler
from .own import OwnSampler
from .sigmas import SigmaFunction, takes_sigmas

__all__ = ["foreign_sampler"]

ACCEPTED = (
    "a sampler of scoresde, a scheduler of diffusers, a sampler of azula, or a callable of "
    "(denoiser, x, sigmas)"
)


def foreign_sampler(
    source: Any, arguments: Mapping[str, Any] | None = None, name: str | None = None
) -> ForeignSampler:
    """A sampler of any library behind the common interface.

    Args:
        source: A sampler of this package; a scheduler of diffusers or a sampler of azula, class or
            object; a callable of (denoiser, x, sigmas) such as those of k-diffusion; or a class
            or function without required arguments that makes one of these.
        arguments: Keyword arguments: of a class or maker when it is called, of `step` for a
            scheduler, and of a callable at each call.
        name: Its name; that of the source if not given.

    Raises:
        TypeError: If the object is none of these.
        ValueError: If arguments are given for an object, or one is unknown or missing.
    """
    given = dict(arguments or {})
    name = name or _name(source, given)
    kind = source if isinstance(source, type) else type(source)
    made = source is not kind
    if is_azula(kind):
        _check_none(given, made, name)
        return AzulaSampler(name, source, given)
    if is_scheduler(kind):
        _check_none(given, made, name)
        if made:
            return DiffusersScheduler.of_object(name, source)
        return DiffusersScheduler(name, kind, given)
    if isinstance(source, Sampler):
        _check_none(given, made, name)
        return OwnSampler(name, source)
    if made and callable(source) and takes_sigmas(source, given, _base(source)):
        return SigmaFunction(name, source, given)
    if callable(source):
        return foreign_sampler(_called(source, given, name), None, name)
    raise TypeError(f"sampler must be {ACCEPTED}, got {kind.__name__}")


def _check_none(given: Mapping[str, Any], made: bool, name: str) -> None:
    if made and given:
        raise ValueError(f"{name}: {', '.join(given)} can be given to a class, not to an object")


def _called(make: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> Any:
    """What a class or function makes."""
    try:
        inspect.signature(make).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sampler {name} must be {ACCEPTED}, or make one: {error}") from error
    return make(**arguments)


def _name(source: Any, given: Mapping[str, Any]) -> str:
    """The name of a class or function, or of the class of an object, with its arguments."""
    return ":".join([_base(source), *(f"{key}={value}" for key, value in given.items())])


def _base(source: Any) -> str:
    return getattr(source, "__name__", type(source).__name__)
