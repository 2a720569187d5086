"""`Ranks`: what one of several processes knows about the others, and what it can ask them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch.distributed import Store

from .._text import reason_of
from .watch import Watch

__all__ = ["PeerError", "Ranks"]

STOPPED = "stopped by a signal"
LOST_PEER = "the connection to another process is lost"
PAUSE = 0.02  # seconds between two questions to the store
FAREWELL = 5.0  # seconds to wait for the other processes after a failure

Item = TypeVar("Item")


class PeerError(RuntimeError):
    """Another process has failed; the message names its rank and holds its error."""


@dataclass(frozen=True)
class Ranks:
    """The processes that run one command together. Without arguments: this process alone.

    All processes call `gather` and `agree` in the same order. There is no limit of time for the
    others to come, because their work may take days. If one fails or dies, the others learn it
    within a minute: they are interrupted wherever they are, and `stopping_together` raises
    `PeerError`.

    Attributes:
        rank: Number of this process, 0 … size − 1. Rank 0 writes the results.
        size: Number of processes.
        local_rank: Number of this process among those on its machine; the number of its GPU.
        store: The keys and values that all processes share; None for one process. A process group
            of torch.distributed can be made from it.
        watch: Notices that another process has failed; None for one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Store | None = None
    watch: Watch | None = None
    _turns: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @property
    def writes(self) -> bool:
        """Whether this process writes the results, and talks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this process: every size-th, beginning with the rank-th."""
        return items[self.rank :: self.size]

    def handed_out(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items that this process gets: whoever is free takes the next one.

        All processes call this in the same order and with the same items. Which of them gets an
        item is left to chance, so that nothing may depend on it.
        """
        if self.store is None:
            yield from items
            return
        key = f"handed out {self.turn()}"
        while (place := self.store.add(key, 1) - 1) < len(items):
            yield items[place]

    def turn(self) -> int:
        """A number that is the same on all processes, if they call this in the same order."""
        return next(self._turns)

    def gather(self, value: Any = None) -> list[Any]:
        """Wait for all processes, and give each the values of all.

        Args:
            value: Plain data of this process.

        Returns:
            The values in the order of the ranks.

        Raises:
            PeerError: If another process has failed.
        """
        if self.store is None:
            return [value]
        turn = self.turn()
        keys = [f"turn {turn}/{rank}" for rank in range(self.size)]
        self.store.set(keys[self.rank], json.dumps(value))
        while not self._all_there(keys):
            time.sleep(PAUSE)
        return [json.loads(self.store.get(key)) for key in keys]

    def agree(self, values: Mapping[str, Any]) -> None:
        """Check that all processes were started with the same settings.

        Args:
            values: What must be equal, plain data by name.

        Raises:
            ValueError: If a value differs between two processes; the message names it.
        """
        first, *others = self.gather(dict(values))
        for rank, other in enumerate(others, start=1):
            for name in {**first, **other}:
                one, two = first.get(name), other.get(name)
                if one != two:
                    raise ValueError(
                        f"the processes were started differently: {name} is {one!r} on rank 0 and "
                        f"{two!r} on rank {rank}"
                    )

    @contextmanager
    def stopping_together(self) -> Iterator[None]:
        """If this process fails in the block, or another one anywhere, all stop their work.

        The block is left when the others have stopped, so that what comes after it may remove
        files that they would write.

        Raises:
            PeerError: If another process has failed first.
        """
        try:
            yield
        except BaseException as error:
            if self.watch is None:
                raise
            if isinstance(error, PeerError):
                self.watch.leave(FAREWELL)
                raise
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            own = f"rank {self.rank}: {STOPPED if stopped else reason_of(error)}"
            first = self.watch.report(own)
            silent = self.watch.leave(FAREWELL)
            # torchrun stops all by a signal if one process was killed.
            if silent and first.endswith((STOPPED, LOST_PEER)):
                raise PeerError(
                    f"rank {silent[0]} is gone without a message: it was killed, perhaps because "
                    "memory ran out; the same command continues"
                ) from error
            if first == own:
                raise
            raise PeerError(first) from error

    def _all_there(self, keys: list[str]) -> bool:
        """Whether all keys are in the store; raise PeerError if they will never be."""
        failure = self.watch.look()
        if failure is not None:
            raise PeerError(failure)
        return self.store.check(keys)
