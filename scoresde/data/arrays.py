"""Data from `.npy` and `.npz` files, and from tables (`.csv`, `.tsv`)."""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor

from .._rows import Rows
from .conditions import Conditions, check_conditions
from .mapped import MappedArray, Place
from .memory import fits_comfortably, megabytes
from .npy import is_archive, members_of, opened, read_array, read_member, read_place
from .reading import ArrayReading, checked_data
from .spec import DataSpec
from .tables import TABLES, read_table

__all__ = ["ArrayFile", "is_array_file", "is_table", "load_array"]

# Names of the data and their conditions in a .npz file: ours, and the names given by
# `np.savez(file, x, y)`, as in the sample files of guided-diffusion (ADM).
_CONTENTS = (
    {"x": "x", "y": "y", "sizes": "size"},
    {
        "x": "x",
        "sizes": "size",
        **{f"y_{kind}": kind for kind in ("class", "vector", "array", "tokens")},
    },
    {"arr_0": "x", "arr_1": "y"},
)
_OF_SAMPLES = {
    "labels": "class",
    "sizes": "size",
    **{f"y_{kind}": kind for kind in ("vector", "array", "tokens")},
}

# Names that `scoresde sample` always writes besides the samples.
_SAMPLES = {"x", "ts", "nfe", "seed"}


@dataclass(frozen=True)
class ArrayFile:
    """The content of a file of arrays.

    Args:
        x: Data, shape (N, *D): uint8 or int64 if quantized, otherwise float32. `Rows` if they are
            read when they are needed.
        conditions: Labels, vector, array, tokens and sizes of the data.
        levels: Number of levels; None for continuous data.
        spec: Description of the data if the file holds one, as samples of scoresde do.
        names: Names of the D features of a table with a header; None without names.
    """

    x: Tensor | Rows
    conditions: Conditions
    levels: int | None
    spec: DataSpec | None = None
    names: tuple[str, ...] | None = None


def is_array_file(path: str | Path) -> bool:
    """Whether there is a file at this path whose name ends in .npy, .npz, .csv or .tsv."""
    path = Path(path)
    return (path.suffix.lower() in (".npy", ".npz") and path.is_file()) or is_table(path)


def is_table(path: str | Path) -> bool:
    """Whether there is a file at this path whose name ends in .csv or .tsv."""
    path = Path(path)
    return path.suffix.lower() in TABLES and path.is_file()


def load_array(
    path: Path,
    levels: int | None = None,
    *,
    labels: bool = True,
    column: str | None = None,
    workers: int = 0,
) -> ArrayFile:
    """Data of a `.npy` or `.npz` file or a table, with their conditions if it has any.

    A `.npy` file holds the data, shape (N, *D). A `.npz` file holds

    - one array of any name, or
    - "x" and "y", or "arr_0" and "arr_1": data and a condition, or
    - "x" and some of "y_class", "y_vector", "y_array", "y_tokens": data and several conditions, or
    - any of these that have "x", and "sizes": sets of points with their numbers of points, or
    - the arrays of `scoresde sample`: the data are "levels" if it exists, otherwise "x".

    A condition "y" is a label (integers or bool, the class numbers, or text, the class names, shape
    (N,) or (N, 1)), a vector (floats, shape (N,), or numbers, shape (N, V)) or an array of the size
    of the data (numbers, shape (N, C, *sizes)). Tokens, of shape (N, T, F), have the name
    "y_tokens". Pickled objects are never opened. The sizes in the file's header are compared with
    its real size and with the free memory before memory is taken.

    - uint8: quantized, 256 levels unless `levels` says otherwise.
    - other integers and bool: quantized; `levels` must be given (bool: 2).
    - floats: continuous, converted to float32; with `levels`, they must be whole levels.

    A `.npy` file that needs more than 0.5 GB, or more than a quarter of the free memory, is not
    held in memory: its rows are read when they are needed, and unless every number of its dtype is
    a level, all are read once to check them. A warning says so.

    A `.csv` or `.tsv` file holds the data, shape (N, D), as floats; see `read_table`. One of its
    columns may be the condition "y": integers or text are class labels, other numbers a vector.

    Quantized data (N, H, W) are grey images and become (N, 1, H, W). An array (N, H, W, C) of
    images whose channels come last is transposed to (N, C, H, W), with a warning. The channels are
    taken to come last if C is less than W, and either H = W, or C is 1, 3 or 4 and H is none of
    these. Two other orders are refused: one image (H, W, C), and images (H, W, C, N).

    Args:
        path: The file.
        levels: Number of levels of the data.
        labels: Whether to read the conditions.
        column: Name of the column of a table that holds the condition; None without one.
        workers: Number of processes that read ahead data that are not held in memory.

    Raises:
        ValueError: If the file is damaged or not such a file, does not fit into memory, is empty,
            holds values that are not finite, levels outside 0 … levels − 1, or images whose axes
            are in another order; if samples of scoresde have another number of levels.
    """
    if column is not None and not is_table(path):
        raise ValueError(
            f"labels = {column!r} names a column of a .csv or .tsv file, and {path} is none"
        )
    place = None if is_table(path) else _place_if_large(path)
    if place is not None:
        return _mapped(place, levels, workers)
    try:
        names = None
        if is_table(path):
            table = read_table(path, column)
            x, names, spec = table.x, table.names, None
            found = {"y": table.labels} if labels and column is not None else {}
        else:
            x, found, spec = _read(path, labels)
        if levels is None and spec is not None:
            levels = spec.levels
        elif spec is not None and levels != spec.levels:
            raise ValueError(f"levels of {path} must be {spec.levels}, got {levels}")
        data, levels = checked_data(path, x, levels)
        conditions = check_conditions(path, found, data)
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into memory") from error
    return ArrayFile(data, conditions, levels, spec, names)


def _read(path: Path, labels: bool) -> tuple[np.ndarray, dict[str, np.ndarray], DataSpec | None]:
    def content(file: IO[bytes]) -> tuple[np.ndarray, dict[str, np.ndarray], DataSpec | None]:
        if is_archive(file):
            return _read_archive(path, file, labels)
        return read_array(path, file, path.stat().st_size), {}, None

    return opened(path, content)


def _read_archive(
    path: Path, file: IO[bytes], labels: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], DataSpec | None]:
    with zipfile.ZipFile(file) as archive:
        members = members_of(archive)

        def read(names: Mapping[str, str]) -> dict[str, np.ndarray]:
            """The arrays that exist among these names, by what they are."""
            return {
                what: read_member(path, archive, members[name])
                for name, what in names.items()
                if name in members and (labels or what in ("x", "spec", "size"))
            }

        if set(members) >= _SAMPLES:
            x = "levels" if "levels" in members else "x"
            return _of_samples(read({x: "x", "spec": "spec", **_OF_SAMPLES}), x == "levels")
        for names in _CONTENTS:
            if next(iter(names)) in members and set(members) <= set(names):
                found = read(names)
                return found.pop("x"), found, None
        if len(members) == 1:
            return read_member(path, archive, *members.values()), {}, None
    names = ", ".join(members) or "none"
    raise ValueError(
        "it must hold one array, or x and y, or arr_0 and arr_1, or x and some of y_class, "
        f"y_vector, y_array, y_tokens, with sizes for sets, got {names}"
    )


def _of_samples(
    found: dict[str, np.ndarray], quantized: bool
) -> tuple[np.ndarray, dict[str, np.ndarray], DataSpec | None]:
    """Samples of scoresde, with the names of their classes."""
    x, text = found.pop("x"), found.pop("spec", None)
    spec = None if text is None else DataSpec.from_dict(json.loads(str(text)))
    y = found.get("class")
    if y is not None and spec is not None and spec.class_names is not None:
        if y.min() < 0:  # a negative index would count from the last name
            raise ValueError(f"its labels must be at least 0, got {y.min()}")
        found["class"] = np.array(spec.class_names)[y]
    if spec is None and quantized:
        x = x.astype(np.int64)  # uint8, as in an earlier version, would mean 256 levels
    return x, found, spec


def _place_if_large(path: Path) -> Place | None:
    """The place of a `.npy` file's array if it should not be held in memory."""

    def content(file: IO[bytes]) -> Place | None:
        if is_archive(file):
            return None
        place = read_place(path, file, path.stat().st_size)
        if place is None:
            return None
        itemsize = max(place.dtype.itemsize, 4 if place.dtype.kind == "f" else 1)
        return None if fits_comfortably(math.prod(place.shape) * itemsize) else place

    return opened(path, content)


def _mapped(place: Place, levels: int | None, workers: int) -> ArrayFile:
    """Data whose rows are read when they are needed, after one reading that checks all numbers.

    Bytes of which each is a level need no such reading, which takes seconds.
    """
    path = place.path
    reading = ArrayReading.of(path, place.shape, place.dtype, levels)
    x = MappedArray(str(path), place, reading, reading.shape, reading.out, workers)
    warnings.warn(
        f"{path}: {megabytes(path.stat().st_size)} are not held in memory: rows are read from the "
        "file when they are needed",
        stacklevel=4,
    )
    if reading.levels is not None and not reading.always_levels:
        for _ in x.blocks():  # checks every level; floats are checked when their range is found
            pass
    return ArrayFile(x, Conditions(), reading.levels)
