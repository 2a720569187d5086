"""How the numbers of an array become data: order of the axes, levels, dtype, and all checks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .conditions import float_tensor

__all__ = ["ArrayReading", "checked_data"]

_DEFAULT_LEVELS = {np.dtype(np.uint8): 256, np.dtype(np.bool_): 2}

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def checked_data(path: str | Path, x: np.ndarray, levels: int | None) -> tuple[Tensor, int | None]:
    """Data of an array and their number of levels, checked and converted as by `load_array`.

    Args:
        path: Name of the array in messages.
        x: Real numbers, shape (N, *D).
        levels: Number of levels; None for continuous data, and for 256 levels of uint8.

    Raises:
        ValueError: As for `load_array`.
    """
    reading = ArrayReading.of(path, x.shape, x.dtype, levels)
    return reading(x), reading.levels


@dataclass(frozen=True)
class ArrayReading:
    """How the numbers of an array become data; see `load_array`.

    Attributes:
        path: Name of the array in messages.
        levels: Number of levels; None for continuous data.
        last: Whether the array holds images whose channels come last.
        always_levels: Whether every number of the array's dtype is a level.
        shape: Shape (N, *D) of the data.
    """

    path: str | Path
    levels: int | None
    last: bool
    shape: tuple[int, ...]
    always_levels: bool

    @classmethod
    def of(
        cls, path: str | Path, shape: tuple[int, ...], dtype: np.dtype, levels: int | None
    ) -> ArrayReading:
        """The reading of an array of this shape and dtype; it may warn.

        Raises:
            ValueError: As for `load_array`, for all that shape and dtype show.
        """
        if not shape or 0 in shape:
            raise ValueError(f"{path}: data must have shape (N, *D) with N at least 1, got {shape}")
        shape = (*shape, 1) if len(shape) == 1 else shape
        if dtype.kind not in "buif":
            raise ValueError(f"{path}: data must be real numbers, got dtype {dtype}")
        _check_axes(path, shape, dtype)
        if len(shape) == 4 and dtype.kind == "f" and shape[1] == shape[2] == shape[3] > 4:
            warnings.warn(
                f"{path}: the shape {shape} was taken for images (N, C, H, W) of {shape[1]} "
                f"channels; for volumes make it (N, C, D, H, W), {(shape[0], 1, *shape[1:])}",
                stacklevel=5,
            )
        last = _channels_last(shape)
        if last:
            noun = "channel" if shape[3] == 1 else "channels"
            warnings.warn(
                f"{path}: the shape {shape} was taken for (N, H, W, C): the data are images of "
                f"{shape[3]} {noun} and {shape[1]}×{shape[2]} pixels",
                stacklevel=5,
            )
            shape = (shape[0], shape[3], shape[1], shape[2])
        if dtype.kind != "f" or levels is not None:
            levels = _DEFAULT_LEVELS.get(dtype) if levels is None else levels
            if levels is None:
                raise ValueError(f"{path}: levels must be given for integer data of dtype {dtype}")
            shape = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
        return cls(
            path, levels, last, shape, levels is not None and levels == _DEFAULT_LEVELS.get(dtype)
        )

    @property
    def out(self) -> torch.dtype:
        """Dtype of the data."""
        if self.levels is None:
            return torch.float32
        return torch.uint8 if self.levels <= 256 else torch.int64

    def __call__(self, x: np.ndarray) -> Tensor:
        """Data of some rows of the array.

        Raises:
            ValueError: If a number is not finite in float32, or is no level.
        """
        x = x.transpose(0, 3, 1, 2) if self.last else x
        x = x.reshape(len(x), *self.shape[1:])
        if self.levels is None:
            return float_tensor(self.path, "data", x)
        return _quantized(self.path, x, self.levels)


def _channels_last(shape: tuple[int, ...]) -> bool:
    if len(shape) != 4:
        return False
    _, height, width, channels = shape
    if width <= channels:
        return False
    return height == width or (channels in _CHANNELS and height not in _CHANNELS)


def _check_axes(path: str | Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse one image without an axis of images, and images whose axis comes last."""
    problem = None
    if len(shape) == 3 and dtype == np.uint8 and shape[2] in _CHANNELS and shape[1] > shape[2]:
        problem, axes = "one image (H, W, C)", (1, *shape)
    elif len(shape) == 4 and shape[2] in _CHANNELS and shape[2] != shape[3]:
        if shape[0] == shape[1] > shape[2]:
            problem, axes = "images (H, W, C, N)", (shape[3], *shape[:3])
    if problem:
        raise ValueError(
            f"{path}: the shape {shape} looks like {problem}; images must have the shape "
            f"(N, C, H, W) or (N, H, W, C), here {axes}"
        )


def _quantized(path: str | Path, x: np.ndarray, levels: int) -> Tensor:
    if x.dtype.kind == "f" and not np.array_equal(x, np.rint(x)):
        raise ValueError(f"{path}: data must be whole levels 0..{levels - 1} when levels is given")
    if x.min() < 0 or x.max() >= levels:
        raise ValueError(f"{path}: levels must lie in 0..{levels - 1}, got {x.min()}..{x.max()}")
    return torch.from_numpy(np.ascontiguousarray(x, np.uint8 if levels <= 256 else np.int64))
