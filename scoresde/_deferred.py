"""Checks of computed numbers that do not make the host wait for an accelerator.

On the CPU a number is read at once: `x.sum().item()` costs about a microsecond. On an accelerator
the host must wait until everything before the number has been computed, and the accelerator then
has nothing to do until the host has sent new work. So in a `checked_at_end` block a check of a
tensor on an accelerator is only computed there, and stays there. The numbers of all checks are read
together at the end of the block, and after every `EVERY` checks. The error is that of the first
check that failed, as it would be without a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._tensor import finite_or_raise, not_finite

__all__ = ["EVERY", "check_finite", "checked_at_end", "on_accelerator", "refuse", "unchecked"]

# Checks between two readings. After each reading the accelerator waits for the host, about 50 µs.
# An evaluation takes milliseconds, so that one reading in 64 costs less than 0.1 %. A run that goes
# wrong ends at most 64 checks later than on the CPU.
EVERY = 64


@dataclass
class _Waiting:
    """The checks of one block that have not been read, in the order in which they were made.

    Attributes:
        counts: For each check how many entries are wrong, tensors of shape () on one device.
        errors: For each check what makes its error from this number.
    """

    counts: list[Tensor] = field(default_factory=list)
    errors: list[Callable[[int], Exception]] = field(default_factory=list)

    def add(self, count: Tensor, error: Callable[[int], Exception]) -> None:
        """Keep a check, and read all if there are `EVERY` of them."""
        self.counts.append(count)
        self.errors.append(error)
        if len(self.counts) >= EVERY:
            self.read()

    def read(self) -> None:
        """Raise the error of the first check that failed; afterwards nothing waits."""
        counts, errors = self.counts, self.errors
        self.counts, self.errors = [], []
        for n, error in zip(torch.stack(counts).tolist() if counts else [], errors, strict=True):
            if n:
                raise error(n)


_BLOCK: ContextVar[_Waiting | None] = ContextVar("block", default=None)


@contextmanager
def checked_at_end() -> Iterator[None]:
    """A block that ends with the reading of its checks, before anything is returned or written.

    If the block ends by an exception, an earlier check that failed is raised instead: NaN in the
    state may be why a solver gave up.
    """
    block = _Waiting()
    token = _BLOCK.set(block)
    try:
        yield
    except Exception:
        block.read()
        raise
    finally:
        _BLOCK.reset(token)
    block.read()


class _Dropped(_Waiting):
    """The checks of a block that makes none on an accelerator."""

    def add(self, count: Tensor, error: Callable[[int], Exception]) -> None:
        """Forget a check."""


@contextmanager
def unchecked() -> Iterator[None]:
    """A block without these checks on an accelerator: its caller looks at the result itself."""
    token = _BLOCK.set(_Dropped())
    try:
        yield
    finally:
        _BLOCK.reset(token)


def on_accelerator(x: Tensor) -> bool:
    """Whether the host must wait for a device to read numbers of x."""
    return x.device.type != "cpu"


def refuse(bad: Tensor, error: Callable[[int], Exception]) -> None:
    """Raise the error if an entry of `bad` is true, at once or when the block is read.

    Args:
        bad: Any bool tensor.
        error: Makes the error from the number of true entries.
    """
    block = _BLOCK.get() if on_accelerator(bad) else None
    if block is not None:
        block.add(bad.sum(), error)
    elif n := int(bad.sum()):
        raise error(n)


def check_finite(x: Tensor, what: Callable[[], str]) -> None:
    """Raise if x holds NaN or infinity, at once or when the block is read.

    Args:
        x: Any floating tensor.
        what: Returns subject and place for the message, for example `network output at t=0.412`;
            called only if there is an error. It should hold no large tensor.

    Raises:
        NonFiniteError: The message says how many values are not finite, and where.
    """
    block = _BLOCK.get() if on_accelerator(x) else None
    if block is None:
        finite_or_raise(x, what)
        return
    x, size = x.detach(), x.numel()
    # x − x is 0 for a finite number, and NaN for infinity and NaN.
    block.add(torch.count_nonzero(x - x), lambda bad: not_finite(what(), bad, size))
