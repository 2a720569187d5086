"""Fitting transforms to training data, which are read block by block."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Chain, Transform, apply_chain, feature_name
from .text import TransformText

__all__ = ["Blocks", "Moments", "fit_chain"]

# A standard deviation is meaningless below so many roundings of the largest value: in float64 the
# sums of a constant leave about one, and in the data's own float32 fewer than 100 values are left.
_ROUNDING, _FEW_VALUES = 2.0**-50, 100

# Data in units, shape (n, *D), with a mask of the rows, or of the points of sets, that are fitted
# to; None for all. Domains are checked for every row.
Blocks = Callable[[], Iterator[tuple[Tensor, Tensor | None]]]


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and range of each feature, float64 tensors of shape (F,)."""

    mean: Tensor
    std: Tensor
    least: Tensor
    most: Tensor

    @classmethod
    def of(cls, blocks: Iterator[Tensor], axis: int) -> Moments:
        """The moments over all blocks of data, which are joined by Chan's formula.

        Args:
            blocks: Data of shape (n, *D), at least one row in all.
            axis: Axis of the features.
        """
        count, mean, squares, least, most = 0, 0.0, 0.0, None, None
        for block in blocks:
            rows = block.to(torch.float64).movedim(axis, -1).flatten(0, -2)
            n, own = len(rows), rows.mean(0)
            shift = own - mean
            squares = squares + (rows - own).square().sum(0)
            squares = squares + shift.square() * (count * n / (count + n))
            mean, count = mean + shift * (n / (count + n)), count + n
            low, high = torch.aminmax(rows, dim=0)
            least = low if least is None else torch.minimum(least, low)
            most = high if most is None else torch.maximum(most, high)
        return cls(mean, (squares / count).sqrt(), least, most)


def fit_chain(
    texts: Sequence[TransformText | Transform],
    blocks: Blocks,
    shape: tuple[int, ...],
    names: Sequence[str] | None = None,
    axis: int = 1,
) -> tuple[Chain, Moments]:
    """The transforms that texts describe, with their numbers from training data.

    Each transform is fitted to the data after the transforms before it.

    Args:
        texts: What `parse_transforms` returns; transforms among them are taken as they are.
        blocks: Called for each pass; returns the data in blocks.
        shape: Shape of one datum.
        names: Names of the features, for messages and columns.
        axis: Axis of the features in a batch: 1, or −1 for sets of points.

    Returns:
        The transforms, and the moments of the data after them.

    Raises:
        ValueError: If a feature is constant or leaves the domain of a transform (the message names
            it), or a column does not exist.
    """
    features = (1, *shape)[axis]
    chain: Chain = ()
    for text in texts:
        if isinstance(text, TransformText) and text.fitted:
            found = Moments.of(_mapped(chain, blocks, names), axis)
            chosen = text.make(features, names, mean=0.0, std=1.0, axis=axis).columns
            numbers = list(range(features) if chosen is None else chosen)
            _check_spread(found, numbers, names, first=not chain)
            mean, std = (tuple(v[numbers].tolist()) for v in (found.mean, found.std))
            made = text.make(features, names, mean=mean, std=std, axis=axis)
        else:
            fixed = isinstance(text, TransformText)
            made = text.make(features, names, axis=axis) if fixed else text
            made.check_features(features)
        chain = (*chain, made)
    return chain, Moments.of(_mapped(chain, blocks, names), axis)


def _mapped(chain: Chain, blocks: Blocks, names: Sequence[str] | None) -> Iterator[Tensor]:
    """The data that are fitted to after the transforms, in float64; all data are checked.

    Raises:
        ValueError: If a number leaves the domain of a transform; the message names its feature and
            row.
    """
    first = 0
    for block, kept in blocks():
        found = apply_chain(chain, block.to(torch.float64), names, first_row=first)
        yield found if kept is None else found[kept]
        first += len(block)


def _check_spread(
    found: Moments, numbers: list[int], names: Sequence[str] | None, first: bool
) -> None:
    """Refuse constant features, and warn of those that float32 cannot tell apart."""
    for i in numbers:
        size = max(abs(float(found.least[i])), abs(float(found.most[i])))
        std, name = float(found.std[i]), feature_name(i, names)
        if found.least[i] == found.most[i] or std <= _ROUNDING * size:
            raise ValueError(
                f"{name} is constant, {float(found.least[i]):.6g} in every training row, and "
                "cannot be standardized; remove it from the data, or list the other columns as in "
                f"'standardize:columns={_others(i, found, names)}'"
            )
        values = std / math.ulp(size) * 2.0**-29 if size else math.inf  # float32 steps in one std
        if first and values < _FEW_VALUES:
            warnings.warn(
                f"{name} has values near {size:.4g} with a standard deviation of {std:.2g}, of "
                f"which float32 keeps about {values:.2g} steps; subtract an offset from it first",
                stacklevel=4,
            )


def _others(constant: int, found: Moments, names: Sequence[str] | None) -> str:
    """The columns that vary, as a config lists them; at most the first few."""
    kept = [i for i in range(len(found.std)) if bool(found.least[i] != found.most[i])]
    shown = [str(i) if names is None else names[i] for i in kept[:6]]
    return ",".join(shown) + ("" if len(kept) <= 6 else ",…")
