"""JSON tables of other libraries, read with limits."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from .._file_kinds import HEAD, kind_of
from ..checkpoint import CheckpointError

__all__ = ["check_regular", "parsed", "read_table", "read_text"]

_MOST_BYTES = 24 << 20  # a million β take 20 MB; many empty lists need 20 times their bytes


def check_regular(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        CheckpointError: If it is missing, or no regular file. Opening a pipe would wait for ever.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError("is not a regular file", path)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    return found.st_size


def read_table(path: Path, nested: bool = False) -> dict[str, Any]:
    """A JSON object with text as keys.

    Args:
        path: The file.
        nested: Whether its values may be objects, too.

    Raises:
        CheckpointError: If the file cannot be read, is too large, or holds something else.
    """
    table = parsed(path, read_text(path))
    if not isinstance(table, dict):
        raise CheckpointError(f"must hold a JSON object, got {_NAMES[type(table)]}", path)
    for key, value in table.items() if not nested else ():
        entries = value if isinstance(value, list) else [value]
        if any(isinstance(entry, dict) for entry in entries):
            raise CheckpointError(f"{key} must not hold an object", path)
    return table


_NAMES = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
_NAMES[type(None)] = "null"


def read_text(path: Path, most: int = _MOST_BYTES) -> str:
    """The text of a file, which must be UTF-8.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        CheckpointError: If it cannot be read, is too large, or is no text.
    """
    size = check_regular(path)
    if size > most:
        raise CheckpointError(f"{size:,} bytes are too many, at most {most:,} are read", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    kind = kind_of(data[:HEAD])
    if kind not in (None, "JSON text"):
        raise CheckpointError(f"must be text with settings, and is {kind}", path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"must be text, but byte {error.start} is no UTF-8", path) from error


def parsed(path: Path, text: str) -> Any:
    """The value of a JSON text; NaN and infinity, which are no numbers of JSON, become text.

    Args:
        path: Where the text comes from, for messages.
        text: The text.

    Raises:
        CheckpointError: If it is no JSON, has a key twice, or is nested too deep.
    """

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):  # another program could take the other value
            twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
            raise CheckpointError(f"has the key {twice!r} twice", path)
        return made

    try:
        return json.loads(text, parse_constant=str, object_pairs_hook=table)
    except CheckpointError:
        raise
    except json.JSONDecodeError as error:
        raise CheckpointError(f"is not valid JSON: {error}", path) from error
    except RecursionError as error:
        raise CheckpointError("is JSON that is nested too deep", path) from error
    except ValueError as error:  # of int, for thousands of digits
        raise CheckpointError("is JSON with a number of too many digits", path) from error
