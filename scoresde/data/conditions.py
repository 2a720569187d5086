"""Conditions of data from arrays: which kind an array is, and its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .classes import number_labels
from .npy import read_arrays
from .sets import check_padded

__all__ = ["Conditions", "check_conditions", "float_tensor", "load_condition"]


@dataclass(frozen=True)
class Conditions:
    """The conditions of the data of a file.

    Args:
        labels: Class numbers (integers) or class names (text), shape (N,); None without labels.
        vector: Float32, shape (N, V); None without a vector.
        array: Float32, shape (N, C, *sizes), of the sizes of the data; None without an array.
        tokens: Float32, shape (N, T, F); None without tokens.
        sizes: Number of points of each set, int64, shape (N,); None if the data are no sets.
    """

    labels: np.ndarray | None = None
    vector: Tensor | None = None
    array: Tensor | None = None
    tokens: Tensor | None = None
    sizes: Tensor | None = None


def check_conditions(path: Path, found: Mapping[str, np.ndarray], x: Tensor) -> Conditions:
    """The conditions of data x in a file, each of the kind that its name or its content says.

    Args:
        path: The file, for messages.
        found: The arrays by kind: "class", "vector", "array", "tokens", "size"; or "y" for a kind
            that follows from the content: integers, bool or text of shape (N,) or (N, 1) are
            classes, floats of shape (N,) and other numbers of shape (N, V) a vector, numbers of
            shape (N, *sizes) or (N, C, *sizes) with three or more axes an array.
        x: The data, shape (N, *D), images as (N, C, H, W).

    Raises:
        ValueError: If dtype or shape are of no kind, the lengths differ, numbers are not finite in
            float32, or an array does not have the sizes of the data.
    """
    by_kind = {kind: value for kind, value in found.items() if kind != "y"}
    if "y" in found:
        by_kind[_kind_of(path, found["y"])] = found["y"]
    for kind, value in by_kind.items():
        if value.ndim == 0 or len(value) != len(x):
            raise ValueError(
                f"{path}: {_NAMES[kind]} must have one entry for each of the {len(x)} data, got "
                f"shape {value.shape}"
            )
    labels, vector, array, tokens, sizes = (by_kind.get(kind) for kind in _NAMES)
    return Conditions(
        None if labels is None else _checked_labels(path, labels),
        None if vector is None else _checked_vector(path, vector),
        None if array is None else _checked_array(path, array, x),
        None if tokens is None else _checked_tokens(path, tokens),
        None if sizes is None else check_padded(str(path), x, sizes),
    )


_NAMES = {
    "class": "labels",
    "vector": "the vector",
    "array": "the array",
    "tokens": "the tokens",
    "size": "sizes",
}


def _kind_of(path: Path, y: np.ndarray) -> str:
    if y.dtype.kind in "buiU" and (y.ndim == 1 or y.shape[1:] == (1,)):
        return "class"
    if y.dtype.kind in "buif" and y.ndim in (1, 2):
        return "vector"
    if y.dtype.kind in "buif" and y.ndim in (3, 4, 5):
        return "array"
    n = y.shape[0] if y.ndim else "N"
    raise ValueError(
        f"{path}: y must hold labels (integers, bool or text of shape ({n},)), a vector (numbers "
        f"of shape ({n}, V)) or an array (numbers of shape ({n}, C, *sizes)), got {y.dtype} "
        f"{y.shape}"
    )


def _checked_labels(path: Path, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "buiU" or not (y.ndim == 1 or y.shape[1:] == (1,)):
        raise ValueError(
            f"{path}: labels must be integers, bool or text of shape ({len(y)},), got "
            f"{y.dtype} {y.shape}"
        )
    y = y.reshape(-1)
    return y.astype(np.int64) if y.dtype.kind == "b" else y


def _checked_vector(path: Path, y: np.ndarray) -> Tensor:
    y = y[:, None] if y.ndim == 1 else y
    if y.dtype.kind not in "buif" or y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(
            f"{path}: the vector must hold numbers of shape ({len(y)}, V), got {y.dtype} {y.shape}"
        )
    return float_tensor(path, "the vector", y)


def _checked_array(path: Path, y: np.ndarray, x: Tensor) -> Tensor:
    if x.ndim not in (3, 4, 5):
        raise ValueError(
            f"{path}: an array as condition needs series (N, C, L), images (N, C, H, W) or volumes "
            f"(N, C, D, H, W), got {tuple(x.shape)}"
        )
    y, size = y[:, None] if y.ndim == x.ndim - 1 else y, tuple(x.shape[2:])
    if y.ndim == x.ndim and y.shape[2:] != size and y.shape[1:-1] == size:
        y = np.moveaxis(y, -1, 1)  # channels last, as the data may be
    if y.dtype.kind not in "buif" or y.ndim != x.ndim or y.shape[2:] != size:
        raise ValueError(
            f"{path}: the array must hold numbers of shape "
            f"({len(x)}, C, {', '.join(map(str, size))}), the size of the data, got {y.dtype} "
            f"{y.shape}"
        )
    return float_tensor(path, "the array", y)


def _checked_tokens(path: Path, y: np.ndarray) -> Tensor:
    if y.dtype.kind not in "buif" or y.ndim != 3 or 0 in y.shape:
        raise ValueError(
            f"{path}: the tokens must hold numbers of shape ({len(y)}, T, F), got {y.dtype} "
            f"{y.shape}"
        )
    return float_tensor(path, "the tokens", y)


def float_tensor(path: Path, what: str, x: np.ndarray) -> Tensor:
    """Real numbers as a float32 tensor.

    Raises:
        ValueError: If they are text or complex, or one of them is not finite in float32.
    """
    if x.dtype.kind not in "buif":
        raise ValueError(f"{path}: {what} must hold real numbers, got dtype {x.dtype}")
    with np.errstate(over="ignore"):  # values that float32 cannot hold are counted below
        data = np.ascontiguousarray(x, np.float32)
    bad = int(x.size - np.isfinite(data).sum())
    if bad:
        raise ValueError(f"{path}: {what} must be finite in float32, got {bad} values that are not")
    return torch.from_numpy(data)


_IN_TURN = {"class", "size"}  # kinds that samples have by themselves if none are given


def load_condition(
    path: Path, kinds: Mapping[str, tuple[int, ...]], class_names: Sequence[str] | None
) -> dict[str, Tensor]:
    """Conditions for samples, from a `.npy` or `.npz` file.

    A file with one array of any name holds the only wanted kind; several kinds have the names of
    their kinds, or "y_class", "y_vector", "y_array", "y_tokens" and "sizes". Classes and sizes may
    be left out if there are other kinds. One entry alone needs no axis of samples.

    Args:
        path: The file.
        kinds: Shape of one sample's entry of each wanted kind.
        class_names: Names of the classes, if they have names.

    Returns:
        The tensors by kind: classes and sizes as int64, all else as float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, the kinds are others, or a number is not finite.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    found = {name.removeprefix("y_"): y for name, y in read_arrays(path).items()}
    found = {"size" if name == "sizes" else name: y for name, y in found.items()}
    wanted = [kind for kind in kinds if kind not in _IN_TURN] or [*kinds][:1]
    if len(found) == len(wanted) == 1 and not set(found) & set(kinds):
        found = dict(zip(wanted, found.values(), strict=True))
    if not found or not set(kinds) - _IN_TURN <= set(found) <= set(kinds):
        raise ValueError(
            f"{path} must hold one array for each of {', '.join(kinds)}, got "
            f"{', '.join(found) or 'none'}"
        )
    made = {}
    for kind, y in found.items():
        shape = kinds[kind]
        y = y[None] if y.shape == shape else y
        if kind == "class":
            made[kind] = number_labels(str(path), _checked_labels(path, y), class_names)[0]
        elif kind == "size":
            if y.dtype.kind not in "ui":
                raise ValueError(f"{path}: sizes must be integers, got {y.dtype}")
            made[kind] = torch.from_numpy(y.astype(np.int64))
        else:
            made[kind] = float_tensor(path, f"the {kind}", y)
    return made
