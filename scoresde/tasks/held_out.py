"""Held-out data of a checkpoint, for `scoresde likelihood` and `scoresde latent`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, DataSource, DataSpec, load_dataset
from ..data.arrays import is_array_file
from ..likelihood import dequantize
from ..noise import Noise
from .given import GivenModel
from .request import HeldOutRequest

__all__ = ["check_held_out", "choose_rows", "load_held_out", "to_points"]


def load_held_out(given: GivenModel, request: HeldOutRequest) -> Dataset:
    """Load data that a checkpoint was not trained on and that its network accepts.

    Args:
        given: The checkpoint.
        request: Which data, and how many are needed at least.

    Returns:
        The data, with those conditions that the network takes. Classes are numbered as in the
        checkpoint.

    Raises:
        ValueError: If shape, levels or conditions are not those of the checkpoint, or there are too
            few data; the message names the option.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
    """
    source, spec = given.data_source, given.decoded_spec
    if request.data is not None:
        source = DataSource(request.data, size=None if source is None else source.size)
    elif source is None:
        raise ValueError(f"--data: must be given, the training data of {given.name} are not known")
    elif is_array_file(source.path) and request.split is None:
        raise ValueError(_without_test_split(given, source.name))
    source = replace(source.below(request.data_root), levels=request.levels or source.levels)
    held = request.split == "held-out"
    whole = request.data is not None and is_array_file(source.path) and not held
    classes = spec.class_names
    if classes is None and request.data is not None:  # a checkpoint's own data have their classes
        classes = spec.classes
    split = "train" if whole or held else request.split or "test"
    labels = held or bool(given.condition)  # as in the training, whose data they must be
    data = load_dataset(source, split, labels=labels, classes=classes)
    data = replace(data, split="all") if whole else data
    data = data.in_units_of(spec)
    if held:
        data = check_held_out(given, data, 1).given_for(given.condition)
        data = replace(data.taken(given.held_out_rows(data)), split="held-out")
    return check_held_out(given, data, request.n, any_levels=request.any_levels)


def _without_test_split(given: GivenModel, name: str) -> str:
    """The error if the training data are a file, which has no test split."""
    if share := given.held_out_share:
        return (
            f"--split: must be held-out, or --data be given: {name} has no test split, and the "
            f"checkpoint was trained on all of it but a share of {share:g}"
        )
    return (
        f"--data: must be given, the checkpoint was trained on all of {name}; name a file of "
        "held-out data"
    )


def choose_rows(data: Dataset, n: int, seed: int) -> np.ndarray:
    """Choose n data at random. The first m of them are the same for every n ≥ m.

    Args:
        data: The data.
        n: At most `len(data)`.
        seed: Integer in [0, 2^64).

    Returns:
        Their row numbers in the data, shape (n,), int64, all different.
    """
    return np.random.default_rng(seed).permutation(len(data))[:n]


def to_points(x: Tensor, spec: DataSpec, noise: Noise, dtype: torch.dtype) -> Tensor:
    """Turn data into points at the model's scale.

    Args:
        x: Levels, or continuous data, shape (n, *D).
        spec: What the data are.
        noise: Randomness of the uniform dequantization of levels; continuous data need none.
        dtype: Dtype of the points, float32 or float64.

    Returns:
        Shape (n, *D).
    """
    return x.to(dtype) if spec.levels is None else dequantize(x, spec, noise, dtype)


def check_held_out(given: GivenModel, data: Dataset, n: int, any_levels: bool = False) -> Dataset:
    """The data with the conditions that a model takes from them, after a check.

    Args:
        given: The model.
        data: The data.
        n: Number of data that are needed.
        any_levels: Whether quantized data may have another number of levels than the model's.

    Raises:
        ValueError: If shape, levels or conditions are not those of the model, or there are too few.
    """
    spec = given.decoded_spec
    data = data.widened(spec.sizes)
    if data.spec.shape != spec.shape:
        raise ValueError(
            f"--data: {data.name} has shape {data.spec.shape}, the model is for {spec.shape}"
        )
    if spec.levels is not None and data.spec.levels is None:
        raise ValueError(
            f"--levels: must be given for {data.name}, which holds floats: bits/dim are of "
            f"quantized data; the model is for {spec.levels} levels"
        )
    if data.spec.levels != spec.levels and not (any_levels and spec.levels is not None):
        trained = "continuous data" if spec.levels is None else f"{spec.levels} levels"
        raise ValueError(
            f"--levels: {data.spec.levels} of {data.name}, but the model is for {trained}"
        )
    if n > len(data):
        raise ValueError(f"--n: {n} is more than the {len(data)} of {data.name} ({data.split})")
    if not given.condition:
        return data
    try:
        return data.given_for(given.condition)
    except ValueError as error:
        raise ValueError(f"--data: {data.name} does not suit the model: {error}") from error
