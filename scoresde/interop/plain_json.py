"""JSON tables of other libraries, read with limits."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointError

__all__ = ["GIT_LFS", "check_regular", "read_table"]

GIT_LFS = b"version https://git-lfs"  # how a pointer of Git LFS begins

_MOST_BYTES = 1 << 26  # a table of a million β takes 20 MB


def check_regular(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        CheckpointError: If it is missing, a pointer of Git LFS, or no regular file. Opening a pipe
            would wait for ever.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError("is not a regular file", path)
        with open(path, "rb") as file:
            pointer = file.read(len(GIT_LFS)) == GIT_LFS
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    if pointer:
        raise CheckpointError("is a pointer of Git LFS; the file itself was not downloaded", path)
    return found.st_size


def read_table(path: Path, nested: bool = False) -> dict[str, Any]:
    """A JSON object with text as keys.

    Args:
        path: The file.
        nested: Whether its values may be objects, too.

    Raises:
        CheckpointError: If the file cannot be read, is too large, or holds something else.
    """
    size = check_regular(path)
    if size > _MOST_BYTES:
        raise CheckpointError(f"{size} bytes are too many for a config", path)
    try:
        table = json.loads(path.read_bytes(), parse_constant=str)  # NaN is no number
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise CheckpointError(f"is not valid JSON: {error}", path) from error
    if not isinstance(table, dict):
        raise CheckpointError(f"must hold a JSON object, got {type(table).__name__}", path)
    for key, value in table.items() if not nested else ():
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, dict) for entry in entries):
            raise CheckpointError(f"{key} must not hold an object", path)
    return table
