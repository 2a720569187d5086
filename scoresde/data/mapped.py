"""`MappedArray`: rows of an array in a file, which are read when they are asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._rows import Rows

__all__ = ["MappedArray", "Place"]

_AT_ONCE = 512  # scattered rows that are read from one mapping: each may map 64 kB around it


@dataclass(frozen=True)
class Place:
    """An uncompressed array inside a file, its first axis the slowest in memory.

    Args:
        path: The file.
        offset: Position of the first element, in bytes.
        shape: Shape of the array.
        dtype: Type of its elements.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class MappedArray(Rows):
    """An array in a file, which is mapped into memory for each read.

    Pages of a mapping count as memory of the process until they are unmapped, so none is kept.

    Args:
        name: Name of the data, for messages.
        place: The array.
        convert: Makes data of some rows of the array, and checks them.
        shape: Shape (N, *D) of the data.
        dtype: Their dtype.
        workers: Number of processes that read ahead.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        convert: Callable[[np.ndarray], Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        workers: int = 0,
    ) -> None:
        super().__init__(name, shape, dtype, workers)
        self.place, self.convert = place, convert
        self._state = _state_of(place.path)

    def read(self, rows: np.ndarray) -> Tensor:
        """Some rows; see `Rows.read`."""
        place = self.place
        if _state_of(place.path) != self._state:
            raise ValueError(f"{place.path} has changed since it was opened")
        if not rows.size:
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        first, n = int(rows[0]), len(rows)
        if np.array_equal(rows, np.arange(first, first + n)):
            return self.convert(np.array(self._map()[first : first + n]))
        parts = np.split(rows, range(_AT_ONCE, n, _AT_ONCE))
        return self.convert(np.concatenate([self._scattered(part) for part in parts]))

    def _map(self) -> np.memmap:
        place = self.place
        return np.memmap(place.path, place.dtype, "r", place.offset, place.shape)

    def _scattered(self, rows: np.ndarray) -> np.ndarray:
        array = self._map()
        if hasattr(mmap, "MADV_RANDOM"):  # else a row of 3 kB reads 128 kB from the disk
            array._mmap.madvise(mmap.MADV_RANDOM)
        return np.asarray(array[rows])


def _state_of(path: Path) -> tuple[int, int, int]:
    """What changes if a file is replaced or written to: its number, size and time of change."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns
