"""What a reader of another library's files returns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import DataSpec
from ..score import NetworkScore

__all__ = ["Imported", "file_record"]


@dataclass(frozen=True)
class Imported:
    """A model of another library, and what was read.

    Attributes:
        model: The network, its SDE and its preconditioning, on the CPU in float32.
        data: Shape, scale, levels and classes of its data.
        report: Lines of text: each key of the source's config, and what became of it.
        provenance: Plain data: the format, the version of the library, the files with their
            SHA-256, the licence, and which averaged weights were taken.
    """

    model: NetworkScore
    data: DataSpec
    report: tuple[str, ...]
    provenance: Mapping[str, Any]


def file_record(path: Path, name: str | None = None) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file, for `Imported.provenance["files"]`.

    Args:
        path: The file.
        name: The name to record; None for the file's own name.

    Raises:
        OSError: If the file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return {"name": name or path.name, "bytes": size, "sha256": digest.hexdigest()}
