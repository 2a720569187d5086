"""Sampler and times of students, which distillation has made for few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import grid as grids
from ..score.distilled import Distilled
from ..sde import SDE
from .base import Sampler
from .consistency import Consistency
from .ddim import DDIM

__all__ = ["check_student", "own_sampler", "own_steps", "own_times"]

MOST_JUMPS = 4  # steps of a consistency student; the paper uses 1 and 2
SAME = 1e-9  # difference of equal times that were computed in two ways, or read from a file


def own_sampler(distilled: Distilled) -> Sampler:
    """The sampler a student was trained for: DDIM for a number of steps, else `Consistency`."""
    return Consistency(to_data=True) if distilled.steps is None else DDIM()


def own_steps(distilled: Distilled, nfe: int | None) -> int:
    """The number of steps within `nfe` evaluations, at least 1; None for the largest number.

    A student of N steps can also take fewer steps, of 2, 4, ... of its own at a time.
    """
    most = distilled.steps or MOST_JUMPS
    if nfe is None or nfe >= most:
        return most
    return nfe if distilled.steps is None else 1 << (nfe.bit_length() - 1)


def own_times(sde: SDE, distilled: Distilled, steps: int) -> Tensor:
    """The times of a student for a number of steps, shape (steps + 1,), float64.

    Args:
        sde: The forward process.
        distilled: What the student says about itself.
        steps: Number of steps; it divides that of the student, if the student has one.
    """
    finest = distilled.steps or steps
    t_max, d = sde.t_regular, distilled.data_std
    return grids.arctan(sde, finest, distilled.t_min, t_max, data_std=d)[:: finest // steps]


def check_student(distilled: Distilled, sde: SDE, sampler: Sampler, ts: Tensor | None) -> None:
    """Raise unless a student can be sampled in this way.

    Args:
        distilled: What the student says about itself.
        sde: The forward process.
        sampler: The sampler.
        ts: The times; None for its own.

    Raises:
        ValueError: If the sampler is not its own, or a time is not one of its own.
    """
    own = own_sampler(distilled)
    if sampler not in (own, type(own)()):
        raise ValueError(
            f"sampler must be {type(own).__name__} for {distilled.in_words}, which has no score "
            f"that other samplers could use, got {sampler!r}"
        )
    if ts is None or distilled.steps is None:
        return
    known = own_times(sde, distilled, distilled.steps)
    for t in ts:
        if float(torch.min(torch.abs(known - t))) > SAME:
            raise ValueError(
                f"ts must be among the times of {distilled.in_words}, "
                f"{', '.join(f'{float(one):.6g}' for one in known)}; got {float(t):.6g}"
            )
