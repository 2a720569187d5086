"""Resampling by 2 with the filter (1, 3, 3, 1), which lets less aliasing through than averaging."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fir_blur", "fir_down", "fir_up"]


def _filter(x: Tensor) -> Tensor:
    """The two-dimensional filter for each channel of x, shape (C, 1, 4, 4), with sum 1."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    return torch.outer(line, line).expand(x.shape[1], 1, 4, 4)


def fir_down(x: Tensor) -> Tensor:
    """Half the resolution: filter, then keep every second position.

    Zhang 2019, arXiv:1904.11486, section 3; in NCSN++ (Song et al. 2021, arXiv:2011.13456,
    appendix H).

    Args:
        x: Features, shape (B, C, H, W), H and W even.

    Returns:
        Shape (B, C, H/2, W/2).
    """
    return F.conv2d(x, _filter(x), stride=2, padding=1, groups=x.shape[1])


def fir_up(x: Tensor) -> Tensor:
    """Twice the resolution: zeros between the positions, then the filter with sum 4.

    Args:
        x: Features, shape (B, C, H, W).

    Returns:
        Shape (B, C, 2H, 2W).
    """
    return F.conv_transpose2d(x, 4 * _filter(x), stride=2, padding=1, groups=x.shape[1])


def fir_blur(x: Tensor) -> Tensor:
    """The filter alone, for a convolution of 3×3 positions with stride 2 that follows.

    Args:
        x: Features, shape (B, C, H, W).

    Returns:
        Shape (B, C, H + 1, W + 1).
    """
    return F.conv2d(x, _filter(x), padding=2, groups=x.shape[1])
