"""A limit on the time of code that may never end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["TooLong", "at_most"]


class TooLong(BaseException):
    """Raised by the clock. No `except Exception` of a sampler can keep it."""


@contextmanager
def at_most(seconds: float | None) -> Iterator[None]:
    """Raise `TooLong` in this block after some seconds.

    Args:
        seconds: The limit, above 0; None = no limit.

    Raises:
        ValueError: If the limit is not above 0, or this is not the main thread of a system with
            `signal.setitimer`, where alone a clock can interrupt Python.
    """
    if seconds is None:
        yield
        return
    if not seconds > 0:
        raise ValueError(f"limit must be above 0 seconds, got {seconds}")
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        raise ValueError("limit must be None outside the main thread, and on Windows")

    def stop(*unused: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
