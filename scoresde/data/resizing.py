"""Images in another size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .._tensor import check_integer

__all__ = ["resized"]

_AT_A_TIME = 4096  # images that are held as floats


def resized(name: str, x: Tensor, size: int) -> Tensor:
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
        ValueError: If the size is less than 1, or the data are not square images.
    """
    size = check_integer("size", size, minimum=1)
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise ValueError(
            f"{name}: size must be absent unless the data are square images (N, C, H, H), got "
            f"{size} for data of shape {tuple(x.shape)}"
        )
    if x.shape[2] == size:
        return x
    return torch.cat([_interpolated(part, size) for part in x.split(_AT_A_TIME)])


def _interpolated(x: Tensor, size: int) -> Tensor:
    # float32 holds the levels of uint8 exactly, but not those of int64.
    values = x.double() if x.dtype == torch.int64 else x.float()
    out = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
    out = out.clamp(values.min(), values.max())  # rounding of the weights
    return (out if x.is_floating_point() else out.round()).to(x.dtype)
