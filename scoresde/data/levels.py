"""`InLevels`: the part of `DataSpec` that maps between levels and the model's scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._deferred import refuse

__all__ = ["InLevels"]


class InLevels:
    """Quantized data of a `DataSpec`, whose levels are cells of [low, high]; see there."""

    low: float
    high: float
    levels: int | None
    span: float

    @property
    def bits_offset(self) -> float:
        """log2(levels/span), the difference between bits/dim of the levels and −log2 p(x)/D.

        The cell of a level has volume (span/levels)^D. The offset is 7 for 8-bit data on [−1, 1],
        8 on [0, 1], and 4 for 5-bit data on [−1, 1].

        Raises:
            ValueError: If the data are continuous, because they have no bits/dim.
        """
        return math.log2(self._require_levels("bits_offset") / self.span)

    def encode(self, k: Tensor) -> Tensor:
        """Centre of the cell of each level:  x = low + (high − low) (k + ½)/levels.

        Args:
            k: Integer levels in 0 … levels − 1, any shape.

        Returns:
            Model scale, same shape, in the default float dtype.

        Raises:
            TypeError: If k is not an integer tensor.
            ValueError: If the data are continuous or a level is out of range.
        """
        return self.dequantize(k, torch.tensor(0.5, device=k.device))

    def dequantize(self, k: Tensor, u: Tensor) -> Tensor:
        """Place u ∈ [0, 1] inside the cell of level k:  x = low + (high − low) (k + u)/levels.

        Args:
            k: Integer levels in 0 … levels − 1, any shape.
            u: Position in the cell, broadcastable to k; uniform on [0, 1) for dequantization.

        Returns:
            Model scale in [low, high], same shape as k, in the dtype of u.

        Raises:
            TypeError: If k is not an integer tensor or u not a float tensor.
            ValueError: If the data are continuous or a level is out of range.
        """
        levels = self._require_levels("dequantize")
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise TypeError(f"k must be an integer tensor of levels, got {k.dtype}")
        if not u.is_floating_point():
            raise TypeError(f"u must be a float tensor, got {u.dtype}")
        if k.numel():
            self._check_levels(*k.aminmax())
        # k + u in float64: float32 would round 255 + 0.99999 up into the next cell.
        fraction = (k.double() + u.double()) / levels
        return (self.low + self.span * fraction).to(u.dtype)

    def _check_levels(self, low: Tensor, high: Tensor) -> None:
        """Raise ValueError unless the smallest and the largest level are in the range."""
        last = self.levels - 1
        outside = (low.long() < 0) | (high.long() > last)
        refuse(outside, lambda _: ValueError(f"k must lie in 0..{last}, got {low}..{high}"))

    def to_levels(self, x: Tensor) -> Tensor:
        """The nearest level, by cell centre: the inverse of `encode` and `dequantize`.

            k = round((x − low)/(high − low) · levels − ½),  clamped to 0 … levels − 1

        Ties (cell borders) go up, as in dequantization with u = 0. Values outside [low, high]
        get the first or last level.

        Args:
            x: Model scale, any shape.

        Returns:
            Levels, same shape: uint8 up to 256 levels, int64 above.

        Raises:
            ValueError: If the data are continuous or x holds a NaN.
        """
        levels = self._require_levels("to_levels")
        if bool(torch.isnan(x).any()):
            raise ValueError(f"x must not hold NaN, got {int(torch.isnan(x).sum())} of them")
        # round(v − ½) with ties up is floor(v).
        k = torch.floor((x.double() - self.low) / self.span * levels).clamp(0, levels - 1)
        return k.to(torch.uint8 if levels <= 256 else torch.int64)

    def _require_levels(self, what: str) -> int:
        if self.levels is None:
            raise ValueError(f"{what} needs quantized data, got levels = None (continuous data)")
        return self.levels
