"""What long computations share: telling how far they are, and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

__all__ = ["OnProgress", "advise_on_memory", "out_of_memory"]

# Called with (how many are done, of how many or None if nobody knows, note).
OnProgress = Callable[[int, int | None, str], None]


@contextmanager
def advise_on_memory(batch: int, shape: Sequence[int], advice: str) -> Iterator[None]:
    """Turn running out of memory, of the CPU or a GPU, into an error that says what to try.

    Args:
        batch: Samples computed at a time.
        shape: Shape of one sample.
        advice: What to change, followed by the value to try: half the batch.

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
    """Whether an error says that the memory of the CPU or a GPU does not suffice."""
    # The CPU's allocator has no exception of its own; this is its text on Linux and Windows.
    texts = ("can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in texts
    )
