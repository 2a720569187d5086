"""Calls of a function in worker processes, with the results in the order of the arguments."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ._text import reason_of

__all__ = ["ReadError", "in_order"]


class ReadError(RuntimeError):
    """Data could not be read, or a process that read them has died."""


def in_order(
    function: Callable[[Any], Any], arguments: Iterable[Any], workers: int, what: str
) -> Iterator[Any]:
    """The results of function(argument) for each argument, in the order of the arguments.

    Worker processes compute up to two results each ahead of the caller. The results do not depend
    on their number. The workers end when the iterator is exhausted, closed or no longer used, and
    within a few seconds of the death of this process, however it dies.

    Args:
        function: Draws no random numbers; returns a tensor or what can be pickled.
        arguments: Read lazily, in this process.
        workers: Number of processes; 0 computes each result here when it is asked for.
        what: What is read, for messages.

    Raises:
        ReadError: If the function raises another error than a ValueError, or a worker dies, which
            is noticed within 10 seconds.
        ValueError: If the function raises one.
    """
    call = _Call(function, what)
    results = (
        map(call.__getitem__, arguments) if workers == 0 else _loaded(call, arguments, workers)
    )
    while True:
        try:
            value, error = next(results)
        except StopIteration:
            return
        except RuntimeError as died:  # DataLoader's message names the process
            raise ReadError(f"a process that reads {what} has died: {reason_of(died)}") from died
        if isinstance(error, Exception):
            raise error
        yield value.tensor if isinstance(value, _Array) else value


class _Array:
    """A tensor on its way through a pipe; torch would send it through shared memory.

    In containers the shared memory is often too small for that.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.array = tensor.numpy()

    @property
    def tensor(self) -> Tensor:
        return torch.from_numpy(self.array)


class _Call:
    """A function as DataLoader wants it: item i is (f(i), None), or (None, the error).

    The error is made anew, because not every exception can be sent to another process.
    """

    def __init__(self, function: Callable[[Any], Any], what: str) -> None:
        self.function, self.what = function, what

    def __getitem__(self, argument: Any) -> tuple[Any, Exception | None]:
        try:
            return self.function(argument), None
        except ValueError as error:
            return None, ValueError(reason_of(error))
        except Exception as error:
            return None, ReadError(f"{self.what} cannot be read: {reason_of(error)}")


def _packed(result: tuple[Any, Exception | None]) -> tuple[Any, Exception | None]:
    value, error = result
    return (_Array(value) if isinstance(value, Tensor) else value), error


def _loaded(call: _Call, arguments: Iterable[Any], workers: int) -> Iterator[Any]:
    with warnings.catch_warnings(), _same_sigchld():
        warnings.simplefilter("ignore")  # of more workers than processors
        loader = DataLoader(
            call,
            batch_size=None,
            sampler=arguments,
            num_workers=workers,
            collate_fn=_packed,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # else DataLoader draws from the global one
        )
        return iter(loader)


def _ignore_signals(worker: int) -> None:
    """A terminal sends Ctrl-C and its closing to all processes; the main one ends the workers."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def _same_sigchld() -> Iterator[None]:
    """Undo DataLoader's handler of SIGCHLD, which raises in the middle of any line of the caller.

    An optimizer step could be interrupted by it. Without it, a death is found by the next read.
    """
    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)
