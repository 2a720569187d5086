"""Grids of given times: their check, and their move to the discrete times of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._tensor import plain_number
from .sde import SDE
from .sde.base import SAME_TIME

__all__ = ["LadderError", "check_grid", "check_on_ladder", "snapped"]


class LadderError(ValueError):
    """A grid needs more times than a discrete model has."""


def check_grid(ts: Sequence[float] | Tensor) -> Tensor:
    """A grid from times given as a list, array or tensor, checked.

    Args:
        ts: At least two strictly decreasing times in [0, 1].

    Returns:
        Shape (N + 1,), float64, on the CPU unless `ts` is a tensor elsewhere.

    Raises:
        TypeError: If `ts` does not hold real numbers.
        ValueError: Unless it has shape (N + 1,), N ≥ 1, and decreases strictly within [0, 1].
    """
    ts = _times(ts)
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise ValueError(f"a time grid must have shape (N + 1,) with N ≥ 1, got {tuple(ts.shape)}")
    if not bool(torch.isfinite(ts).all()) or float(ts.max()) > 1 or float(ts.min()) < 0:
        raise ValueError(f"a time grid must lie in [0, 1], got {ts.tolist()}")
    stalled = torch.nonzero(ts[1:] >= ts[:-1]).flatten().tolist()
    if stalled:
        i = stalled[0]
        raise ValueError(
            f"a time grid must decrease strictly, got t[{i}] = {float(ts[i])!r} and "
            f"t[{i + 1}] = {float(ts[i + 1])!r}"
        )
    return ts


def snapped(sde: SDE, ts: Tensor) -> Tensor:
    """The grid moved to times i/L of a discrete model's ladder, each used at most once.

    The ends move to the nearest ladder time. Every other time also moves to its nearest ladder
    time, unless several times share it. Such times are spread over neighbouring ladder times, so
    that the largest move is within half a level of the least possible.

    Args:
        sde: An SDE whose `levels` is L, such as a `TabulatedVP`.
        ts: A grid, shape (N + 1,).

    Returns:
        Strictly decreasing times of `sde.ladder`, shape (N + 1,).

    Raises:
        ValueError: If the SDE has no ladder, or `ts` is not a grid.
        LadderError: If there are fewer than N + 1 levels between the ends.
    """
    ts = check_grid(ts)
    ladder = sde.ladder().to(ts.device)
    levels, index = len(ladder), sde.label(ts)
    order = torch.arange(len(ts), dtype=torch.float64, device=ts.device)
    first, last = round(float(index[0])), round(float(index[-1]))
    if first - last + 1 < len(ts):
        raise LadderError(
            f"{len(ts)} times do not fit between t = {float(ts[0]):g} and {float(ts[-1]):g}, where "
            f"the model has {first - last + 1} of its {levels} discrete times; take fewer steps"
        )
    # Indices k_i decrease strictly if k_i + i never increases. The sequence halfway between the
    # nearest such sequence above and the nearest one below has the least largest move.
    goal = index + order
    above, below = goal.flip(0).cummax(0).values.flip(0), goal.cummin(0).values
    k = (0.5 * (above + below)).round().clamp(last + len(ts) - 1, first) - order
    k[0], k[-1] = first, last
    return ladder[levels - 1 - k.long()]


def check_on_ladder(sde: SDE, ts: Tensor) -> None:
    """Raise unless every time is a time i/L of the discrete model, within 1e-9.

    Args:
        sde: An SDE whose `levels` is not None.
        ts: Times, any shape.

    Raises:
        ValueError: If a time is not; the message names the first one.
    """
    ladder, flat = sde.ladder(), ts.to("cpu", torch.float64).flatten()
    nearest = ladder[len(ladder) - 1 - sde.label(flat).round().long()]
    off = flat[(flat - nearest).abs() > SAME_TIME].tolist()
    if off:
        raise ValueError(
            f"t = {off[0]!r} is not one of the {len(ladder)} discrete times i/"
            f"{len(ladder)} of the model, whose labels are rounded; use grid.snapped(sde, ts)"
        )


def _times(ts: Sequence[float] | Tensor) -> Tensor:
    """Times in any container as a float64 tensor."""
    if not isinstance(ts, Tensor):
        try:
            values = np.array([plain_number(t) for t in ts] if isinstance(ts, list | tuple) else ts)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"a time grid must hold numbers, got {type(ts).__name__}") from error
        if values.dtype.kind not in "iuf":
            raise TypeError(f"a time grid must hold numbers, got {ts!r}")
        return torch.from_numpy(values.astype(np.float64))
    if ts.is_complex() or ts.dtype == torch.bool:
        raise TypeError(f"a time grid must hold numbers, got {ts.dtype}")
    return ts.detach().to(torch.float64)
