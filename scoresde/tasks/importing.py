"""`scoresde import` and `scoresde export`: models of other libraries, and for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import check_writable
from ..checkpoint import save_checkpoint
from ..interop.diffusers_export import write_folder
from ..names.sources import import_source
from .request import StoredModel

__all__ = ["export_model", "import_model"]


def import_model(source: Path, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model of another library as a checkpoint.

    Args:
        source: File or folder.
        out: The file to write.
        options: Those of the format's reader.

    Returns:
        Plain data: the format, number of weights, digest, files, and the report, a list of lines.

    Raises:
        CheckpointError: If the source cannot be read; nothing is written.
        ValueError: If the file exists.
        OSError: If the file cannot be written.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; give a file that does not exist")
    check_writable(out.parent)
    raw = import_source(source, **options)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, raw.tensors, raw.metadata)
    about = raw.metadata["provenance"]
    return {
        "out": str(out),
        "format": about["format"],
        "weights": sum(tensor.numel() for tensor in raw.tensors.values()),
        "sha256": raw.sha256,
        "files": about["files"],
        "report": raw.metadata["report"],
    }


def export_model(checkpoint: str, out: Path, layout: str = "diffusers") -> list[str]:
    """Write a checkpoint as a folder of another library.

    Args:
        checkpoint: File, name of a shipped checkpoint, or a model of another library.
        out: The folder to make.
        layout: "diffusers".

    Returns:
        Lines of text: what was written, and what the format cannot say.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ValueError: If the folder exists, or the format cannot express the model.
        OSError: If the folder cannot be written.
    """
    stored = StoredModel.read(checkpoint)
    stored.check_score("another library's samplers")
    kept = stored.raw.metadata.get("provenance", {}).get("scheduler")
    return write_folder(stored.build(), stored.spec, out, kept)
