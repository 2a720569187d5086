"""A check that data fit into memory, before memory is taken."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_memory", "fits_comfortably", "free_bytes", "megabytes"]

_COMFORTABLE = 1 << 29  # bytes of data that are held in memory if four times as many are free


def check_memory(source: str | Path, size: int) -> None:
    """Raise unless `size` bytes fit into the memory that is free now.

    Only Linux reports the free memory; on other systems nothing is checked.

    Args:
        source: Name of the data in the message.
        size: Number of bytes that will be taken.

    Raises:
        ValueError: If they do not fit.
    """
    free = free_bytes()
    if free is not None and size > free:
        raise ValueError(
            f"{source} needs {megabytes(size)} of memory, and {megabytes(free)} are free"
        )


def fits_comfortably(size: int) -> bool:
    """Whether `size` bytes of data should be held in memory rather than read when needed."""
    free = free_bytes()
    return size <= _COMFORTABLE and (free is None or 4 * size <= free)


def megabytes(size: int) -> str:
    """A number of bytes as text: `12.3 MB`."""
    return f"{size / 1e6:,.1f} MB"


def free_bytes() -> int | None:
    """Linux's estimate of the bytes that can be used without swapping; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
