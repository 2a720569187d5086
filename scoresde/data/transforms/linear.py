"""Transforms that shift and scale: `Standardize` and `Affine`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Transform

__all__ = ["Affine", "Standardize"]


@dataclass(frozen=True)
class Standardize(Transform):
    """z = (x − mean)/std: mean 0 and standard deviation 1 of the data it was fitted to.

    log |∂z/∂x| = −log std

    Args:
        mean: Mean of each transformed feature, in units; one number for all, or one for each.
        std: Standard deviation of each transformed feature, in units, above 0.
        columns: See `Transform`.
        axis: See `Transform`.

    Raises:
        TypeError: If a number is no number.
        ValueError: If a standard deviation is not above 0, or as for `Transform`.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if min(stds) <= 0:
            raise ValueError(f"std must be above 0, got {min(stds):g}")

    def _forward(self, x: Tensor) -> Tensor:
        return (x - self._number("mean", x)) / self._number("std", x)

    def _inverse(self, z: Tensor) -> Tensor:
        return self._number("mean", z) + self._number("std", z) * z

    def _log_slope(self, x: Tensor) -> Tensor:
        return -self._number("std", x).log()


@dataclass(frozen=True)
class Affine(Transform):
    """z = scale · x + shift, with numbers that the user chose.

    log |∂z/∂x| = log |scale|

    Args:
        scale: Factor of each transformed feature, not 0; one number for all, or one for each.
        shift: What is added afterwards, at the model's scale.
        columns: See `Transform`.
        axis: See `Transform`.

    Raises:
        TypeError: If a number is no number.
        ValueError: If a scale is 0, or as for `Transform`.
    """

    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if 0.0 in scales:
            raise ValueError("scale must not be 0")

    def _forward(self, x: Tensor) -> Tensor:
        return self._number("scale", x) * x + self._number("shift", x)

    def _inverse(self, z: Tensor) -> Tensor:
        return (z - self._number("shift", z)) / self._number("scale", z)

    def _log_slope(self, x: Tensor) -> Tensor:
        return self._number("scale", x).abs().log()
