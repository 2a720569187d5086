"""Finished parts of a computation, in files.

A part holds arrays, plain data, the fingerprint of everything that determines them, and a digest
of the content. It is used again only for the same fingerprint, and a damaged part is made again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..fingerprint import fingerprint
from .files import read_arrays, save_arrays

__all__ = ["Part", "load_part", "save_part"]

MADE_FROM, ABOUT, DIGEST = "made_from", "about", "digest"


class Part(NamedTuple):
    """The content of a part: arrays by name, and plain data."""

    arrays: dict[str, np.ndarray]
    about: Any


def save_part(
    path: Path,
    made_from: str,
    arrays: Mapping[str, np.ndarray],
    about: Any = None,
    compress: bool = True,
) -> Part:
    """Write a part atomically; the same content gives the same bytes.

    Args:
        path: The .npz file; its folder is made if it does not exist.
        made_from: Fingerprint of everything that determines the content.
        arrays: Arrays by name.
        about: Plain data, without NaN and infinities.
        compress: Whether the file is compressed; noise hardly gets smaller by it.

    Returns:
        The part as `load_part` returns it.
    """
    text = json.dumps(about, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    marks = {MADE_FROM: made_from, ABOUT: text, DIGEST: _digest(made_from, text, arrays)}
    content = {**arrays, **{name: np.array(mark) for name, mark in marks.items()}}
    save_arrays(path, compress, **content)
    return Part(dict(arrays), json.loads(text))


def load_part(path: Path, made_from: str | None = None) -> Part | None:
    """Read a part; None if there is no part of this fingerprint, or if it is damaged.

    Args:
        path: The .npz file.
        made_from: Fingerprint that the part must have; None accepts any.

    Warns:
        UserWarning: If the part is damaged.

    Raises:
        OSError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    # On damaged bytes zipfile, zlib, NumPy and json raise errors of many kinds.
    try:
        arrays = read_arrays(content)
        found, text, digest = (str(arrays.pop(name)) for name in (MADE_FROM, ABOUT, DIGEST))
        about = json.loads(text)
        whole = digest == _digest(found, text, arrays)
    except Exception:
        whole = False
    if not whole:
        warnings.warn(f"{path} is damaged; it is made again", stacklevel=2)
        return None
    return Part(arrays, about) if made_from in (None, found) else None


def _digest(made_from: str, about: str, arrays: Mapping[str, np.ndarray]) -> str:
    return fingerprint({MADE_FROM: made_from, ABOUT: about, "arrays": arrays})
