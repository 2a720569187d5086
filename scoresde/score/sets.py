"""Padded sets: which numbers of a batch exist, and zeros in place of the rest.

A set of n ≤ N points of F features is an array (N, F) whose rows n … N − 1 are 0, the padding. Its
number of points n is part of its condition. A model of sets keeps the padding at 0: the state, the
noise and the network's output are 0 there. Sums over the numbers of a set are then sums over those
that exist, and only means and constants need their count.

Every function here returns its argument, or None, if the model is not one of sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._condition import present

if TYPE_CHECKING:
    from .base import ScoreModel

__all__ = [
    "check_padding",
    "numbers_of_sets",
    "only_present",
    "present_rows",
    "share_present",
    "sizes_of",
]


def sizes_of(model: ScoreModel, n: int) -> Tensor | None:
    """The number of points of each of n sets, int64, shape (n,), from the bound condition."""
    condition = model.condition
    size = None if condition is None else condition.size(model.y)
    return None if size is None else size.expand(n)


def present_rows(model: ScoreModel, x: Tensor) -> Tensor | None:
    """Which numbers of x exist, bool, shape (B, N·F).

    Args:
        model: The model, with its condition bound.
        x: Padded sets, shape (B, N, F).
    """
    size = sizes_of(model, len(x))
    if size is None:
        return None
    return present(size.to(x.device), x.shape[1])[:, :, None].expand(x.shape).flatten(1)


def only_present(model: ScoreModel, x: Tensor) -> Tensor:
    """x with zeros at the padding, shape (B, N, F)."""
    rows = present_rows(model, x)
    return x if rows is None else x * rows.reshape(x.shape)


def share_present(model: ScoreModel, x: Tensor) -> Tensor | None:
    """n/N, the share of the numbers of each padded set that exist, float64, shape (B,)."""
    size = sizes_of(model, len(x))
    return None if size is None else size.to(x.device, torch.float64) / x.shape[1]


def numbers_of_sets(model: ScoreModel, x: Tensor) -> Tensor | None:
    """n·F, the dimension of each set, float64, shape (B,)."""
    size = sizes_of(model, len(x))
    return None if size is None else size.to(x.device, torch.float64) * x.shape[2:].numel()


def check_padding(model: ScoreModel, x: Tensor, name: str = "x") -> None:
    """Raise ValueError unless x is 0 where a set has no points.

    Args:
        model: The model, with the condition of these sets bound.
        x: Padded sets, shape (B, N, F).
        name: Name of x, for the message.
    """
    rows = present_rows(model, x)
    if rows is None:
        return
    wrong = ((x.flatten(1) != 0) & ~rows).any(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        size = int(sizes_of(model, len(x))[first])
        raise ValueError(
            f"{name} must be 0 after the points of a set, got other numbers there in "
            f"{int(wrong.sum())} sets, first in set {first} of {size} points"
        )
