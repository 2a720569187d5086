"""`processes`: joining the other processes of a command that torchrun has started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from .._torchrun import Place
from .ranks import FAREWELL, Ranks
from .watch import Watch

__all__ = ["processes"]

START = 120  # seconds that the processes have for finding one another


@contextmanager
def processes(device: str = "cpu") -> Iterator[Ranks]:
    """Join the other processes of this command for the length of a block.

    `torchrun --nproc-per-node 2 --no-python scoresde …` starts two processes, and tells them by
    environment variables of one another. On a GPU each process takes the one of its local rank, and
    `cuda` is this GPU from then on. Without these variables nothing is joined.

    Args:
        device: Where the command runs; for several GPUs on one machine it must be "cuda".

    Yields:
        The processes. The block must end on all of them, or all fail.

    Raises:
        ValueError: If a variable is not as torchrun sets it, or if there are fewer GPUs than
            processes on this machine.
        RuntimeError: If the processes do not find one another.
        PeerError: If another process fails while the block runs.
    """
    place = Place.read(os.environ)
    if place is None:
        yield Ranks()
        return
    _take_gpu(device, place)
    store = _join(place)
    watch = Watch(store, place.rank, place.size)
    ranks = Ranks(place.rank, place.size, place.local_rank, store, watch)
    with _ended_by_sigterm():
        watch.start()
        try:
            with ranks.stopping_together():
                yield ranks
                ranks.gather()
        finally:
            watch.leave(FAREWELL)


def _take_gpu(device: str, place: Place) -> None:
    """Make the GPU of this process the current one, or refuse if there is none for it."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and place.local_size == 1):
        return
    if number:
        raise ValueError(
            f"--device: {device}, but each of the {place.local_size} processes on this machine "
            "takes a GPU of its own; give cuda"
        )
    count = torch.cuda.device_count()
    if place.local_size > count:
        raise ValueError(
            f"--device: {device}, but torchrun started {place.local_size} processes on this "
            f"machine, which has {count} GPUs; give --nproc-per-node {count}, or --device cpu"
        )
    torch.cuda.set_device(place.local_rank)


def _join(place: Place) -> distributed.Store:
    """The store that all processes share."""
    waiting = timedelta(seconds=START)
    try:
        store, *_ = next(iter(distributed.rendezvous("env://", timeout=waiting)))
        store.set_timeout(waiting)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"rank {place.rank} of {place.size} does not reach the others at {where}: {reason}"
        ) from error
    return distributed.PrefixStore("scoresde", store)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit for the length of the block, so that files are cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
