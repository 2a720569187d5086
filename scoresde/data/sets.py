"""Sets of points as data: padding, sizes, and the sizes of new sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import present
from .._philox import uniforms
from .._tensor import check_integer
from .spec import DataSpec

__all__ = ["check_padded", "draw_sizes", "pad_sets", "range_of_sets", "size_kinds", "widened"]


def pad_sets(sets: Sequence[Any], most: int | None = None) -> tuple[Tensor, Tensor]:
    """Sets of points with zeros after their last point, and their sizes.

    Args:
        sets: Arrays or tensors of shape (n_i, F) with n_i ≥ 1, at least one.
        most: N, the number of points of a padded set; None for that of the largest.

    Returns:
        Float32 of shape (M, N, F), and int64 of shape (M,).

    Raises:
        TypeError: If one of them does not hold real numbers.
        ValueError: If there is none, one is empty, has no two axes, another F, more than N points,
            or numbers that are not finite in float32; the message names it.
    """
    if len(sets) == 0:
        raise ValueError("sets must hold at least one set, got none")
    arrays = [_points(f"sets[{i}]", x) for i, x in enumerate(sets)]
    features = arrays[0].shape[1]
    for i, x in enumerate(arrays):
        if x.shape[1] != features:
            raise ValueError(
                f"sets[{i}] must have {features} features, as sets[0] has, got shape {x.shape}"
            )
        if most is not None and len(x) > most:
            raise ValueError(f"sets[{i}] must have at most {most} points, got {len(x)}")
    sizes = [len(x) for x in arrays]
    padded = np.zeros((len(arrays), most or max(sizes), features), np.float32)
    for row, x in zip(padded, arrays, strict=True):
        row[: len(x)] = x
    return torch.from_numpy(padded), torch.tensor(sizes)


def _points(name: str, x: Any) -> np.ndarray:
    """The points of one set as float32, checked."""
    x = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    if x.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape (n, F) with n ≥ 1 and F ≥ 1, got {x.shape}")
    with np.errstate(over="ignore"):  # values that float32 cannot hold are refused below
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite in float32, got {(~np.isfinite(x)).sum()} others")
    return x


def size_kinds(sizes: Tensor, most: int) -> dict[str, Any]:
    """The arguments `sizes` and `size_counts` of a `DataSpec`.

    Args:
        sizes: Number of points of each set, int64, shape (M,).
        most: N, the number of points of a padded set.
    """
    least = int(sizes.min())
    counts = torch.bincount(sizes - least, minlength=most - least + 1)
    return {"sizes": (least, most), "size_counts": tuple(counts.tolist())}


def range_of_sets(x: Tensor, sizes: Tensor) -> tuple[float, float]:
    """The least and the largest number of all points."""
    low, high = torch.aminmax(x[present(sizes, x.shape[1])])
    return float(low), float(high)


def check_padded(name: str, x: Tensor, sizes: np.ndarray) -> Tensor:
    """The sizes of padded sets as int64, checked.

    Args:
        name: Name of the data in messages.
        x: Float32, shape (M, N, F).
        sizes: Number of points of each set.

    Raises:
        ValueError: If x is not of sets, sizes are no integers 1 … N of shape (M,), or x is not 0
            after the points of a set.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(
            f"{name}: sizes belong to sets, floating numbers of shape (M, N, F), got {x.dtype} "
            f"{tuple(x.shape)}"
        )
    if sizes.dtype.kind not in "ui" or sizes.shape != (len(x),):
        raise ValueError(
            f"{name}: sizes must be integers of shape ({len(x)},), got {sizes.dtype} {sizes.shape}"
        )
    if sizes.min() < 1 or sizes.max() > x.shape[1]:
        raise ValueError(
            f"{name}: sizes must be 1 to {x.shape[1]}, the number of rows of a set, got "
            f"{sizes.min()} to {sizes.max()}"
        )
    found = torch.from_numpy(sizes.astype(np.int64))
    wrong = ((x != 0).any(2) & ~present(found, x.shape[1])).any(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name}: x must be 0 after the points of a set, got other numbers there in "
            f"{int(wrong.sum())} sets, first in set {first} of {int(found[first])} points"
        )
    return found


def widened(x: Tensor, sizes: tuple[int, int], wanted: tuple[int, int] | None) -> Tensor:
    """Padded sets with as many rows as other sets have; x itself if they do not fit among these.

    Args:
        x: Padded sets, shape (M, N, F).
        sizes: Least and most number of their points.
        wanted: The same of the other sets; None if the others are no sets.
    """
    if wanted is None or sizes[1] >= wanted[1]:
        return x
    rows = x.new_zeros(len(x), wanted[1] - sizes[1], x.shape[2])
    return torch.cat([x, rows], 1)


def draw_sizes(spec: DataSpec, n: int, seed: int = 0) -> Tensor:
    """Numbers of points for n new sets, with the shares of the sizes in the data.

    Size i is a function of (seed, i).

    Args:
        spec: Description of the data, with `size_counts`.
        n: Number of sets, at least 0.
        seed: Integer in [0, 2^64).

    Returns:
        Int64, shape (n,): the condition `y` of `sample`.

    Raises:
        ValueError: If the data are no sets, or the shares of their sizes are not known.
    """
    check_integer("n", n, minimum=0)
    if spec.size_counts is None:
        raise ValueError(
            f"spec must have size_counts to draw sizes of sets, got {spec.kind} data without them"
        )
    shares = torch.tensor(spec.size_counts, dtype=torch.float64).cumsum(0)
    u = uniforms(seed, range(n), "set size", 1)[:, 0] if n else torch.empty(0, dtype=torch.float64)
    return spec.sizes[0] + torch.searchsorted(shares, u * shares[-1], right=True)
