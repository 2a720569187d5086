"""Data from `.npy` and `.npz` files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["load_array"]

_DEFAULT_LEVELS = {np.dtype(np.uint8): 256, np.dtype(np.bool_): 2}


def load_array(path: Path, levels: int | None = None) -> tuple[Tensor, Tensor | None, int | None]:
    """One array of data, its labels if the file has any, and its number of levels.

    A `.npy` file holds the data, shape (N, *D); a `.npz` file holds one array, or one called "x"
    and, if there are labels, one called "y" (integers, shape (N,)). Pickled objects are never
    opened.

    - uint8: quantized, 256 levels unless `levels` says otherwise; (N, H, W) becomes (N, 1, H, W).
    - other integers and bool: quantized; `levels` must be given (bool: 2).
    - floats: continuous, converted to float32; with `levels`, they must be whole levels.

    Returns:
        Data (N, *D), quantized uint8 or int64, else float32; labels, int64 (N,), or None;
        the number of levels, None for continuous data.

    Raises:
        ValueError: If the file is not such a file, is empty, holds values that are not finite,
            or levels outside 0 … levels − 1.
    """
    x, y = _read(path)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{path}: data must have shape (N, *D) with N at least 1, got {x.shape}")
    if x.ndim == 1:
        x = x[:, None]
    if x.dtype.kind not in "buif":
        raise ValueError(f"{path}: data must be real numbers, got dtype {x.dtype}")
    if x.dtype.kind == "f" and levels is None:
        data = _continuous(path, x)
    else:
        if levels is None:
            levels = _DEFAULT_LEVELS.get(x.dtype)
        data = _quantized(path, x, levels)
    return data, None if y is None else _labels(path, y, len(x)), levels


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            names = loaded.files
            if "x" in names and set(names) <= {"x", "y"}:
                return loaded["x"], loaded["y"] if "y" in names else None
            if len(names) == 1:
                return loaded[names[0]], None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a .npy or .npz file of plain numbers: {error}") from error
    raise ValueError(f"{path} must hold one array, or x and y, got {', '.join(names) or 'none'}")


def _continuous(path: Path, x: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # what float32 cannot hold is counted below
        data = x.astype(np.float32)
    bad = int(x.size - np.isfinite(data).sum())
    if bad:
        raise ValueError(f"{path}: data must be finite in float32, got {bad} values that are not")
    return torch.from_numpy(data)


def _quantized(path: Path, x: np.ndarray, levels: int | None) -> Tensor:
    if levels is None:
        raise ValueError(f"{path}: levels must be given for integer data of dtype {x.dtype}")
    if x.dtype.kind == "f" and not np.array_equal(x, np.rint(x)):
        raise ValueError(f"{path}: data must be whole levels 0..{levels - 1} when levels is given")
    if x.min() < 0 or x.max() >= levels:
        raise ValueError(f"{path}: levels must lie in 0..{levels - 1}, got {x.min()}..{x.max()}")
    if x.dtype == np.uint8 and x.ndim == 3:
        x = x[:, None]
    return torch.from_numpy(x.astype(np.uint8 if levels <= 256 else np.int64))


def _labels(path: Path, y: np.ndarray, n: int) -> Tensor:
    if y.dtype.kind not in "ui" or y.shape != (n,) or y.min() < 0:
        raise ValueError(
            f"{path}: y must be integers at least 0 of shape ({n},), got {y.dtype} {y.shape}"
        )
    return torch.from_numpy(y.astype(np.int64))
