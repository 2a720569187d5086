"""Changes of data to those that a network was trained on: range, order of channels and axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from .points import Points

__all__ = ["ORDERS", "RANGES", "DataMap", "Order", "changes"]

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 0.5))


class Order(NamedTuple):
    """Another order of the channels or axes of images (B, C, H, W).

    Attributes:
        says: The mistake in words.
        fix: What to do.
        there: From the data to those of the training.
        back: The inverse.
    """

    says: str
    fix: str
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def _as_channels_last(x: Tensor) -> Tensor:
    """Memory of the order (H, W, C) that was taken as (C, H, W), in its right order."""
    return x.reshape(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)


def _as_channels_first(x: Tensor) -> Tensor:
    """The inverse of `_as_channels_last`."""
    return x.movedim(1, -1).reshape(x.shape)


ORDERS = {
    "bgr": Order(
        "the order of the channels is wrong: BGR instead of RGB, or the reverse",
        "turn the channels round",
        *(lambda x: x.flip(1),) * 2,
    ),
    "channels last": Order(
        "the memory of the images is channels-last (N, H, W, C), but was reshaped to (N, C, H, W)",
        "read them with their own shape, then permute the axes",
        *(_as_channels_last, _as_channels_first),
    ),
    "channels first": Order(
        "the memory of the images is channels-first (N, C, H, W), but was reshaped to (N, H, W, C)",
        "read them with their own shape, then permute the axes",
        *(_as_channels_first, _as_channels_last),
    ),
    "transposed": Order(
        "rows and columns of the images are exchanged",
        "transpose the images",
        *(lambda x: x.transpose(-1, -2),) * 2,
    ),
    "upside down": Order(
        "the images are upside down", "turn the rows round", *(lambda x: x.flip(-2),) * 2
    ),
    "mirrored": Order(
        "the images are mirrored, left and right",
        "turn the columns round",
        *(lambda x: x.flip(-1),) * 2,
    ),
}


@dataclass(frozen=True)
class DataMap:
    """How data must be changed before they are those of the training: x ↦ scale x + shift.

    Args:
        scale: Factor.
        shift: Added after the factor.
        orders: Names in `ORDERS`: changes of the order of channels and axes, made one after the
            other.
    """

    scale: float = 1.0
    shift: float = 0.0
    orders: tuple[str, ...] = ()

    def there(self, x: Tensor) -> Tensor:
        """Data as the network should get them."""
        for name in self.orders:
            x = ORDERS[name].there(x)
        return self.scale * x + self.shift

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `there`."""
        x = (x - self.shift) / self.scale
        for name in reversed(self.orders):
            x = ORDERS[name].back(x)
        return x


def changes(now: DataMap, points: Points) -> Iterator[tuple[str, DataMap, str]]:
    """Other data than those of a change: the mistake in words, the other change, what to do.

    Args:
        now: The present change.
        points: The data.
    """
    yield from _ranges(now, points) if points.image else _factors(now)
    other = replace(now, scale=1 / points.std, shift=-points.mean / points.std)
    says = "the data were standardized in training, to mean 0 and variance 1"
    yield says, other, f"use (x − {points.mean:.4g})/{points.std:.4g}"
    if not points.image:
        return
    channels, height, width = points.x.shape[1:]
    fits = {name: channels > 1 for name in ("bgr", "channels last", "channels first")}
    fits["transposed"] = height == width
    for name, order in ORDERS.items():
        if fits.get(name, True) and name not in now.orders:
            yield order.says, replace(now, orders=(*now.orders, name)), order.fix


def _ranges(now: DataMap, points: Points) -> Iterator[tuple[str, DataMap, str]]:
    """Other ranges of images, and black and white exchanged."""
    low, high = points.low, points.high
    for first, last in RANGES:
        scale = (last - first) / (high - low)
        other = replace(now, scale=scale, shift=first - scale * low)
        says = f"the data range is [{first:g}, {last:g}], not [{low:g}, {high:g}]"
        yield says, other, f"set low = {first:g} and high = {last:g} of the data"
    other = replace(now, scale=-now.scale, shift=now.shift + now.scale * (low + high))
    yield "black and white are exchanged in the data", other, f"use {low + high:g} − x"


def _factors(now: DataMap) -> Iterator[tuple[str, DataMap, str]]:
    for factor in (0.5, 2.0):
        other = replace(now, scale=now.scale * factor, shift=now.shift * factor)
        says = f"the data are {factor:g} times as large in training"
        yield says, other, f"multiply the data by {factor:g}"
