"""Padded sets of points, (N, F) with zeros after the last point, without knowing their sizes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["counted_points", "points_of"]


def counted_points(x: Tensor) -> Tensor:
    """The number of points of each padded set: the place of the last row that is not all zeros.

    A set whose last point is exactly 0 seems to be smaller. Pictures and metrics, which have no
    conditions, count in this manner.

    Args:
        x: Padded sets, shape (B, N, F).

    Returns:
        Int64, shape (B,), at least 1.
    """
    there = (x != 0).any(2)
    places = torch.arange(1, x.shape[1] + 1, device=x.device)
    return (there * places).amax(1).clamp(min=1)


def points_of(x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    """The points of each padded set, shapes (n_i, F).

    Args:
        x: Padded sets, shape (B, N, F).
        sizes: Their numbers of points, shape (B,); None to count them.
    """
    sizes = counted_points(x) if sizes is None else sizes
    return [points[:n] for points, n in zip(x, sizes.tolist(), strict=True)]
