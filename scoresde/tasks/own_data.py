"""Data in memory: arrays and tensors as data sets of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition
from .._tensor import check_integer
from ..data import Dataset, DataSource, DataSpec, has_test_split, load_dataset
from ..data.reading import checked_data

__all__ = ["both_splits", "data_in_memory", "is_place", "one_split", "spec_of_shape"]


def is_place(data: Any) -> bool:
    """Whether data are given by a name, a path or a `DataSource`, and must be loaded."""
    return isinstance(data, (str, Path, DataSource))


def data_in_memory(
    name: str, x: Any, spec: DataSpec | None = None, y: Condition | None = None
) -> Dataset:
    """A data set of an array, checked as those of files are.

    Args:
        name: Name of the argument, for messages and reports.
        x: A `Dataset`, or a tensor or array of shape (N, *D): integer levels of quantized data,
            or floating numbers in units.
        spec: What the data are, if it is known; otherwise it is taken from x.
        y: Conditions of the data, N rows; None = those of a `Dataset`.

    Raises:
        TypeError: If x is not an array of numbers.
        ValueError: If the values or the shape are not those of `spec`.
    """
    if isinstance(x, Dataset):
        x = x if spec is None else x.in_units_of(spec)
        return x if y is None else replace(x, labels=y)
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    x = np.asarray(x)
    if x.dtype.kind not in "buif":
        raise TypeError(f"{name} must be an array or tensor of numbers, got {x.dtype}")
    levels = None if spec is None else spec.levels
    if levels is not None and x.dtype.kind == "f":
        raise ValueError(
            f"{name} must hold the integer levels 0 … {levels - 1} of the data, got {x.dtype}; "
            "`DataSpec.to_levels` makes levels of data at the model's scale"
        )
    x, levels = checked_data(name, x, levels)
    if spec is None:
        spec = _spec_of(name, x, levels)
    elif tuple(x.shape[1:]) != spec.shape:
        raise ValueError(
            f"{name} must have shape (N, {', '.join(map(str, spec.shape))}), got {tuple(x.shape)}"
        )
    elif spec.levels is None and levels is not None:
        raise ValueError(f"{name} must hold floating numbers, got levels: the data are continuous")
    return Dataset(name, x, y, spec, split="all")


def both_splits(data: Any, test: Any, spec: DataSpec | None) -> tuple[Dataset, Dataset | None]:
    """The data of the argument `data`, and test data for it.

    Levels have the scale of the model: diffusers puts level k at 2k/255 − 1, and files have no
    scale of their own.

    Args:
        data: A name, a path, a `DataSource`, or data in memory.
        test: Test data in memory, a name or a path; None for the test split of `data`, if any.
        spec: What the data are, if it is known.
    """
    classes = None if spec is None else spec.class_names
    if test is not None:
        test = one_split("test", test, spec)
    if not is_place(data):
        train = data_in_memory("data", data, spec)
        return train, test
    train = load_dataset(data, classes=classes)
    if test is None and has_test_split(data):
        test = load_dataset(data, "test", classes=train.spec.class_names)
    return _at_scale(train, spec), test if test is None else _at_scale(test, spec)


def _at_scale(data: Dataset, spec: DataSpec | None) -> Dataset:
    """The data with the scale of the model if both have the same levels, or with its transform."""
    if spec is None or data.spec.levels != spec.levels:
        return data
    if spec.levels is None:
        return data.in_units_of(spec)
    return replace(data, spec=replace(data.spec, low=spec.low, high=spec.high))


def one_split(name: str, data: Any, spec: DataSpec | None) -> Dataset:
    """Data in memory, or the test split of a named data set, or all of a file.

    Args:
        name: Name of the argument, for messages.
        data: A name, a path, a `DataSource`, or data in memory.
        spec: What the data are, if it is known.
    """
    if not is_place(data):
        return data_in_memory(name, data, spec)
    classes = None if spec is None else spec.class_names
    split = "test" if has_test_split(data) else "train"
    found = load_dataset(data, split, classes=classes)
    found = found if spec is None else found.in_units_of(spec)
    return found if split == "test" else replace(found, split="all")


def _spec_of(name: str, x: Tensor, levels: int | None) -> DataSpec:
    low, high = (-1.0, 1.0) if levels is not None else (float(v) for v in torch.aminmax(x))
    if low == high:
        raise ValueError(f"{name}: all values are {low}")
    return DataSpec(tuple(x.shape[1:]), low, high, levels, name=name)


def spec_of_shape(shape: Any, name: str) -> DataSpec:
    """The description of data of which only the shape is known.

    The range serves only for pictures: [−1, 1] for images, [−4, 4] for vectors.
    """
    shape = tuple(check_integer("shape", size, minimum=1) for size in shape)
    end = 1.0 if len(shape) == 3 else 4.0
    return DataSpec(shape, -end, end, name=name)
