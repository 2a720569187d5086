"""Broadcasting and argument checks shared by every module (imports torch only)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "NonFiniteError",
    "as_time",
    "check_integer",
    "check_number",
    "expand",
    "finite_or_raise",
]


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
    return torch.tensor(t, dtype=torch.float64)


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


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise unless `value` is a finite number inside the stated bounds.

    Raises:
        TypeError: If `value` is not a number.
        ValueError: If it is not finite or outside the bounds; names argument, bound and value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):  # 10^400 is an int, and finite
        raise ValueError(f"{name} must be finite, got {value}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be greater than {above}, got {value}")
    if at_least is not None and not value >= at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    if below is not None and not value < below:
        raise ValueError(f"{name} must be less than {below}, got {value}")
    if at_most is not None and not value <= at_most:
        raise ValueError(f"{name} must be at most {at_most}, got {value}")


def check_integer(name: str, value: int, *, minimum: int) -> int:
    """Return `value`, or raise unless it is an integer of at least `minimum`.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def finite_or_raise(x: Tensor, what: str | Callable[[], str]) -> Tensor:
    """Return `x`, or raise if it holds NaN or infinity.

    Args:
        x: Any floating tensor.
        what: Subject and place of the message, for example `network at t=0.412`, or a function
            that says them when they are needed.

    Raises:
        NonFiniteError: Naming how many values are not finite, and where.
    """
    # A sum is one pass without a temporary; it may overflow where all values are finite.
    if not math.isfinite(x.sum().item()):
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            where = what if isinstance(what, str) else what()
            raise NonFiniteError(f"{where}: {bad} non-finite values of {x.numel()}")
    return x
