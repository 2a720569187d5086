"""`load_dataset`, from a name or a path to tensors and their `DataSpec`; the list of data sets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition
from .._rows import blocks_of
from .._tensor import check_integer
from ..plain import nearest
from .arrays import ArrayFile, is_array_file, load_array
from .classes import Classes, number_labels
from .conditions import Conditions, float_tensor
from .dataset import Dataset
from .densities import DENSITIES
from .folder import SPLITS, class_folders, find_split, load_folder
from .images import IMAGE_SET_CLASSES, IMAGE_SETS, find_folder, load_digits, load_image_set
from .resizing import resized
from .sets import range_of_sets, size_kinds
from .source import NAMES, DataSource
from .spec import DataSpec
from .uci import UCI_SETS, find_uci, load_uci

__all__ = ["DatasetStatus", "dataset_status", "has_test_split", "load_dataset"]

_DENSITY_COUNTS = {"train": 20_000, "test": 5_000}


@dataclass(frozen=True)
class DatasetStatus:
    """One line of `scoresde data`.

    Args:
        name: Name for `load_dataset`.
        shape: Shape of one datum.
        train: Size of the train split.
        test: Size of the test split.
        where: Place of the data ("shipped", "generated" or a folder); None if not present.
        get: The command that gets the data; empty if none is needed.
        licence: Licence of the data.
        entropy: Exact entropy in nats, of densities in the plane; None for all other data.
    """

    name: str
    shape: tuple[int, ...]
    train: int
    test: int
    where: str | None
    get: str
    licence: str
    entropy: float | None = None


def load_dataset(
    source: str | Path | DataSource,
    split: str = "train",
    *,
    labels: bool = True,
    classes: Classes | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Load one split of a named data set, an image folder, a `.npy` or `.npz` file or a table.

    A file or folder is a train split, but a folder with subfolders called "train" or "test" has
    these splits. `load_folder` and `load_array` say which values are converted.

    Classes of a folder or of text labels are numbered in the natural order of their names ("2"
    before "10"), and the names are kept in the `DataSpec`. A test split has the class numbers of
    its train split, whichever classes occur in it. Integer labels are class numbers; a warning
    names the first of 0 … K − 1 that has no datum.

    Args:
        source: A name, a path, or a `DataSource` for further settings.
        split: "train" or "test".
        labels: Whether to load and check the conditions (labels, a vector, an array), if any.
        classes: The classes if they are known, for instance from a checkpoint: their names in the
            order of their numbers, or their number K if they have no names. For K, names in the
            data must be the numbers 0 … K − 1. None takes the classes from the data.
        skip_bad: Leave out images of a folder that cannot be decoded, with a warning.

    Raises:
        FileNotFoundError: If the data are absent; for a named set the message says how to get them.
        ValueError: If the name or split is unknown, a file is damaged, not the published one or
            of an unknown kind, the values contradict `levels`, `low` or `high`, or a label belongs
            to none of the known classes.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be train or test, got {split!r}")
    source = source if isinstance(source, DataSource) else DataSource(source)
    if source.levels is not None:
        check_integer("levels", source.levels, minimum=2)
    if source.workers is not None:
        check_integer("workers", source.workers, minimum=0)
    path = source.path
    if source.labels is not None and (source.named or path.is_dir()):
        raise ValueError(
            f"labels = {source.labels!r} names a column of a table, and {source.name} is none"
        )
    name = source.name if source.named else str(path)
    if source.named and name in DENSITIES:
        return _density(source, split)
    if source.named and name in UCI_SETS:
        found = _uci_set(source, split)
    elif source.named:
        found = _image_set(source, split)
    else:
        found = _from_path(source, split, labels, skip_bad)
    if source.size is not None:
        found = _in_size(name, found, source.size)
    known = classes
    if known is None and found.conditions.labels is not None:
        known = _known_classes(source, found)
    y, kinds = _numbered(name, found.conditions, known, found.x.shape[1])
    y = y if labels else found.conditions.sizes
    low, high = _range_of(source, found)
    shape = tuple(found.x.shape[1:])
    spec = DataSpec(
        shape, low, high, found.levels, name=path.name, feature_names=found.names, **kinds
    )
    data = Dataset(name, found.x, y, spec, split=split)
    # A test split, or data with classes known from elsewhere, need not hold every class.
    complete = split == "train" and classes is None and found.spec is None and not source.named
    if complete and data.empty_class is not None:
        every = f"0 … {spec.classes - 1}"
        warnings.warn(f"{name}: {data.empty_class} of {every} has no datum", stacklevel=2)
    return data


def _numbered(
    name: str, conditions: Conditions, known: Classes | None, most: int
) -> tuple[Condition | None, dict[str, Any]]:
    """The conditions with classes as numbers, and their description as arguments of `DataSpec`.

    Sets have `most` rows.
    """
    parts: dict[str, Tensor] = {}
    kinds: dict[str, Any] = {}
    if conditions.labels is not None:
        parts["class"], kinds["classes"], kinds["class_names"] = number_labels(
            name, conditions.labels, known
        )
    for kind in ("vector", "array"):
        value = getattr(conditions, kind)
        if value is not None:
            parts[kind], kinds[kind] = value, value.shape[1]
    if conditions.tokens is not None:
        parts["tokens"], kinds["tokens"] = conditions.tokens, tuple(conditions.tokens.shape[1:])
    if conditions.sizes is not None:
        parts["size"] = conditions.sizes
        kinds |= size_kinds(conditions.sizes, most)
    return parts if len(parts) > 1 else next(iter(parts.values()), None), kinds


def _density(source: DataSource, split: str) -> Dataset:
    name = source.name
    kept = {key: getattr(source, key) for key in ("root", "workers", "transform")}
    if source != DataSource(name, **kept):
        raise ValueError(f"{name} takes no levels, low, high or size: it is a density on the plane")
    # The second number is the split, so that train and test are independent streams.
    rng = np.random.default_rng([0, SPLITS.index(split)])
    points = DENSITIES[name].sample(rng, _DENSITY_COUNTS[split])
    x = torch.from_numpy(points.astype(np.float32))
    return Dataset(name, x, None, DataSpec((2,), -4, 4, name=name), DENSITIES[name].log_prob, split)


def _image_set(source: DataSource, split: str) -> ArrayFile:
    name = source.name
    published = 17 if name == "digits" else 256
    if source.levels not in (None, published):
        raise ValueError(f"levels of {name} must be {published}, got {source.levels}")
    root = None if source.root is None else Path(source.root)
    x, y = load_digits(split) if name == "digits" else load_image_set(name, split, root)
    return ArrayFile(x, Conditions(y.numpy()), published)


def _uci_set(source: DataSource, split: str) -> ArrayFile:
    if source.levels is not None or source.size is not None:
        raise ValueError(f"{source.name} takes no levels or size: its rows are real numbers")
    root = None if source.root is None else Path(source.root)
    x = load_uci(source.name, split, root)
    return ArrayFile(float_tensor(source.path, "data", x), Conditions(), None)


def _from_path(source: DataSource, split: str, labels: bool, skip_bad: bool) -> ArrayFile:
    path, levels, workers = source.path, source.levels, source.workers or 0
    if not path.exists():
        raise _unknown(path)
    if path.is_dir():
        if levels not in (None, 256):
            raise ValueError(f"levels of an image folder must be 256, got {levels}")
        folder = find_split(path, split)
        if folder is None:
            whole = "" if split == "train" else "; without one, all of it is the train split"
            raise ValueError(
                f"{path} has no {split} split; a subfolder {split}/ would be one{whole}"
            )
        x, names = load_folder(folder, skip_bad=skip_bad, workers=workers)
        return ArrayFile(x, Conditions(names if labels else None), 256)
    if split == "test":
        raise ValueError(f"{path} has no test split; give a file of test data as split 'train'")
    if not is_array_file(path):
        raise ValueError(f"{path} must be a folder of images, or a .npy, .npz, .csv or .tsv file")
    return load_array(path, levels, labels=labels, column=source.labels, workers=workers)


def _in_size(name: str, found: ArrayFile, size: int) -> ArrayFile:
    """The images in another size."""
    if found.conditions.array is not None:
        raise ValueError(
            f"{name}: size must be absent for images with an array as condition, got {size}"
        )
    return replace(found, x=resized(name, found.x, size))


def _known_classes(source: DataSource, found: ArrayFile) -> Classes | None:
    """The classes that are known without reading the labels.

    A folder has the classes of its train split; samples of scoresde have those of their checkpoint.
    """
    if source.named:
        return IMAGE_SET_CLASSES
    if found.spec is not None:
        return found.spec.class_names or found.spec.classes
    path = source.path
    train = find_split(path, "train") if path.is_dir() else None
    return None if train is None else class_folders(train)


def has_test_split(source: str | Path | DataSource) -> bool:
    """Whether `load_dataset` can give a test split: for named sets, and for folders with one.

    Args:
        source: As in `load_dataset`; a path need not exist.

    Raises:
        ValueError: If it is not clear whether a subfolder is a split or a class.
    """
    source = source if isinstance(source, DataSource) else DataSource(source)
    if source.named:
        return True
    return source.path.is_dir() and find_split(source.path, "test") is not None


def _unknown(path: Path) -> Exception:
    """The error for a missing path, or for a misspelt name if it does not look like a path."""
    if path.suffix or len(path.parts) > 1:
        return FileNotFoundError(f"{path} does not exist")
    hint = nearest(str(path), NAMES)
    return ValueError(f"unknown data set {str(path)!r}; {hint}, or a path")


def _range_of(source: DataSource, data: ArrayFile) -> tuple[float, float]:
    """The ends of the model's scale."""
    name, low, high = source.name, source.low, source.high
    if data.levels is not None:
        ends = (-1.0, 1.0) if data.spec is None else (data.spec.low, data.spec.high)
        return ends[0] if low is None else low, ends[1] if high is None else high
    if (low is None) != (high is None):
        raise ValueError(f"low and high must be given together, got {low}, {high}")
    least, most = _ends(data)
    if low is None:
        if least == most:
            raise ValueError(f"{name}: all values are {least}; give low and high")
        return least, most
    # The limits are rounded as the data were: float32(0.1) exceeds 0.1.
    if least < np.float32(low) or most > np.float32(high):
        raise ValueError(f"{name}: data must lie in [{low}, {high}], got {least}..{most}")
    return low, high


def _ends(data: ArrayFile) -> tuple[float, float]:
    """The least and the largest number of the data; the padding of sets does not count."""
    if data.conditions.sizes is not None:
        return range_of_sets(data.x, data.conditions.sizes)
    ends = [torch.aminmax(block) for block in blocks_of(data.x)]
    return float(min(end.min for end in ends)), float(max(end.max for end in ends))


def dataset_status() -> list[DatasetStatus]:
    """Every named data set: its size, its place, how to get it, and its licence."""
    licence = "CC BY 4.0 (Alpaydin and Kaynak, UCI)"
    rows = [DatasetStatus("digits", (1, 8, 8), 1500, 297, "shipped", "", licence)]
    for name, known in IMAGE_SETS.items():
        folder = find_folder(name)
        where = None if folder is None else str(folder)
        rows.append(
            DatasetStatus(name, known.shape, *known.counts, where, known.get, known.licence)
        )
    for name, known in UCI_SETS.items():
        folder = find_uci(name)
        where = None if folder is None else str(folder)
        rows.append(
            DatasetStatus(name, (known.features,), *known.counts, where, known.get, known.licence)
        )
    counts = _DENSITY_COUNTS["train"], _DENSITY_COUNTS["test"]
    rows += [
        DatasetStatus(name, (2,), *counts, "generated", "", "MIT", known.entropy)
        for name, known in DENSITIES.items()
    ]
    return rows
