"""The numbers that the rest of the package draws: normals, uniforms, and pieces of 16 bits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import host
from .constants import PURPOSES, Words
from .device import draw as draw_on
from .device import is_made_on, maker

__all__ = ["normals", "pieces", "uniforms"]


def normals(
    seed: int,
    index: Words,
    purpose: str,
    n: int,
    *,
    draw: Words = 0,
    address: Words = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """N(0, 1) numbers, made in float64 and then cast.

    Args:
        seed: Integer in [0, 2^64).
        index: Index of each sample, in [0, 2^64).
        purpose: One of `PURPOSES`.
        n: Number of values of each draw.
        draw: Number of the draw, in [0, 2^64).
        address: A further number in [0, 2^64), for purposes that need one.
        dtype: Dtype of the result.
        device: Device of the result. A GPU makes the numbers itself; the host does not wait for it,
            and words that `words` has put there are not copied.

    Returns:
        Shape (*S, n), where S is the common broadcast shape of `index`, `draw` and `address`.
    """
    device = torch.device(device)
    if is_made_on(device):
        name = seed, index, draw, address
        return draw_on("normals", name, PURPOSES[purpose], n, dtype, device)
    pairs = host.integers(seed, index, purpose, n + n % 2, draw=draw, address=address)
    values = host.box_muller(pairs)[..., :n]
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)


def uniforms(
    seed: int,
    index: Words,
    purpose: str,
    n: int,
    *,
    draw: Words = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """U[0, 1) numbers, float64, because in float32 some would round to 1.

    Args and shape as for `normals`.
    """
    device = torch.device(device)
    if is_made_on(device):
        name = seed, index, draw, 0
        return draw_on("uniforms", name, PURPOSES[purpose], n, torch.float64, device)
    values = host.integers(seed, index, purpose, n, draw=draw) >> np.uint64(11)
    return torch.from_numpy(values * 2.0**-53).to(device)


def pieces(names: Tensor, purpose: str, n: int) -> Tensor:
    """Integers that are uniform in [−2^15, 2^15): a quarter of the work of uniforms.

    Args:
        names: Words (seed, index, draw, address) of each row, int64, shape (4, rows), contiguous.
            All seeds are equal.
        purpose: One of `PURPOSES`.
        n: Number of values in each row.

    Returns:
        dtype int16, shape (rows, n), on the device of the names.
    """
    size, number = -(-n // 4), PURPOSES[purpose]
    if 0 in (names.shape[1], n):
        return names.new_empty((names.shape[1], n), dtype=torch.int16)
    if is_made_on(names.device):
        whole = maker(names.device)("integers", names, number, size, torch.int64)
    else:
        (seed, *_), index, draw, address = names.numpy().view(np.uint64)
        made = host.integers(int(seed), index, purpose, size, draw=draw, address=address)
        whole = torch.from_numpy(made.view(np.int64))
    return whole.view(torch.int16)[:, :n].contiguous()
