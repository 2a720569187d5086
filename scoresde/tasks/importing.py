"""`scoresde import` and `scoresde export`: models of other libraries, and for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._files import check_writable
from ..checkpoint import RawCheckpoint, in_memory, save_checkpoint
from ..interop.autoencoder_kl import (
    described_source,
    is_autoencoder_folder,
    read_autoencoder,
    write_autoencoder,
)
from ..interop.diffusers_export import write_folder
from ..names.autoencoders import autoencoder_content, holds_autoencoder, load_autoencoder
from ..names.sources import import_source
from ..shipped import locate
from .request import StoredModel

__all__ = ["export_model", "import_model"]


def import_model(source: Path, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model of another library as a checkpoint.

    Args:
        source: File or folder; that of an AutoencoderKL becomes an autoencoder's checkpoint.
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
    read = _autoencoder if _is_autoencoder(source) else import_source
    raw = read(source, **options)
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


def _is_autoencoder(source: Path) -> bool:
    """Whether a folder is one of an autoencoder alone, and not of a pipeline that has one."""
    return is_autoencoder_folder(source) and not (source / "model_index.json").is_file()


def _autoencoder(source: Path, **options: Any) -> RawCheckpoint:
    """An autoencoder of diffusers as the checkpoint that it becomes."""
    if options:
        raise ValueError(f"{next(iter(options))} is no option of an autoencoder, which has none")
    tensors, metadata = autoencoder_content(read_autoencoder(source))
    report, provenance = described_source(source)
    provenance = metadata["provenance"] | provenance
    return in_memory(source, tensors, metadata | {"provenance": provenance, "report": report})


def export_model(checkpoint: str, out: Path, layout: str = "diffusers") -> list[str]:
    """Write a checkpoint as a folder of another library.

    Args:
        checkpoint: File, name of a shipped checkpoint, or a model of another library. An
            autoencoder becomes the folder of an AutoencoderKL.
        out: The folder to make.
        layout: "diffusers".

    Returns:
        Lines of text: what was written, and what the format cannot say.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ValueError: If the folder exists, or the format cannot express the model.
        OSError: If the folder cannot be written.
    """
    if holds_autoencoder(path := locate("checkpoints", checkpoint)):
        return write_autoencoder(load_autoencoder(path), out)
    stored = StoredModel.read(checkpoint)
    stored.check_score("another library's samplers")
    kept = stored.raw.metadata.get("provenance", {}).get("scheduler")
    lines = write_folder(stored.build(), stored.spec, out, kept)
    if stored.of_latents:
        lines.append(f"{out} draws latents of shape {stored.spec.shape}: it has no autoencoder")
    return lines
