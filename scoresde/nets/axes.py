"""Grids of one, two or three axes: layers, patches, and padding to a multiple.

Data of shape (C, *sizes) have C channels on a grid: series (C, L), images (C, H, W) and volumes
(C, D, H, W). The functions here are the same for each number of axes.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .._tensor import check_integer

__all__ = ["CONVOLUTIONS", "POOLS", "cropped", "folded", "grid_shape", "padding", "unfolded"]

# By the number of axes; the other layers of a U-Net do not depend on it.
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def grid_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of series, images or volumes, checked: two to four integers of at least 1."""
    if len(shape) - 1 not in CONVOLUTIONS:
        hint = '; vectors take an MLP ("mlp")' if len(shape) == 1 else ""
        raise ValueError(
            f"shape must be (C, L), (C, H, W) or (C, D, H, W) for a U-Net, got {tuple(shape)}{hint}"
        )
    return tuple(check_integer("each entry of shape", n, minimum=1) for n in shape)


def padding(shape: Sequence[int], multiple: int) -> tuple[int, ...]:
    """The numbers (before, after) of each axis, the last axis first, as `F.pad` takes them.

    They bring each size of the shape (C, *sizes) to a multiple of `multiple`.
    """
    missing = [-size % multiple for size in reversed(shape[1:])]
    return tuple(n for short in missing for n in (short // 2, short - short // 2))


def cropped(x: Tensor, pad: Sequence[int]) -> Tensor:
    """x without the border that was added by `padding`."""
    sizes = x.shape[-1 : -1 - len(pad) // 2 : -1]
    kept = [slice(a, n - b) for a, b, n in zip(pad[::2], pad[1::2], sizes, strict=True)]
    return x[(..., *reversed(kept))]


def folded(x: Tensor, patch: int) -> Tensor:
    """Patches as channels: (B, C, *sizes) becomes (B, C · patch^axes, *sizes / patch).

    In two dimensions this is `torch.nn.functional.pixel_unshuffle`.
    """
    batch, channels, *sizes = x.shape
    axes = len(sizes)
    split = x.reshape(batch, channels, *[n for size in sizes for n in (size // patch, patch)])
    within, between = range(3, 3 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    together = split.permute(0, 1, *within, *between)
    return together.reshape(batch, channels * patch**axes, *[size // patch for size in sizes])


def unfolded(x: Tensor, patch: int) -> Tensor:
    """The inverse of `folded`."""
    batch, channels, *sizes = x.shape
    axes = len(sizes)
    split = x.reshape(batch, channels // patch**axes, *[patch] * axes, *sizes)
    order = [place for i in range(axes) for place in (2 + axes + i, 2 + i)]
    return split.permute(0, 1, *order).reshape(batch, -1, *[size * patch for size in sizes])
