"""Images from a folder: choice of the files, classes and splits, and reading of the pixels."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from .._rows import Rows
from .._workers import in_order
from .classes import natural_order
from .decoding import SUFFIXES
from .image_files import ImageFiles, stacked, try_decoding
from .memory import fits_comfortably, megabytes

__all__ = ["SPLITS", "class_folders", "find_split", "load_folder"]

SPLITS = ("train", "test")
_RESERVED = (*SPLITS, "val", "valid", "validation", "training", "testing")

# Names of files that operating systems, file servers and notebooks leave in folders; in lower case.
_SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "recycler")
    + ("system volume information", "#recycle", "#snapshot", "network trash folder")
    + ("temporary items", "~snapshot", "icon\r")
)


@dataclass
class _Listing:
    """The direct entries of a folder, without hidden and system entries.

    Attributes:
        images: Files with the suffix of an image, in the order of their names.
        folders: Subfolders, in natural order.
        others: Paths of all other entries, by their kind.
    """

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    others: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))


def load_folder(
    path: Path, *, skip_bad: bool = False, workers: int = 0
) -> tuple[Tensor | Rows, np.ndarray | None]:
    """All images of a folder, in the order of their names.

    The images lie in the folder itself, or one level down in one subfolder per class; the classes
    come in natural order ("2" before "10"). Every image becomes 8-bit grey or RGB:

    - grey of more than 8 bits is scaled to 0 … 255 by its own white and rounded; colour of
      16 bits keeps its high bytes;
    - transparency is composited on white; palettes and other colour spaces become RGB;
    - the orientation tag of cameras is applied; of several frames or pages the first is taken;
    - if any image has colour, grey images are repeated in the three channels.

    One warning counts conversions. Another warning counts entries that were left out: files without
    the suffix of an image, images in deeper folders, links without a target, subfolders without
    images.
    Hidden and system entries are ignored without a warning: names that begin with ".", folders
    whose names begin with "__" or "@" (`__MACOSX`, `@eaDir`), and names such as `Thumbs.db`,
    `$RECYCLE.BIN` and `lost+found`.

    Images that need more than 0.5 GB, or more than a quarter of the free memory, are not held in
    memory: each is decoded once to check it, and again when it is needed. A warning says so.

    Args:
        path: The folder.
        skip_bad: Leave out images that cannot be decoded, with one warning that counts them.
        workers: Number of processes that decode; 0 decodes in this process.

    Returns:
        Images, uint8 (N, C, H, W) with C = 1 or 3, a tensor or `Rows`; the class name of each
        image, text (N,), or None without subfolders.

    Raises:
        ValueError: If there is no image, an image cannot be decoded (without `skip_bad`), an image
            is larger than 16 megapixels, or the sizes differ; the message names the file.
    """
    files, left_out = _list_images(path)
    if left_out:
        warnings.warn(f"left out of {path}: {left_out}", stacklevel=4)
    found = _Decoded(path, len(files))
    names, bad, converted = [], [], Counter()
    decoded = in_order(try_decoding, (file for file, _ in files), workers, str(path))
    for (file, name), (image, done, error) in zip(files, decoded, strict=True):
        if error is None:
            found.add(file, image)
            names.append(name)
            converted.update(done)
        elif skip_bad:
            bad.append(error)
        else:
            raise ValueError(f"{error}; --skip-bad (skip_bad=True) leaves it out")
    if bad:
        warnings.warn(f"left out {len(bad)} of {len(files)} images; first: {bad[0]}", stacklevel=4)
    if not names:
        raise ValueError(f"{path} holds no readable image")
    if 0 < found.colour < len(names):
        converted["in grey (repeated in three channels)"] = len(names) - found.colour
    if converted:
        counts = ", ".join(f"{count} {what}" for what, count in converted.items())
        warnings.warn(f"converted images of {path} ({len(names)} in all): {counts}", stacklevel=4)
    labels = None if names[0] is None else np.array(names, np.str_)
    return found.images(workers), labels


class _Decoded:
    """The images of a folder that could be decoded, or only their files if there are too many.

    Attributes:
        colour: Number of images in colour.
    """

    def __init__(self, path: Path, n: int) -> None:
        self.path, self.n, self.colour = path, n, 0
        self.files: list[Path] = []
        self._kept: list[np.ndarray] | None = None

    def add(self, file: Path, image: np.ndarray) -> None:
        """Add the next image; raise ValueError if it has another size than the first."""
        if not self.files:
            self._size = image.shape[:2]
            # Three channels of all images, beside the images as they were decoded.
            self._kept = [] if fits_comfortably(4 * self.n * image[..., 0].size) else None
        if image.shape[:2] != self._size:
            one, other = (f"{w}×{h}" for h, w in (self._size, image.shape[:2]))
            raise ValueError(
                f"images must have one size, got {one} ({self.files[0]}) and {other} ({file})"
            )
        self.files.append(file)
        self.colour += image.ndim == 3
        if self._kept is not None:
            self._kept.append(image)

    def images(self, workers: int) -> Tensor | Rows:
        """Images, uint8 (N, C, H, W)."""
        if self._kept is not None:
            return stacked(self._kept, self.colour > 0)
        shape = (len(self.files), 3 if self.colour else 1, *self._size)
        warnings.warn(
            f"{self.path}: {len(self.files)} images ({megabytes(math.prod(shape))}) are not held "
            "in memory: each is decoded when it is needed",
            stacklevel=5,
        )
        return ImageFiles(str(self.path), self.files, shape, workers)


def class_folders(path: Path) -> list[str] | None:
    """The class names that a folder's subfolders give, in natural order; None without any."""
    names = [folder.name for folder in _scan(path).folders if _scan(folder).images]
    return names or None


def find_split(path: Path, split: str) -> Path | None:
    """The folder of the split "train" or "test"; None if there is none.

    Subfolders called train or test are the splits, in upper or lower case. Subfolders called val,
    valid, validation, training or testing may lie beside them and are not used. Without a train or
    test subfolder the folder itself is a train split.

    Raises:
        ValueError: If images, or other subfolders with images, lie beside a subfolder with the name
            of a split: this subfolder could be a class.
    """
    listing = _scan(path)
    found = {d.name.lower(): d for d in listing.folders if d.name.lower() in _RESERVED}
    if not found:
        return path if split == "train" else None
    beside = [d for d in listing.folders if d not in found.values() and any(_images_below(d))]
    beside += listing.images[:1]
    if beside:
        name = next(iter(found.values())).name
        raise ValueError(
            f"{path}: {name}/ has the name of a split, but {beside[0].name} lies beside it; rename "
            f"{name}/ if it is a class, else move {beside[0].name} away"
        )
    return found.get(split)


def _scan(folder: Path) -> _Listing:
    listing = _Listing()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            kind = _kind(entry)
            if _is_system(entry.name, kind):
                continue
            if kind == "folder":
                listing.folders.append(Path(entry.path))
            elif kind == "image":
                listing.images.append(Path(entry.path))
            else:
                listing.others[kind].append(Path(entry.path))
    order = natural_order(path.name for path in listing.folders)
    listing.folders = [folder / name for name in order]
    return listing


def _kind(entry: os.DirEntry) -> str:
    """Kind of an entry: "folder", "image", or another kind in words."""
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file():
            return "links without a target" if entry.is_symlink() else "special files"
    except OSError:  # a link to itself
        return "links without a target"
    suffix = Path(entry.name).suffix.lower()
    if suffix in SUFFIXES:
        return "image"
    return f"{suffix} files" if suffix else "files without suffix"


def _is_system(name: str, kind: str) -> bool:
    return (
        name.startswith(".")
        or (kind == "folder" and name.startswith(("__", "@")))
        or name.lower() in _SYSTEM_NAMES
    )


def _list_images(path: Path) -> tuple[list[tuple[Path, str | None]], str]:
    """Images, each with its class name if there are classes; text on the entries left out."""
    top = _scan(path)
    below = {folder: _scan(folder) for folder in top.folders}
    classes = [folder for folder, listing in below.items() if listing.images]
    if top.images and classes:
        raise ValueError(
            f"{path} must hold images or subfolders of images, got both: "
            f"{top.images[0].name} and {classes[0].name}/"
        )
    others = top.others
    for folder, listing in below.items():
        for kind, found in listing.others.items():
            others[kind] += found
        deeper = [image for inner in listing.folders for image in _images_below(inner)]
        if deeper:
            others["images in deeper folders"] += deeper
        elif not listing.images:
            others["folders without images"].append(folder)
    left_out = _in_words(path, others)
    if not top.images and not classes:
        rest = f"; it holds {left_out}" if left_out else ""
        raise ValueError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}){rest}")
    images = [(image, None) for image in top.images]
    images += [(image, folder.name) for folder in classes for image in below[folder].images]
    return images, left_out


def _images_below(folder: Path) -> Iterator[Path]:
    """Images in a folder and all folders in it; links to folders are not followed."""
    listing = _scan(folder)
    yield from listing.images
    for inner in listing.folders:
        if not inner.is_symlink():
            yield from _images_below(inner)


def _in_words(path: Path, others: dict[str, Sequence[Path]]) -> str:
    """`.heic files: 6 (first a/x0.heic), links without a target: 1 (first 1.png)`."""
    return ", ".join(
        f"{kind}: {len(found)} (first {found[0].relative_to(path)})"
        for kind, found in others.items()
    )
