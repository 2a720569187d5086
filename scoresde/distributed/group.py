"""`Group`: adding up tensors over all processes."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
from torch import Tensor, distributed

from .ranks import LOST_PEER, PeerError, Ranks

__all__ = ["Group"]

# Rank 0 may validate or draw samples meanwhile. That a process is dead is found out otherwise.
WAITING = timedelta(days=1)

MESSAGE = 2.0  # seconds in which the error of a process arrives that closed a connection
SPIN = 0.002  # seconds of asking without a pause
PAUSE = 0.0005


class Group:
    """The connections between all processes: NCCL between GPUs, otherwise Gloo.

    Args:
        ranks: At least two processes. All of them make their groups in the same order.
        device: Where the tensors are.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._watch = ranks.watch
        store = distributed.PrefixStore(f"group {ranks.turn()}", ranks.store)
        if device.type == "cuda" and distributed.is_nccl_available():
            options = distributed.ProcessGroupNCCL.Options()
            options._timeout = WAITING
            place = store, ranks.rank, ranks.size, options
            self._group = distributed.ProcessGroupNCCL(*place)
        else:
            self._group = distributed.ProcessGroupGloo(store, ranks.rank, ranks.size, WAITING)

    def add_up(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over all processes.

        On a GPU the host does not wait.

        Raises:
            PeerError: If another process has failed.
            RuntimeError: If the connection to another process is lost.
        """
        work = self._group.allreduce([tensor])
        if isinstance(self._group, distributed.ProcessGroupGloo):
            began = time.monotonic()
            while not work.is_completed():
                if self._watch.failure is not None:
                    raise PeerError(self._watch.failure)
                if time.monotonic() - began > SPIN:
                    time.sleep(PAUSE)
        try:
            work.wait()
        except RuntimeError as error:  # torch has no narrower error
            self._explain(error)

    def _explain(self, error: RuntimeError) -> None:
        """Raise the error of the process that closed its connections, if it has left one."""
        end = time.monotonic() + MESSAGE
        while (failure := self._watch.look()) is None and time.monotonic() < end:
            time.sleep(0.05)
        if failure is not None:
            raise PeerError(failure) from error
        raise RuntimeError(LOST_PEER) from error
