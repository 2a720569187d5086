"""A checkpoint with corrected metadata, for `scoresde doctor --fix`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ...checkpoint import RawCheckpoint, save_checkpoint
from ...names.kinds import sde_table
from ...score import Preconditioning
from .alternatives import SINE
from .data_map import DataMap
from .reading import Meaning, Reading
from .search import Search

__all__ = ["check_target", "corrected", "stored_weights", "unstated", "write_correction"]

TRAINING = "train.net."  # prefix of the weights of the training in the checkpoint of a run


def check_target(source: Path, target: Path) -> None:
    """Raise unless the corrected checkpoint can be written to a new file.

    Raises:
        ValueError: If the file exists, or its folder does not.
    """
    if target.exists():
        same = "is the checkpoint itself" if target.samefile(source) else "exists already"
        raise ValueError(f"--fix: {target} {same}; name a new file")
    if not target.parent.is_dir():
        raise ValueError(f"--fix: {target.parent} is no folder")


def stored_weights(raw: RawCheckpoint) -> dict[str, dict[str, Tensor]]:
    """The sets of weights in a file other than those that are loaded, by name."""
    found = {"of the training": raw.below(TRAINING)}
    return {name: tensors for name, tensors in found.items() if tensors}


def unstated(reading: Reading) -> str | None:
    """What of a reading no metadata can say, in words; None if they can say all."""
    meaning, data = reading.meaning, reading.data
    causes = {
        "another factor of the output": meaning.gain != 1,
        "a velocity ε − x0": meaning.velocity,
        "a reversed label": meaning.reversed,
        "a scaled σ": reading.noise != 1,
        "another order of channels or axes": bool(data.orders),
        "exchanged black and white": data.scale < 0,
        "another order of sine and cosine": reading.weights == SINE,
        "other class labels": reading.classes != 0,
    }
    return next((cause for cause, holds in causes.items() if holds), None)


def corrected(raw: RawCheckpoint, claim: Reading, found: Reading) -> dict[str, Any]:
    """The metadata of a checkpoint, with what the search found.

    Raises:
        ValueError: If the correction is one that metadata cannot say.
    """
    cause = unstated(found)
    if cause is not None:
        raise ValueError(f"--fix: no metadata of a checkpoint say {cause}; see what to do above")
    metadata = {k: v for k, v in raw.metadata.items() if k != "pending"}
    config = dict(metadata["config"])
    if found.meaning != claim.meaning:
        config["preconditioning"] = _stated(found.meaning)
    if found.sde != claim.sde:
        config["sde"] = sde_table(found.sde)
        metadata.pop("sde_values", None)
    metadata["config"] = config
    if found.data != DataMap():
        metadata["data"] = _mapped(metadata["data"], found.data)
    provenance = dict(metadata.get("provenance", {}))
    metadata["provenance"] = provenance | {"corrected from": raw.sha256}
    return metadata


def write_correction(
    raw: RawCheckpoint, target: Path, claim: Reading, search: Search
) -> dict[str, Any]:
    """Write a corrected copy of a checkpoint, without what only resuming needs.

    Raises:
        ValueError: If the correction is one that metadata cannot say.
    """
    metadata = corrected(raw, claim, search.reading)
    prefix = TRAINING if search.reading.weights else "model."
    tensors = {f"model.{name}": value for name, value in raw.below(prefix).items()}
    save_checkpoint(target, tensors, metadata)
    return metadata


def _stated(meaning: Meaning) -> dict[str, Any]:
    return {field.name: getattr(meaning, field.name) for field in fields(Preconditioning)}


def _mapped(data: Mapping[str, Any], change: DataMap) -> dict[str, Any]:
    """The description of the data with its range changed."""
    ends = {end: change.scale * data[end] + change.shift for end in ("low", "high")}
    return {**data, **{end: round(value, 9) for end, value in ends.items()}}
