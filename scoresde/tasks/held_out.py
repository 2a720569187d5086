"""Held-out data of a checkpoint: what `scoresde likelihood` and `scoresde latent` look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..config import Config
from ..data import Dataset, DataSpec
from ..data.arrays import is_array_file

__all__ = ["choose_rows", "load_held_out"]


def load_held_out(
    config: Config,
    spec: DataSpec,
    *,
    data: str | None = None,
    split: str | None = None,
    data_root: str | None = None,
    levels: int | None = None,
    n: int = 1,
) -> Dataset:
    """Data the checkpoint was not trained on, of the kind it was trained for.

    Args:
        config: The checkpoint's config.
        spec: What its data are.
        data: Name of a data set or a path; None for the data it was trained on.
        split: "train" or "test"; None for "test", and for all of a file given by `data`.
        data_root: Folder to look for a named data set in first.
        levels: Number of levels of a file's data.
        n: How many are needed at least.

    Returns:
        The data, with labels if the network needs them and without if not. A class has the number
        that the checkpoint gave to its name.

    Raises:
        ValueError: If the data are not of that kind, are too few, or have a class that the
            checkpoint does not have; names the option.
        FileNotFoundError: If they are not on this machine; says how to get them.
    """
    source = config.data
    if data is not None:
        source = type(source)(data)
    elif is_array_file(source.name) and split is None:
        raise ValueError(
            f"--data: must be given, the checkpoint was trained on all of {source.name}; "
            "name a file of held-out data"
        )
    source = replace(source, root=data_root or source.root, levels=levels or source.levels)
    whole = data is not None and is_array_file(source.name)
    conditional = config.net.get("classes") is not None
    classes = spec.class_names
    if classes is None and data is not None:  # a checkpoint's own data know their classes
        classes = spec.classes
    found = source.load(
        split or ("train" if whole else "test"), labels=conditional, classes=classes
    )
    found = replace(found, split="all") if whole else found
    _check(spec, found, conditional, n)
    return found


def choose_rows(data: Dataset, n: int, seed: int) -> np.ndarray:
    """The places of n data chosen at random; the first do not depend on n.

    Args:
        data: The data.
        n: At most `len(data)`.
        seed: Integer in [0, 2^64).

    Returns:
        Shape (n,), int64, no place twice.
    """
    return np.random.default_rng(seed).permutation(len(data))[:n]


def _check(spec: DataSpec, data: Dataset, conditional: bool, n: int) -> None:
    if data.spec.shape != spec.shape:
        raise ValueError(
            f"--data: {data.name} has shape {data.spec.shape}, the checkpoint is for {spec.shape}"
        )
    if spec.levels is not None and data.spec.levels is None:
        raise ValueError(
            f"--levels: must be given for {data.name}, which holds floats: bits/dim are of "
            f"quantized data; the checkpoint is for {spec.levels} levels"
        )
    if data.spec.levels != spec.levels:
        trained = "continuous data" if spec.levels is None else f"{spec.levels} levels"
        raise ValueError(
            f"--levels: {data.spec.levels} of {data.name}, but the checkpoint is for {trained}"
        )
    if conditional and data.labels is None:
        raise ValueError(f"--data: {data.name} has no labels, the checkpoint needs them")
    if conditional and data.spec.classes != spec.classes:
        raise ValueError(
            f"--data: {data.name} has {data.spec.classes} classes, the checkpoint {spec.classes}"
        )
    if n > len(data):
        raise ValueError(f"--n: {n} is more than the {len(data)} of {data.name} ({data.split})")
