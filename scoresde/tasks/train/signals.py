"""Signals that stop a process, held back while a training step is computed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signals_held"]

_STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """Hold back SIGINT, SIGTERM and SIGHUP inside the block, and raise them after it.

    Yields:
        The numbers of the signals that have arrived so far.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield arrived
        return
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    # None is a handler that was not set from Python and could not be set again. An ignored signal
    # (`nohup` ignores SIGHUP) stays ignored.
    handlers = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield arrived
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        # Even after an error: a signal for all processes also ends those that read the data.
        for number in arrived:
            signal.raise_signal(number)
