"""Reading the data of a batch ahead of its step, and sending them to an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, leaves
from .._rows import Rows
from .._workers import ReadError, in_order

__all__ = ["Ahead", "Next", "free_memory", "sent", "size_of"]


class Ahead:
    """Data of the steps that are read when they are needed, or ahead of them by worker processes.

    Args:
        x: The data.
        rows_of: Gives the rows of a step.
        steps: Number of steps; nothing is read beyond them.
    """

    def __init__(self, x: Rows, rows_of: Callable[[int], Tensor], steps: int) -> None:
        self._x, self._rows_of, self._last = x, rows_of, steps
        self._next, self._results = -1, iter(())

    def __call__(self, n: int) -> Tensor:
        """Data of step n; it is fast if step n − 1 was the latest one.

        Raises:
            ReadError: If they cannot be read, or a worker has died.
        """
        if n != self._next:
            self._results = self._started(n)
        self._next = n + 1
        try:
            x = next(self._results)
        except (OSError, ValueError) as error:
            raise ReadError(f"{self._x.name} cannot be read: {error}") from error
        if self._next >= self._last:  # end the workers
            self._next, self._results = -1, iter(())
        return x

    def _started(self, n: int) -> Iterator[Tensor]:
        numbers = range(n, max(n + 1, self._last))
        rows = (self._rows_of(m).numpy() for m in numbers)
        return in_order(self._x.read, rows, self._x.workers, self._x.name)


class Next:
    """Batches of which the next one is taken in a thread while the caller works with this one.

    Args:
        take: Takes the batch of a step.
        steps: Number of steps; nothing is taken beyond them.
    """

    def __init__(self, take: Callable[[int], Any], steps: int) -> None:
        self._take, self._steps = take, steps
        self._thread = ThreadPoolExecutor(1)  # one thread, so that batches are taken in order
        self._waiting: tuple[int, Future] | None = None

    def __call__(self, n: int) -> Any:
        """The batch of step n; it is there already if step n − 1 was the latest one."""
        if self._waiting is None or self._waiting[0] != n:
            self._begin(n)
        batch = self._waiting[1].result()
        self._waiting = None
        if n + 1 < self._steps:
            self._begin(n + 1)
        return batch

    def _begin(self, n: int) -> None:
        self._waiting = n, self._thread.submit(self._take, n)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A copy on a device; the host does not wait for it."""
    if device.type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def size_of(x: Tensor, y: Condition | None) -> int:
    """Bytes of data and conditions."""
    return x.nbytes + (0 if y is None else sum(leaf.nbytes for _, leaf in leaves(y)))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; 0 if this is not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
