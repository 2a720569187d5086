"""Plain data as JSON and arrays as .npz, written atomically."""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from .._files import atomic_write

__all__ = ["read_arrays", "read_json", "save_arrays", "write_json"]


def write_json(path: Path, values: Any) -> None:
    """Write plain data as indented JSON.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    with atomic_write(path, "w") as file:
        json.dump(values, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Plain data from a JSON file.

    Raises:
        ValueError: If the file is not JSON; the message names the file.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def save_arrays(path: Path, compress: bool = True, /, **arrays: np.ndarray) -> None:
    """Write arrays to an .npz file, compressed or not; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def read_arrays(content: bytes, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays in the bytes of an .npz file: those of `names` that it has, or all for None."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files if names is None or name in names}
