"""Describe a checkpoint without building its network, for `scoresde inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import DataSource, dataset_status
from ..shipped import locate, shipped
from .request import StoredModel

__all__ = ["describe_checkpoint", "list_shipped", "to_toml"]


def describe_checkpoint(name_or_path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint other than its tensors, as plain data.

    Args:
        name_or_path: File, or name of a shipped checkpoint.

    Returns:
        Path, size, digest, number of network weights, steps and seconds of training, whether it
        can be resumed, data, provenance and config.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde.
    """
    stored = StoredModel.read(name_or_path)
    raw, spec = stored.raw, stored.spec
    known = ("config", "data", "provenance", "steps_done", "seconds")
    return {
        "path": str(raw.path),
        "bytes": raw.path.stat().st_size,
        "sha256": raw.sha256,
        "weights": sum(tensor.numel() for tensor in raw.below("model.").values()),
        "steps_done": raw.metadata.get("steps_done"),
        "seconds": raw.metadata.get("seconds"),
        "resumable": bool(raw.below("train.")),
        "data": spec.to_dict(),
        "class_map": spec.class_map,
        "data_licence": _licence(stored.config.data),
        "provenance": raw.metadata.get("provenance", {}),
        "config": stored.config.to_dict(),
        "other": {k: v for k, v in raw.metadata.items() if k not in known},
    }


def list_shipped() -> list[dict[str, Any]]:
    """Name and size in bytes of each checkpoint that comes with the package."""
    names = shipped("checkpoints")
    return [{"name": name, "bytes": locate("checkpoints", name).stat().st_size} for name in names]


def _licence(source: DataSource) -> str | None:
    """The licence of a data set that is known by its name."""
    return {row.name: row.licence for row in dataset_status() if source.named}.get(source.name)


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML, which `load_config` reads back.

    Args:
        tables: Name of each table -> its keys and values: numbers, text, booleans, lists of them.
    """
    blocks = [
        "\n".join([f"[{name}]", *(f"{key} = {_value(v)}" for key, v in values.items())])
        for name, values in tables.items()
    ]
    return "\n\n".join(blocks)


def _value(value: Any) -> str:
    # Text, numbers and lists have the same form in JSON and TOML, except that TOML escapes DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
