"""Reading a checkpoint: ours, or a model of another library as if it were ours."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import CheckpointError, RawCheckpoint, in_memory, read_checkpoint
from ..interop import FORMATS
from ..interop.other_models import what_it_is
from ..shipped import locate
from .saving import content_of

__all__ = ["foreign_format", "import_source", "read_source"]


def foreign_format(path: Path) -> str | None:
    """The name of the format of another library that a path has, or None."""
    return next((name for name, module in FORMATS.items() if module.recognizes(path)), None)


def read_source(name_or_path: str | Path) -> RawCheckpoint:
    """The content of a checkpoint, or of a model of another library.

    Args:
        name_or_path: A name of `shipped("checkpoints")`, or a path.

    Raises:
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
        CheckpointError: If it is missing, damaged, or of no known format.
    """
    path = locate("checkpoints", name_or_path)
    if foreign_format(path) is not None:
        return import_source(path)
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        if not path.exists() or (other := what_it_is(path)) is None:
            raise
        raise CheckpointError(f"is {other}", path) from error


@torch.inference_mode(False)  # inference tensors could not become parameters
def import_source(path: str | Path, **options: Any) -> RawCheckpoint:
    """A model of another library as the checkpoint that it becomes; no file is written.

    Its metadata hold, in "provenance", the files with their SHA-256, and in "report" each key of
    the source's config and what became of it.

    Args:
        path: File or folder.
        options: Those of the format's reader.

    Raises:
        ValueError: If the reader has no such option.
        CheckpointError: If the path is of no known format, or the reader refuses it.
    """
    path = Path(path)
    name = foreign_format(path)
    if name is None:
        raise CheckpointError(_unknown(path), path)
    known = list(inspect.signature(FORMATS[name].read).parameters)[1:]
    for option in options:
        if option not in known:
            raise ValueError(f"{option} is no option of {name}; its options are {', '.join(known)}")
    made = FORMATS[name].read(path, **options)
    tensors, metadata = content_of(made.model, made.data, made.provenance)
    return in_memory(path, tensors, metadata | {"report": list(made.report)})


def _unknown(path: Path) -> str:
    """Why a path is not imported."""
    known = f"(formats that can be imported: {', '.join(FORMATS)})"
    if (other := what_it_is(path)) is not None:
        return f"is {other} {known}"
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        return f"{error.reason} {known}"
    return "is a checkpoint of scoresde already, and needs no import"
