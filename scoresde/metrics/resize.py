"""Resizes of published feature networks, which belong to the definition of their numbers."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["resize_pillow", "resize_tf1"]


def resize_pillow(images: Tensor, size: int) -> Tensor:
    """Bicubic resize with antialias by Pillow, which clean-fid and FD-DINOv2 use.

    The dtype decides what Pillow does. Images of uint8 are rounded and clipped to 0 … 255 after
    each of its two passes, rows and columns; on noise this changes pixels by more than ten levels.
    The values of float32 images are neither rounded nor clipped.

    Args:
        images: Shape (n, c, h, w), on the CPU, uint8 or float32.
        size: New height and width.

    Returns:
        Shape (n, c, size, size), float32.
    """
    planes = images.flatten(0, 1).numpy()
    sized = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in planes]
    return torch.from_numpy(np.stack(sized)).float().unflatten(0, images.shape[:2])


def resize_tf1(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of TensorFlow 1, which FID uses: row i is read at i·h/size, no antialias.

    The places are computed in float32 as there, which moves pixels of large images by 0.01 levels.

    Args:
        images: Shape (n, c, h, w), float32.
        size: New height and width.
    """
    rows, columns = (_weights(length, size).to(images) for length in images.shape[2:])
    return torch.einsum("ih,nchw,jw->ncij", rows, images, columns)


def _weights(length: int, size: int) -> Tensor:
    place = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size)
    low = place.long().clamp(max=length - 1)
    share = (place - low)[:, None]
    one = torch.eye(length)
    return (1 - share) * one[low] + share * one[(low + 1).clamp(max=length - 1)]
