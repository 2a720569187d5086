"""The header of a checkpoint file: reads the metadata and their checksum, and names other files."""

from __future__ import annotations

import json
import os
import re
from typing import Any, BinaryIO

from ._file_kinds import HEAD, kind_of
from ._text import reason_of

__all__ = ["FORMAT_VERSION", "KEY", "canonical", "read_envelope"]

FORMAT_VERSION = 1
KEY = "scoresde"  # name of our entry in the safetensors metadata

_LENGTH_BYTES = 8  # the file begins with the header's length, little-endian
_LONGEST_HEADER = 24 << 20  # bytes; JSON of many small objects takes 25 times as much memory


def canonical(value: Any) -> str:
    """JSON text that is equal for equal plain data."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_envelope(file: BinaryIO) -> dict[str, Any]:
    """Our own entry of the header, checked for version and form.

    Args:
        file: A file at its beginning.

    Raises:
        ValueError: If it is not a file of ours, damaged, or of another version; the message says
            which.
    """
    header = _header(file)
    entries = header.get("__metadata__") if isinstance(header, dict) else None
    text = entries.get(KEY) if isinstance(entries, dict) else None
    if not isinstance(text, str):
        raise ValueError("not a scoresde checkpoint: safetensors without scoresde metadata")
    try:
        envelope = json.loads(text)
        # If one value had two spellings (an escape in capitals), a flipped bit could pass.
        sound = canonical(envelope) == text and isinstance(envelope["metadata"], dict)
        version, _ = envelope["format"], envelope["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("damaged: its scoresde metadata cannot be parsed") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(
            f"written in format version {version} by a newer scoresde; this one reads "
            f"{FORMAT_VERSION}, please upgrade"
        )
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(f"format version {version!r} cannot be read, only {FORMAT_VERSION}")
    if not sound:
        raise ValueError("damaged: its scoresde metadata are not canonical")
    return envelope


def _header(file: BinaryIO) -> Any:
    """The safetensors header: its length in 8 bytes, then JSON."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(HEAD)
    if not start:
        raise ValueError("empty file")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise ValueError(f"not a scoresde checkpoint: {_looks_like(start)}")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > size - _LENGTH_BYTES:  # a flipped bit could ask for exabytes
        raise ValueError(f"damaged or truncated: {size} bytes, header of {length} bytes")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header of {length:,} bytes is longer than that of any checkpoint")
    file.seek(_LENGTH_BYTES)
    try:
        return json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged: header is not JSON, {reason_of(error)}") from error


def _looks_like(start: bytes) -> str:
    if (kind := kind_of(start)) is not None:
        return f"looks like {kind}"
    # torch.save writes a zip, too; an older or bare pickle begins with \x80 and a protocol number.
    if re.match(rb"PK\x03\x04|\x80[\x01-\x05]", start):
        return "looks like a PyTorch pickle, which can run code; it was not opened"
    if len(start) <= _LENGTH_BYTES:
        return f"only {len(start)} bytes, perhaps truncated"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in start):
        return "looks like text"
    return "not a safetensors file"
