"""Draws that are made on a GPU, where nothing is copied from the host and nothing waits."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import operations
from .constants import Words

__all__ = ["draw", "is_made_on", "maker", "words"]

# NumPy makes the numbers of other devices: it is faster on a CPU, and some devices have no float64.
_MADE_ON = frozenset({"cuda"})  # torch's name for CUDA and ROCm

# Normals of other dtypes are rounded from float32, as torch rounds float64 to them.
_WRITTEN = torch.float32, torch.float64


def is_made_on(device: torch.device) -> bool:
    """Whether the draws for a device are made on it."""
    return device.type in _MADE_ON


def words(values: Words, device: torch.device | str) -> np.ndarray | Tensor:
    """Words in the form in which draws for a device take them without a further copy.

    Args:
        values: The words; a `range` must end at 2^63 or before.
        device: The device of the draws.

    Returns:
        An int64 tensor on a GPU, else an array of uint64.
    """
    device = torch.device(device)
    if not is_made_on(device):
        return np.asarray(values, dtype=np.uint64)
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, int):
        return _constant(values, device)
    if isinstance(values, range):
        return torch.arange(values.start, values.stop, values.step, device=device)
    bits = torch.from_numpy(np.array(values, dtype=np.uint64).view(np.int64))
    if device.type == "cuda":
        bits = bits.pin_memory()  # else the copy may wait for the work that is queued
    return bits.to(device, non_blocking=True)


@functools.lru_cache(maxsize=64)
def _constant(word: int, device: torch.device) -> Tensor:
    """One word, such as a seed; kept, because each new one costs a launch."""
    return torch.full((), word - 2**64 * (word >= 2**63), dtype=torch.int64, device=device)


def draw(
    kind: str, name: Sequence[Words], purpose: int, n: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The numbers of some names, made on a GPU.

    Args:
        kind: `integers` (dtype int64, for the same bits), `uniforms` (float64) or `normals`.
        name: Seed, index, draw and address, which broadcast to a shape S.
        purpose: Number of the purpose.
        n: Number of values of each draw.
        dtype: Dtype of the result.
        device: The GPU.

    Returns:
        Shape (*S, n).
    """
    names = torch.stack(torch.broadcast_tensors(*(words(word, device) for word in name)))
    shape = (*names.shape[1:], n)
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device=device)
    written = torch.float32 if kind == "normals" and dtype not in _WRITTEN else dtype
    make = maker(names.device)
    return make(kind, names.flatten(1), purpose, n, written).view(shape).to(dtype)


@functools.lru_cache(maxsize=64)
def maker(device: torch.device) -> Callable[..., Tensor]:
    """`kernel.values` if it works on a device, else `operations.values`, which is slower."""
    if device.type != "cuda":
        return operations.values
    try:
        from . import kernel  # needs Triton

        _check(kernel.values, device)
    # Triton is absent, finds no compiler or no place for its files, or does not know the GPU.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"random numbers on {device} are made by operations of torch, which takes longer, "
            f"because the Triton kernel does not work there: {reason}",
            stacklevel=2,
        )
        return operations.values
    return kernel.values


def _check(make: Callable[..., Tensor], device: torch.device) -> None:
    """Raise RuntimeError unless a maker gives the numbers of the operations."""
    rows = [[0, 2**32, -1], [1, -1, 2**32 - 1], [-1, 0, 5], [7, -(2**63), 0]]
    names = torch.tensor(rows, device=device)
    for kind, dtype in (("integers", torch.int64), ("normals", torch.float64)):
        found, wanted = (m(kind, names, 11, 6, dtype) for m in (make, operations.values))
        if float((found - wanted).abs().max()) > (0 if kind == "integers" else 1e-13):
            raise RuntimeError(f"its {kind} are not those of the definition")
