"""`Rows`: data of which rows are read when they are asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from ._workers import in_order

__all__ = ["Rows", "blocks_of", "watched"]

_BLOCK_BYTES = 1 << 24

# Called with the name of the data, the number of rows read and the number of all rows.
OnRead = Callable[[str, int, int], None]

_WATCHER: ContextVar[OnRead | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(on_read: OnRead) -> Iterator[None]:
    """A block in which each reading of all rows of some data is reported as it goes on."""
    token = _WATCHER.set(on_read)
    try:
        yield
    finally:
        _WATCHER.reset(token)


class Rows(ABC):
    """Data too large for memory: `x[rows]` reads these rows and gives them as a tensor.

    A subclass writes `read`. What it reads is a function of the row numbers alone.

    Args:
        name: Name or path, for messages.
        shape: Shape (N, *D).
        dtype: Dtype of the rows: uint8 or int64 for levels, otherwise float32.
        workers: Number of processes that read ahead; 0 reads in the process that asks.
    """

    at_a_time: int | None = None  # most rows of a block; None where only its bytes count

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, workers: int = 0
    ) -> None:
        self.name, self.shape, self.dtype, self.workers = name, torch.Size(shape), dtype, workers

    @abstractmethod
    def read(self, rows: np.ndarray) -> Tensor:
        """Some rows.

        Args:
            rows: Row numbers, int64 (n,), each in 0 … N − 1, in any order.

        Returns:
            Shape (n, *D), with the class's dtype.

        Raises:
            ValueError: If a row is not what it was when these data were opened.
            OSError: If a file cannot be read.
        """

    def __len__(self) -> int:
        return self.shape[0]

    def numel(self) -> int:
        """Number of values, N · D."""
        return math.prod(self.shape)

    def __getitem__(self, rows: slice | Tensor | np.ndarray) -> Tensor:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1 or (rows.size and not 0 <= rows.min() <= rows.max() < len(self)):
            raise IndexError(f"rows of {self.name} must lie in 0 … {len(self) - 1}, got {rows}")
        return self.read(rows)

    def blocks(self) -> Iterator[Tensor]:
        """All rows in order, in tensors of about 16 MB; read by the workers, if there are any."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = min(max(1, _BLOCK_BYTES // size), self.at_a_time or len(self))
        parts = (np.arange(i, min(i + step, len(self))) for i in range(0, len(self), step))
        tell, done = _WATCHER.get(), 0
        for block in in_order(self.read, parts, self.workers, self.name):
            yield block
            done += len(block)
            if tell is not None:
                tell(self.name, done, len(self))


def blocks_of(x: Tensor | Rows) -> Iterator[Tensor]:
    """All rows of data in order, in one or several tensors."""
    return x.blocks() if isinstance(x, Rows) else iter((x,))
