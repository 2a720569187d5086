"""What may be read from a file that nobody has checked, and how much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, NoReturn

from torch import Tensor

__all__ = ["Bounded", "Budget", "Refusal", "ended"]

_MOST_OPERATIONS = 1_000_000  # a checkpoint of 5000 tensors has about 300,000
_SHORT = 1 << 20  # bytes that may be read without a look at what is left


class Refusal(ValueError):
    """What is wrong with a file, as the end of a sentence."""


@dataclass
class Budget:
    """What may still be spent on one file.

    Attributes:
        memory: Bytes of tensors.
        operations: Opcodes.
        inside: Whether a file inside the file is being read.
    """

    memory: int
    operations: int = _MOST_OPERATIONS
    inside: bool = False

    def take_memory(self, size: int) -> None:
        """Pay for tensors of this many bytes.

        Raises:
            Refusal: If that is more than a file of this size can hold.
        """
        self.memory -= size
        if self.memory < 0:
            raise Refusal(
                f"{size:,} bytes of a tensor or text are more than a file of this size can hold"
            )

    def take_operations(self, count: int = 1) -> None:
        """Pay for opcodes, or for as much work.

        Raises:
            Refusal: If the file has too many.
        """
        self.operations -= count
        if self.operations < 0:
            raise Refusal(f"its pickle has more than {_MOST_OPERATIONS:,} operations")


class Bounded:
    """A file of which no read allocates more than is there, or more than `most` at once.

    Args:
        file: The file.
        size: Its number of bytes.
        most: Bytes of the largest read; None for no such limit.
    """

    def __init__(self, file: IO[bytes], size: int, most: int | None = None) -> None:
        self.file, self.size, self.most = file, size, most
        self.tell, self.seekable = file.tell, file.seekable

    def read(self, n: int = -1) -> bytes:
        """At most n bytes, all that are left if n is negative."""
        if 0 <= n <= _SHORT:
            return self.file.read(n)
        left = max(0, self.size - self.tell())
        n = left if n < 0 else min(n, left)
        if self.most is not None and n > self.most:
            raise Refusal(f"its table of contents has {n:,} bytes")
        return self.file.read(n)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place of the file."""
        if whence == os.SEEK_SET and offset < 0:
            raise Refusal("damaged: its table of contents points before its beginning")
        return self.file.seek(offset, whence)

    def readline(self) -> bytes:
        """A line, or the beginning of a very long one."""
        return self.file.readline(_SHORT)

    def fill(self, raw: Tensor) -> None:
        """Read into a tensor of bytes."""
        if self.file.readinto(raw.numpy()) != len(raw):
            ended()


def ended() -> NoReturn:
    """Refuse a file that is too short.

    Raises:
        Refusal: Always.
    """
    raise Refusal("it ends inside a tensor")
