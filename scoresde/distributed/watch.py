"""A thread that notices when another process has failed or has disappeared."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from torch.distributed import Store

__all__ = ["Watch"]

FAILURE, BEAT, LEFT = "failure", "beat", "left"  # keys of the store

PERIOD = 0.5  # seconds between two looks
SILENCE = 40.0  # seconds without a beat after which a process is taken for dead
LOST = "rank 0: the connection to it is lost"
UNWIND = 15.0  # seconds that the main thread has for ending by itself


class Watch:
    """Tells this process, in the middle of its work, that another one has failed.

    Every process counts up a number in the store. Rank 0 looks at the numbers of all others, and
    they look at that of rank 0. Whoever sees a number that stays, or a message of failure, ends its
    own main thread by a SIGTERM. A main thread that does not end is ended with its process.

    Attributes:
        failure: What happened to another process, in words; None as long as nothing is known.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.failure: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def report(self, message: str) -> str:
        """Tell all processes that this one has failed.

        Returns:
            The message of the process that failed first.
        """
        if self.look() is None:
            with suppress(RuntimeError):
                self.store.compare_set(FAILURE, "", message)
            self.look()
        return self.failure or message

    def leave(self, limit: float) -> list[int]:
        """Say once that this process has stopped its work, and wait until all others have.

        Args:
            limit: Seconds after which it waits no longer, because a process may be dead.

        Returns:
            The ranks that have not answered.
        """
        if self._ended.is_set():
            return []
        self._ended.set()
        silent, end = list(range(self.size)), time.monotonic() + limit
        with suppress(RuntimeError):  # the store is gone
            self.store.set(f"{LEFT}/{self.rank}", "")
            while silent and time.monotonic() < end:
                time.sleep(0.02)
                silent = [rank for rank in silent if not self.store.check([f"{LEFT}/{rank}"])]
        return silent

    def look(self) -> str | None:
        """What happened to another process, asked now."""
        if self.failure is None:
            try:
                if self.store.check([FAILURE]):
                    self.failure = self.store.get(FAILURE).decode()
            except RuntimeError:  # torch has no narrower error
                self.failure = LOST
        return self.failure

    def _run(self) -> None:
        others = range(1, self.size) if self.rank == 0 else [0]
        seen = {other: (-1, time.monotonic()) for other in others}
        while not self._ended.wait(PERIOD):
            try:
                self.store.add(f"{BEAT}/{self.rank}", 1)
                self._look_at(seen)
            except RuntimeError:
                self.failure = self.failure or LOST
            if self.look() is not None:
                self._interrupt()
                return

    def _look_at(self, seen: dict[int, tuple[int, float]]) -> None:
        """Report a process whose number has not changed for too long."""
        now = time.monotonic()
        for other, (beat, since) in seen.items():
            found = self.store.add(f"{BEAT}/{other}", 0)
            if found != beat:
                seen[other] = found, now
            elif now - since > SILENCE:
                self.report(
                    f"rank {other}: no sign of life for {SILENCE:.0f} s; it was killed, or its "
                    "machine is lost"
                )

    def _interrupt(self) -> None:
        """End the main thread, or after a while the whole process."""
        if self._ended.is_set():
            return
        _thread.interrupt_main(signal.SIGTERM)
        if not self._ended.wait(UNWIND):
            print(f"error: {self.failure}", file=sys.stderr, flush=True)
            os._exit(1)
