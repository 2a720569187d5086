"""Images from a folder."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = ["load_folder"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

# Named, so that no other decoder (EPS runs an external program) ever sees the file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_MAX_PIXELS = 1 << 24  # 4096 × 4096; more is a decompression bomb for our purpose


def load_folder(path: Path, *, skip_bad: bool = False) -> tuple[Tensor, Tensor | None]:
    """All images of a folder, in the order of their names.

    The images lie in the folder itself, or one level down in one subfolder per class: then the
    labels number the subfolders in the order of their names. Every image becomes 8-bit:

    - 16-bit grey is divided by 257 and rounded; 16-bit colour keeps its high bytes;
    - transparency is composited on white; palettes and other colour spaces become RGB;
    - the orientation tag of cameras is applied; of animations the first frame is taken;
    - if any image has colour, grey ones are repeated in the three channels.

    Files without a known image suffix are ignored.

    Args:
        path: The folder.
        skip_bad: Leave out images that cannot be decoded, with one warning that counts them.

    Returns:
        Images, uint8 (N, C, H, W) with C = 1 or 3; labels, int64 (N,), or None.

    Raises:
        ValueError: If there is no image, an image cannot be decoded (without `skip_bad`), is
            larger than 16 megapixels, or the sizes differ; the file is named.
    """
    paths, labels = _list_images(path)
    images, kept, bad = [], [], []
    for i, file in enumerate(paths):
        try:
            images.append(_decode(file))
            kept.append(i)
        except _BadImageError as error:
            if not skip_bad:
                raise ValueError(f"{error}; --skip-bad (skip_bad=True) leaves it out") from error
            bad.append(error)
    if bad:
        warnings.warn(f"left out {len(bad)} of {len(paths)} images; first: {bad[0]}", stacklevel=3)
    if not images:
        raise ValueError(f"{path} holds no readable image")
    _check_sizes([paths[i] for i in kept], images)
    return _stack(images), None if labels is None else torch.tensor([labels[i] for i in kept])


class _BadImageError(ValueError):
    """An image that cannot be decoded."""


def _list_images(path: Path) -> tuple[list[Path], list[int] | None]:
    direct = _images_in(path)
    classes = [(d, _images_in(d)) for d in sorted(path.iterdir()) if d.is_dir()]
    classes = [(d, images) for d, images in classes if images]
    if direct and classes:
        raise ValueError(
            f"{path} must hold images or subfolders of images, got both: "
            f"{direct[0].name} and {classes[0][0].name}/"
        )
    if direct:
        return direct, None
    if not classes:
        raise ValueError(f"{path} holds no image ({', '.join(sorted(_SUFFIXES))})")
    labels = [label for label, (_, images) in enumerate(classes) for _ in images]
    return [image for _, images in classes for image in images], labels


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())


def _decode(path: Path) -> np.ndarray:
    """One image as uint8 (H, W) or (H, W, 3)."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of moderate bombs; the size is checked below, before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            if image.width * image.height > _MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
            return _to_8_bit(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} must have at most {_MAX_PIXELS} pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise _BadImageError(f"{path} cannot be decoded as an image: {error}") from error


def _to_8_bit(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()}..{values.max()} exceed 16 bits")
        return np.rint(values / 257).astype(np.uint8)
    if image.mode == "F":
        raise ValueError("float images have no levels; save them as .npy")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert("L" if grey else "RGB"))


def _check_sizes(paths: list[Path], images: list[np.ndarray]) -> None:
    first = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != first:
            sizes = [f"{w}×{h}" for h, w in (first, image.shape[:2])]
            raise ValueError(
                f"images must have one size, got {sizes[0]} ({paths[0]}) and {sizes[1]} ({path})"
            )


def _stack(images: list[np.ndarray]) -> Tensor:
    if all(image.ndim == 2 for image in images):
        return torch.from_numpy(np.stack(images)).unsqueeze(1)
    colour = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
    return torch.from_numpy(np.stack(colour).transpose(0, 3, 1, 2).copy())
