"""Long computations: reports of progress and of missing memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from .._files import existing_folder
from ..data.memory import free_bytes

__all__ = ["OnProgress", "Tell", "advise_on_memory", "check_space", "out_of_memory", "silent"]

# Called with (number done, total number or None if unknown, note).
OnProgress = Callable[[int, int | None, str], None]

# Called with the name of a stage, and what `OnProgress` is called with.
Tell = Callable[[str, int, int | None, str], None]


def silent(done: int, total: int | None, note: str) -> None:
    """An `OnProgress` that reports nothing."""


def check_space(
    option: str, n: int, numbers: int, folder: Path, arrays: int = 3, files: int = 1
) -> None:
    """Refuse work whose results do not fit into the free memory or on the disk.

    Args:
        option: The option that sets the number of data, for the message.
        n: Number of data.
        numbers: Numbers per datum, of 4 bytes each.
        folder: Folder for one array of all data; need not exist.
        arrays: Least number of such arrays in memory at the same time.
        files: Number of such arrays on the disk at the same time.

    Raises:
        ValueError: If memory or disk is too small; the message says how much is needed and free.
            Also if there is a file at the path of the folder.
    """
    array = 4 * n * numbers
    disk, memory = files * array, arrays * array
    free = shutil.disk_usage(existing_folder(folder)).free
    for needed, there, what in ((memory, free_bytes(), "memory"), (disk, free, "disk")):
        if there is not None and needed > there:
            raise ValueError(
                f"{option}: {n} of {numbers} numbers each need {needed / 1e9:.3g} GB of {what}, "
                f"and {there / 1e9:.3g} GB are free; ask for fewer"
                + (f", or for another folder than {folder}" if what == "disk" else "")
            )


@contextmanager
def advise_on_memory(batch: int, shape: Sequence[int], advice: str) -> Iterator[None]:
    """Replace an out-of-memory error, of CPU or GPU, by an error with advice.

    Args:
        batch: Samples computed at a time.
        shape: Shape of one sample.
        advice: The option to change; half the batch is proposed for it.

    Raises:
        RuntimeError: Instead of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        what = f"out of memory with a batch of {batch}, each of shape {tuple(shape)}"
        hint = f"try {advice} {batch // 2}" if batch > 1 else "it needs a machine with more"
        raise RuntimeError(f"{what}; {hint}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the CPU or a GPU is exhausted."""
    # The CPU's allocator has no special exception; this is its text on Linux and Windows.
    texts = ("can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in texts
    )
