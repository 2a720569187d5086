"""`load_dataset`, from a name or a path to tensors and their `DataSpec`; what is present."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._tensor import check_integer
from .arrays import load_array
from .densities import DENSITIES
from .folder import load_folder
from .images import IMAGE_SETS, find_folder, load_digits, load_image_set
from .spec import Dataset, DataSpec

__all__ = ["DatasetStatus", "dataset_status", "load_dataset"]

_DENSITY_COUNTS = {"train": 20_000, "test": 5_000}


@dataclass(frozen=True)
class DatasetStatus:
    """One line of `scoresde data`.

    Args:
        name: What `load_dataset` calls it.
        shape: Shape of one datum.
        train: Size of the train split.
        test: Size of the test split.
        where: Where it is ("shipped", "generated" or a folder); None if it is not present.
        get: The one line that gets it; empty if it needs no getting.
        licence: Its licence.
    """

    name: str
    shape: tuple[int, ...]
    train: int
    test: int
    where: str | None
    get: str
    licence: str


def load_dataset(
    name_or_path: str | Path,
    split: str = "train",
    *,
    root: str | Path | None = None,
    levels: int | None = None,
    low: float | None = None,
    high: float | None = None,
    skip_bad: bool = False,
    download: bool = False,
) -> Dataset:
    """Load one split of a named data set, an image folder, or a `.npy` or `.npz` file.

    A name (`dataset_status` lists them) wins over a path spelt alike; write ./name for the path.
    A file or folder is a train split, except that a folder with subfolders "train" or "test"
    has those splits. For what is converted see `load_folder` and `load_array`.

    Args:
        name_or_path: Name of a data set, or path of a folder, `.npy` or `.npz` file.
        split: "train" or "test".
        root: Folder searched first for the files of a named image set.
        levels: Number of levels of a file's data; see `load_array`.
        low: Lower end of the scale, default −1 for quantized data. Continuous data must lie in
            [low, high]; without either, the range is that of the data.
        high: Upper end of the scale, default 1 for quantized data.
        skip_bad: Leave out images of a folder that cannot be decoded, with a warning.
        download: Let torchvision download an absent image set to `root` or data/<name>.

    Raises:
        FileNotFoundError: If the data are absent; for a named set says how to get them.
        ValueError: If the name or split is unknown, a file is damaged, not the published one or
            of an unknown kind, or the values contradict `levels`, `low` or `high`.
        RuntimeError: If the download fails.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    if levels is not None:
        check_integer("levels", levels, minimum=2)
    name, by_name = str(name_or_path), isinstance(name_or_path, str)
    if by_name and name in DENSITIES:
        if (levels, low, high) != (None, None, None):
            raise ValueError(f"{name} takes no levels, low or high: it is a density on the plane")
        return _density(name, split)
    if by_name and (name == "digits" or name in IMAGE_SETS):
        folder = None if root is None else Path(root)
        x, labels, levels = _from_name(name, split, levels, folder, download)
    else:
        x, labels, levels = _from_path(Path(name_or_path), split, levels, skip_bad)
    low, high = _range_of(name, x, levels, low, high)
    classes = None if labels is None else int(labels.max()) + 1
    spec = DataSpec(tuple(x.shape[1:]), low, high, levels, classes, Path(name).name)
    return Dataset(name, x, labels, spec, split=split)


def _density(name: str, split: str) -> Dataset:
    density = DENSITIES[name]
    # The second number is the split, so that train and test are independent streams.
    rng = np.random.default_rng([0, ("train", "test").index(split)])
    points = density.sample(rng, _DENSITY_COUNTS[split])
    x = torch.from_numpy(points.astype(np.float32))
    return Dataset(name, x, None, DataSpec((2,), -4, 4, name=name), density.log_prob, split)


def _from_name(
    name: str, split: str, levels: int | None, root: Path | None, download: bool
) -> tuple[Tensor, Tensor, int]:
    published = 17 if name == "digits" else 256
    if levels not in (None, published):
        raise ValueError(f"levels of {name} must be {published}, got {levels}")
    if name == "digits":
        return *load_digits(split), published
    return *load_image_set(name, split, root, download=download), published


def _from_path(
    path: Path, split: str, levels: int | None, skip_bad: bool
) -> tuple[Tensor, Tensor | None, int | None]:
    if not path.exists():
        raise _unknown(path)
    if path.is_dir():
        if levels not in (None, 256):
            raise ValueError(f"levels of an image folder must be 256, got {levels}")
        x, labels = load_folder(_split_folder(path, split), skip_bad=skip_bad)
        return x, labels, 256
    if split == "test":
        raise ValueError(f"{path} has no test split; give a file of test data as split 'train'")
    if path.suffix not in (".npy", ".npz"):
        raise ValueError(f"{path} must be a folder of images, a .npy or a .npz file")
    return load_array(path, levels)


def _split_folder(path: Path, split: str) -> Path:
    if (path / split).is_dir():
        return path / split
    if split == "test" or (path / "test").is_dir():
        raise ValueError(f"{path} has no {split} split; a subfolder {split}/ would be one")
    return path


def _unknown(path: Path) -> Exception:
    """A missing path if it looks like one, else a misspelt name."""
    names = ["digits", *IMAGE_SETS, *DENSITIES]
    if path.suffix or len(path.parts) > 1:
        return FileNotFoundError(f"{path} does not exist")
    near = difflib.get_close_matches(str(path), names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return ValueError(f"unknown data set {str(path)!r}; {hint}known: {', '.join(names)}, or a path")


def _range_of(
    name: str, x: Tensor, levels: int | None, low: float | None, high: float | None
) -> tuple[float, float]:
    if levels is not None:
        return -1.0 if low is None else low, 1.0 if high is None else high
    if (low is None) != (high is None):
        raise ValueError(f"low and high must be given together, got {low}, {high}")
    least, most = float(x.min()), float(x.max())
    if low is None or high is None:
        if least == most:
            raise ValueError(f"{name}: all values are {least}; give low and high")
        return least, most
    # The limits rounded as the data were: float32(0.1) exceeds 0.1.
    if least < np.float32(low) or most > np.float32(high):
        raise ValueError(f"{name}: data must lie in [{low}, {high}], got {least}..{most}")
    return low, high


def dataset_status() -> list[DatasetStatus]:
    """Every named data set: its size, where it is found, how to get it, and its licence."""
    licence = "CC BY 4.0 (Alpaydin and Kaynak, UCI)"
    rows = [DatasetStatus("digits", (1, 8, 8), 1500, 297, "shipped", "", licence)]
    for name, image_set in IMAGE_SETS.items():
        folder = find_folder(name)
        where = None if folder is None else str(folder)
        rows.append(
            DatasetStatus(
                name, image_set.shape, *image_set.counts, where, image_set.get, image_set.licence
            )
        )
    counts = _DENSITY_COUNTS["train"], _DENSITY_COUNTS["test"]
    rows += [DatasetStatus(name, (2,), *counts, "generated", "", "MIT") for name in DENSITIES]
    return rows
