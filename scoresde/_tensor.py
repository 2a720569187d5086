"""Broadcasting and argument checks shared by every module (imports NumPy and torch only)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NonFiniteError",
    "as_time",
    "available_device",
    "check_choice",
    "check_fits",
    "check_integer",
    "check_number",
    "check_shape",
    "check_type",
    "equally_spaced",
    "expand",
    "finite_or_raise",
    "float64",
    "not_finite",
    "plain_number",
    "plain_numbers",
]


_SHOWN = 5  # differences listed before "and n more"
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_LARGEST = 10**308  # the largest power of ten that is a float64 number


class NonFiniteError(RuntimeError):
    """A computation gave NaN or infinity; the message says where."""


def as_time(t: Tensor | float) -> Tensor:
    """Time as a tensor: numbers become float64, floating tensors are kept as they are.

    Args:
        t: Time, a number or a tensor of any shape.

    Returns:
        The same values as a floating tensor.
    """
    if isinstance(t, Tensor):
        return t if t.is_floating_point() else t.to(torch.float64)
    return float64(t)


def float64(values: Any) -> Tensor:
    """Numbers as a float64 tensor on the CPU, whatever torch's default dtype and device are."""
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def equally_spaced(first: float, last: float, n: int) -> Tensor:
    """n numbers from first to last, both included, shape (n,), float64 on the CPU."""
    return torch.linspace(first, last, n, dtype=torch.float64, device="cpu")


def expand(t: Tensor, x: Tensor) -> Tensor:
    """Reshape `t` so that it broadcasts against `x` along the batch.

    Args:
        t: Shape () or (B,).
        x: Shape (B, *D).

    Returns:
        `t` with shape () or (B, 1, ..., 1), dtype unchanged.

    Raises:
        ValueError: If `t` is neither a scalar nor one value per sample.
    """
    if t.ndim == 0:
        return t
    if t.ndim != 1 or t.shape[0] != x.shape[0]:
        raise ValueError(
            f"t must have shape () or ({x.shape[0]},) for x of shape {tuple(x.shape)}, "
            f"got {tuple(t.shape)}"
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def plain_number(value: Any) -> Any:
    """A NumPy scalar, or a 0-d array or tensor, as a Python number; other values unchanged."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0:
        return value.item()
    return value


def plain_numbers(settings: Any) -> None:
    """Apply `plain_number` to every field of a dataclass, frozen or not.

    Call it first in `__post_init__`: settings then hold Python numbers, which are exact, comparable
    and ready for JSON.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        number = plain_number(value)
        if number is not value:
            object.__setattr__(settings, field.name, number)


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a Python number, or raise unless it is finite and inside the bounds.

    Raises:
        TypeError: If `value` is not a number.
        ValueError: If it is not finite or outside the bounds; the message names argument, bound and
            value.
    """
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{name} must be at most 1e308 in size, got an integer beyond it")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be greater than {above}, got {value}")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    if below is not None and not value < below:
        raise ValueError(f"{name} must be less than {below}, got {value}")
    if at_most is not None and not value <= at_most:
        raise ValueError(f"{name} must be at most {at_most}, got {value}")
    return value


def check_integer(name: str, value: int, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as a Python integer, or raise unless it is an integer in [minimum, maximum].

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below `minimum` or above `maximum`.
    """
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {value}")
    return value


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless `value` is an object of `kind`."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        # torch.compile puts a module into another one.
        compiled = isinstance(getattr(value, "_orig_mod", None), kind)
        hint = f"; call {name}.compile() instead of torch.compile({name})" if compiled else ""
        raise TypeError(f"{name} must be of type {kind.__name__}, got {given}{hint}")


def available_device(device: torch.device | str) -> torch.device:
    """The device, or raise unless this machine has it.

    Args:
        device: cpu, cuda or cuda:N, or "auto": cuda if this machine has it, else cpu.

    Raises:
        ValueError: If it is no such device, or is not here; mps has no float64, which times and
            noise need.
    """
    count = torch.cuda.device_count()
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if found.type not in ("cpu", "cuda"):
        reason = " (mps has no float64)" if found.type == "mps" else ""
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N{reason}, got {str(found)!r}")
    if found.type == "cuda" and (found.index or 0) >= count:
        raise ValueError(
            f"device must be one of this machine, which has {count} CUDA devices, got "
            f"{str(found)!r}"
        )
    return found


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a batch, (n, *D), as Python integers, or raise.

    Raises:
        TypeError: If `shape` is not a sequence.
        ValueError: Unless n ≥ 0 and every D ≥ 1, all of them integers.
    """
    if not isinstance(shape, Iterable):
        raise TypeError(f"shape must be (n, *D), got {shape!r}")
    shape = tuple(plain_number(n) for n in shape)
    sizes = all(isinstance(n, int) and n >= 0 for n in shape)
    if not shape or not sizes or math.prod(shape[1:]) < 1:
        raise ValueError(f"shape must be (n, *D) with n ≥ 0 and every D ≥ 1, got {shape}")
    return shape


def check_fits(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Raise unless tensors have the expected names and shapes, and dtypes that can be cast.

    Raises:
        ValueError: If they differ; the message lists the first five differences.
    """
    found = []
    for name in [name for name in expected if name in given]:
        have, want = given[name], expected[name]
        if have.shape != want.shape:
            found.append(f"{name} has shape {tuple(have.shape)}, not {tuple(want.shape)}")
        elif not _can_take(have.dtype, want.dtype):
            found.append(f"{name} has dtype {have.dtype}, not {want.dtype}")
    found += [f"missing {name}" for name in expected if name not in given]
    found += [f"unexpected {name}" for name in given if name not in expected]
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(f"the tensors do not fit {what}: {'; '.join(found[:_SHOWN])}{more}")


def _can_take(have: torch.dtype, want: torch.dtype) -> bool:
    """Whether weights may be cast: from floats to floats alone, not from integers to floats."""
    return have in _FLOATS if want.is_floating_point else torch.can_cast(have, want)


def finite_or_raise(x: Tensor, what: str | Callable[[], str]) -> Tensor:
    """Return `x`, or raise if it holds NaN or infinity.

    Args:
        x: Any floating tensor.
        what: Subject and place for the message, for example `network at t=0.412`, or a function
            that returns them and is called only if there is an error.

    Raises:
        NonFiniteError: The message says how many values are not finite, and where.
    """
    # A sum is one pass without a temporary, but may overflow although all values are finite.
    if not math.isfinite(x.sum().item()):
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise not_finite(what if isinstance(what, str) else what(), bad, x.numel())
    return x


def not_finite(where: str, bad: int, size: int) -> NonFiniteError:
    """The error for a tensor of `size` numbers of which `bad` are not finite."""
    return NonFiniteError(f"{where}: {bad} non-finite values of {size}")
