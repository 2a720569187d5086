"""Images in another size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._rows import Rows
from .._tensor import check_integer

__all__ = ["resized"]

_AT_A_TIME = 4096  # images that are held as floats


def resized(name: str, x: Tensor | Rows, size: int) -> Tensor | Rows:
    """Square images with another side, by bilinear interpolation.

    A smaller image is smoothed first (antialiasing: each pixel is a mean with triangular weights
    over all pixels that it replaces). Corners are the corners of the outermost pixels, and integer
    levels are rounded to the nearest level. This is what torchvision's and Pillow's bilinear resize
    does.

    Args:
        name: Name of the data, for messages.
        x: Images, shape (N, C, H, H): integer levels, or float32.
        size: The new side in pixels, at least 1.

    Returns:
        Shape (N, C, size, size), in the dtype of x, with no value outside the range of x.

    Raises:
        TypeError: If the size is not an integer.
        ValueError: If the size is less than 1, the data are not square images, or they are floats
            that are not held in memory: their rounding depends on which are resized together.
    """
    size = check_integer("size", size, minimum=1)
    if len(x.shape) != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(
            f"{name}: size must be absent unless the data are square images (N, C, H, H), got "
            f"{size} for data of shape {tuple(x.shape)}"
        )
    if x.shape[2] == size:
        return x
    if isinstance(x, Rows):
        if x.dtype.is_floating_point:
            raise ValueError(
                f"{name}: size must be absent for floats that are not held in memory, got {size}"
            )
        return _Resized(x, size)
    return torch.cat([_interpolated(part, size) for part in x.split(_AT_A_TIME)])


class _Resized(Rows):
    """Images of integer levels, which are resized when they are read."""

    def __init__(self, x: Rows, size: int) -> None:
        super().__init__(x.name, (*x.shape[:2], size, size), x.dtype, x.workers)
        self.x, self.size = x, size

    def read(self, rows: np.ndarray) -> Tensor:
        x = self.x.read(rows)
        return _interpolated(x, self.size) if len(x) else x.new_empty(0, *self.shape[1:])


def _interpolated(x: Tensor, size: int) -> Tensor:
    # float32 holds the levels of uint8 exactly, but not those of int64.
    values = x.double() if x.dtype == torch.int64 else x.float()
    out = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
    out = out.clamp(values.min(), values.max())  # rounding of the weights
    return (out if x.is_floating_point() else out.round()).to(x.dtype)
