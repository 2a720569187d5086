"""Decoding one image file to 8-bit grey or RGB."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .._text import reason_of

__all__ = ["SUFFIXES", "BadImageError", "decode_image"]

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm")
    + (".tif", ".tiff", ".webp")
)

# An explicit list, so that no other decoder (EPS runs an external program) ever reads the file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_MAX_PIXELS = 1 << 24  # 4096 × 4096; larger images count as decompression bombs

_PNG_HEADER = 26  # bytes up to the bit depth and the colour type


class BadImageError(ValueError):
    """An image that cannot be decoded, or whose values do not fit an 8-bit scale."""


def decode_image(path: Path) -> tuple[np.ndarray, list[str]]:
    """One image as uint8 (H, W) or (H, W, 3), and what was converted, in words.

    Args:
        path: The file.

    Raises:
        BadImageError: If it is damaged, or holds signed, floating-point or 32-bit values.
        ValueError: If it has more than 2^24 pixels.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            # Pillow warns of bombs (their size is checked below) and of damaged metadata.
            warnings.simplefilter("ignore")
            head = file.read(_PNG_HEADER)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
                return _to_8_bit(image, head)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} must have at most {_MAX_PIXELS} pixels: {error}") from error
    # On damaged bytes Pillow's decoders raise many types, such as IndexError, struct.error.
    except Exception as error:
        raise BadImageError(f"{path} cannot be decoded as an image: {reason_of(error)}") from error


def _to_8_bit(image: Image.Image, head: bytes) -> tuple[np.ndarray, list[str]]:
    png_depth, png_colour = head[24:26] if image.format == "PNG" else (None, None)
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    _check_samples(image, tags)
    done = []
    if getattr(image, "is_animated", False):
        done.append("with several frames or pages (the first was taken)")
    if png_depth == 16 or max(tags.get(258, (1,))) > 8 or _ppm_white(image) > 255:
        done.append("with more than 8 bits (rounded to 8 bits)")
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow scales 16-bit values of other formats to 65535, but not those of TIFF.
        bits = tags.get(258, (16,))[0]
        level = _rounded(np.asarray(upright), white=2**bits - 1)
        if tags.get(262) == 0:  # white is zero; Pillow inverts only up to 8 bits
            level = 255 - level
    elif image.mode in ("1", "L", "LA") or png_colour == 4:
        level = _on_white(upright, "L") if png_colour != 0 else np.array(upright.convert("L"))
    else:
        if image.mode in ("P", "PA"):
            done.append("with a palette (made RGB)")
        elif image.mode not in ("RGB", "RGBA", "RGBX"):
            done.append(f"in {image.mode} (made RGB)")
        if png_depth == 16 and png_colour == 2 and "transparency" in image.info:
            raise ValueError("a transparent colour of 16 bits is not supported")
        level = _on_white(upright, "RGB")
    if image.has_transparency_data:
        done.append("with transparency (put on white)")
        if png_colour == 0:
            level[_is_transparent(upright, png_depth)] = 255
    return level, done


def _check_samples(image: Image.Image, tags: dict[int, tuple[int, ...]]) -> None:
    """Refuse samples that do not run from 0 to a known white."""
    if image.mode == "F":
        raise ValueError("float images have no levels; save them as .npy")
    if not set(tags.get(339, ())) <= {1, 4}:  # unsigned, or unspecified
        raise ValueError("signed samples have no levels; save them as .npy")
    if tags and image.mode == "I":
        raise ValueError("32-bit integers have no levels; save them as .npy")


def _ppm_white(image: Image.Image) -> int:
    """The value of white in a PGM or PPM file; 255 for other formats."""
    if image.format != "PPM":
        return 255
    arguments = image.tile[0][3]
    if isinstance(arguments, tuple):
        return arguments[-1]
    return 65535 if "16" in arguments else 255


def _rounded(values: np.ndarray, white: int) -> np.ndarray:
    """Levels 0 … `white` scaled to 0 … 255 and rounded."""
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > white:
        raise ValueError(f"grey values {values.min()}..{values.max()} exceed white, {white}")
    return np.rint(values * 255 / white).astype(np.uint8)


def _on_white(image: Image.Image, mode: str) -> np.ndarray:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert(mode))


def _is_transparent(image: Image.Image, depth: int) -> np.ndarray:
    """Where a grey PNG has its transparent level; Pillow scales the pixels, but not this level."""
    transparent = image.info["transparency"]
    if depth in (2, 4):
        transparent = (transparent & (2**depth - 1)) * 255 // (2**depth - 1)
    return np.asarray(image.convert("L") if image.mode == "1" else image) == transparent
