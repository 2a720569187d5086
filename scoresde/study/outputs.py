"""Output folders: one folder holds the results of one set of settings."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._files import atomic_write

__all__ = [
    "SETTINGS",
    "SUMMARY",
    "check_output",
    "check_writable",
    "open_output",
    "read_summary",
    "save_arrays",
    "write_json",
]

SETTINGS = "settings.json"
SUMMARY = "summary.json"


def check_output(folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Raise unless `open_output` would succeed; changes nothing.

    Args:
        folder: The folder to be.
        settings: Plain data that define the results.
        overwrite: Whether other results may be replaced.

    Raises:
        ValueError: If the folder holds something else than results of these settings.
        PermissionError: If it cannot be written.
    """
    check_writable(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return
    known, now = folder / SETTINGS, _plain(settings)
    before = _read_settings(known) if known.is_file() else {}
    # A settings.json that shares no key with ours is another program's.
    if before is not None and not before.keys() & now.keys():
        raise ValueError(f"--out {folder}: holds other files; give a new or an empty folder")
    if overwrite:
        return
    if before is None:
        raise ValueError(f"--out {folder}: {SETTINGS} is not a JSON object; use --overwrite")
    for key in sorted(before.keys() | now.keys(), key=lambda key: (key != "command", key)):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"--out {folder}: holds results with {key} = {before.get(key)!r}, not "
                f"{now.get(key)!r}; give another folder, or --overwrite to replace them"
            )


def check_writable(folder: Path) -> None:
    """Raise unless the folder can be made, or written in; changes nothing.

    Raises:
        ValueError: If a file is in the way.
        PermissionError: If it cannot be written.
    """
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise ValueError(f"--out {folder}: {parent} is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder}: {parent} is not writable")


def open_output(folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Make the folder and write its settings; results of the same settings stay, to be resumed.

    Arguments and errors as for `check_output`.
    """
    check_output(folder, settings, overwrite)
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, _plain(settings))


def write_json(path: Path, values: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(values, file, indent=2, allow_nan=False)
        file.write("\n")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary that a finished computation has left in the folder; None if there is none.

    It is written last, so what it speaks of is all there.
    """
    path = folder / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to an .npz file, atomically; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _read_settings(path: Path) -> dict[str, Any] | None:
    """The settings in a file; None if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as JSON gives them back: tuples as lists."""
    return json.loads(json.dumps(dict(settings)))
