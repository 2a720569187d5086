"""Fingerprints of content: the SHA-256 of plain data, arrays and settings.

A result stores the fingerprints of its data, checkpoint and settings. It is used again only if
these still have the same fingerprints.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._rows import Rows

__all__ = ["ADDED", "difference", "file_fingerprint", "fingerprint", "parameters"]

# For a field that a dataclass got after results with its fingerprint were stored: an instance with
# the default value of the field keeps the fingerprint that it had without the field.
ADDED = {"added after results were stored": True}


def fingerprint(value: Any) -> str:
    """64 hexadecimal digits that are equal for equal content and differ for different content.

    Content includes the type and value of every number and text, the order of sequences, the dtype,
    shape and elements of arrays, and the class, fields and other attributes of dataclasses. It does
    not include the order of a mapping's keys, whether a sequence is a list or a tuple, whether an
    array is NumPy's or torch's, its device, its memory layout, or whether it is in memory. A field
    of a dataclass that was declared with `metadata=ADDED` is left out while it has its default
    value.

    Args:
        value: None, bool, int, float, str, bytes, a NumPy scalar, array or tensor, `Rows`, a torch
            dtype or device, a dataclass instance, or a mapping with text keys or a sequence of
            these.

    Raises:
        TypeError: If the value holds anything else, or a mapping has a key that is not text.
    """
    digest = hashlib.sha256()
    _add(digest, value)
    return digest.hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()
) -> str | None:
    """The first changed setting, in the order of the names, as text: `seed = 0, not 1`.

    Args:
        before: Settings of an existing result, as read from JSON.
        now: Settings of the new request; an absent setting counts as None.
        free: Names of settings that may differ.

    Returns:
        The change, or None if all other settings are equal.
    """
    for key in sorted((before.keys() | now.keys()) - set(free)):
        if before.get(key) != now.get(key):
            return f"{key} = {before.get(key)!r}, not {now.get(key)!r}"
    return None


def parameters(settings: Any) -> dict[str, Any]:
    """What an instance of a dataclass was made with: its fields and its other attributes by name.

    A subclass that is no dataclass itself keeps its parameters as attributes. Cached properties,
    which follow from the parameters, are left out.
    """
    found = {field.name: getattr(settings, field.name) for field in fields(settings)}
    kind = type(settings)
    own = {k: v for k, v in getattr(settings, "__dict__", {}).items() if k not in found}
    cached = (k for k in own if isinstance(getattr(kind, k, None), cached_property))
    return found | {k: own[k] for k in own.keys() - set(cached)}


def _without_additions(settings: Any) -> dict[str, Any]:
    """Its parameters, less those with `ADDED` that have their default value."""
    found = parameters(settings)
    added = (field for field in fields(settings) if field.metadata.keys() & ADDED.keys())
    at_default = {field.name for field in added if found[field.name] == field.default}
    return {name: value for name, value in found.items() if name not in at_default}


def _add(digest: Any, value: Any) -> None:
    """Add a value to the digest. A tag and a length before each piece keep pieces apart."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        _piece(digest, "constant", str(value).encode())
    elif isinstance(value, int):
        _piece(digest, "int", str(value).encode())
    elif isinstance(value, float):
        _piece(digest, "float", struct.pack("<d", value))
    elif isinstance(value, str):
        _piece(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        _piece(digest, "bytes", value)
    elif isinstance(value, (torch.dtype, torch.device)):
        _piece(digest, "torch", str(value).encode())
    elif isinstance(value, (np.ndarray, Tensor)):
        _add_array(digest, value)
    elif isinstance(value, Rows):
        _add_rows(digest, value)
    elif is_dataclass(value) and not isinstance(value, type):
        _piece(digest, "class", type(value).__qualname__.encode())
        _add(digest, _without_additions(value))
    elif isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a fingerprint needs keys that are text, got {list(value)!r}")
        _piece(digest, "mapping", str(len(value)).encode())
        for key in sorted(value):
            _add(digest, key)
            _add(digest, value[key])
    elif isinstance(value, Sequence):
        _piece(digest, "sequence", str(len(value)).encode())
        for item in value:
            _add(digest, item)
    else:
        raise TypeError(f"a {type(value).__name__} has no fingerprint")


def _add_array(digest: Any, value: np.ndarray | Tensor) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:  # NumPy has no such dtype
            _piece(digest, "torch", b"bfloat16")
            value = value.view(torch.int16)
        value = value.numpy()
    if value.dtype.hasobject:
        raise TypeError("an array of objects has no fingerprint")
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    _piece(digest, "array", little.dtype.str.encode())
    _add(digest, list(value.shape))
    data = memoryview(little.reshape(-1).view(np.uint8))
    _piece(digest, "elements", data)


def _add_rows(digest: Any, value: Rows) -> None:
    """Add what `_add_array` adds for the same data in memory."""
    kind = torch.empty(0, dtype=value.dtype).numpy().dtype.newbyteorder("<")
    _piece(digest, "array", kind.str.encode())
    _add(digest, list(value.shape))
    digest.update(f"elements {value.numel() * kind.itemsize} ".encode())
    for block in value.blocks():
        little = np.ascontiguousarray(block.numpy(), dtype=kind)
        digest.update(memoryview(little.reshape(-1).view(np.uint8)))


def _piece(digest: Any, tag: str, data: bytes | memoryview) -> None:
    digest.update(f"{tag} {len(data)} ".encode())
    digest.update(data)
