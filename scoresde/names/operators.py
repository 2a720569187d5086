"""Measurements from text, for the command line: the operator A of y = A x + noise.

mask:box=4x4                  a box in the middle is not measured
mask:share=0.5:seed=0         half of the pixels are not measured
mask:file=mask.png            what is black in a picture is not measured
downsample:factor=2           means over blocks
grey                          the mean over the channels
blur:std=1.5                  a circular Gaussian blur
projection:m=32:seed=0        products with random orthonormal rows
package.module:Name           an object of your own with A(x) and A_adjoint(y)
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._tensor import check_integer, check_number
from ..data.decoding import SUFFIXES, decode_image
from ..data.npy import read_arrays
from ..inverse import Blur, Downsample, Grey, Mask, Operator, Projection
from ..inverse.foreign import as_operator
from ..plain import construct_named, is_class_path
from .importing import construct_imported

__all__ = ["OPERATORS", "Measurement", "parse_operator"]

WHITE = 128  # grey values from here on are measured in a picture of a mask


class Measurement(ABC):
    """What is measured, before the shape of the data is known."""

    file: str | None = None  # whose content counts, not its name

    @abstractmethod
    def of(self, shape: Sequence[int]) -> Operator:
        """The operator on samples of shape *D.

        Raises:
            TypeError, ValueError: If it does not suit the shape.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """Class and parameters, without the place of a file."""
        values = {key: value for key, value in asdict(self).items() if key != "file"}
        return {"kind": type(self).__name__} | values


@dataclass(frozen=True)
class MaskMeasurement(Measurement):
    """The entries of a sample outside a box, outside a random share, or where a file is white.

    A pixel is measured in all channels or in none, unless the file says more.

    Args:
        box: Sizes of a box that is not measured, such as 4x4, in the middle unless `at` is given.
        at: Where the box begins, such as 0x2.
        share: Share of the pixels that is not measured, between 0 and 1.
        seed: Seed of the random share.
        file: A picture, black where nothing is measured, or a .npy array, 0 there.
    """

    box: str | int | None = None
    at: str | int | None = None
    share: float | None = None
    seed: int = 0
    file: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("box", "share", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"one of box, share and file must be given, got {' and '.join(given) or 'none'}"
            )
        if self.at is not None and self.box is None:
            raise ValueError("at belongs to box, which is not given")
        if self.share is not None:
            check_number("share", self.share, above=0, below=1)
        check_integer("seed", self.seed, minimum=0)

    def of(self, shape: Sequence[int]) -> Mask:
        """The mask."""
        places = tuple(shape) if len(shape) == 1 else tuple(shape[1:])
        if self.file is not None:
            return Mask(_mask_of_file(self.file), tuple(shape))
        keep = torch.ones(places, dtype=torch.bool)
        if self.share is not None:
            hidden = round(self.share * keep.numel())
            order = np.random.default_rng(self.seed).permutation(keep.numel())
            keep.view(-1)[torch.from_numpy(order[:hidden])] = False
        else:
            keep[self._box(places)] = False
        return Mask(keep.expand(tuple(shape)), tuple(shape))

    def _box(self, places: tuple[int, ...]) -> tuple[slice, ...]:
        """The box as an index."""
        sizes = _sizes("box", self.box, places)
        first = [max(0, whole - size) // 2 for whole, size in zip(places, sizes, strict=True)]
        first = first if self.at is None else _sizes("at", self.at, places)
        ends = [begin + size for begin, size in zip(first, sizes, strict=True)]
        if min(sizes) == 0 or any(end > whole for end, whole in zip(ends, places, strict=True)):
            raise ValueError(f"box must lie inside {_by(places)}, got {_by(sizes)} at {_by(first)}")
        return tuple(slice(*both) for both in zip(first, ends, strict=True))


@dataclass(frozen=True)
class GreyMeasurement(Measurement):
    """The mean over the channels."""

    def of(self, shape: Sequence[int]) -> Grey:
        """The operator; it needs at least two channels."""
        if len(shape) < 2 or shape[0] < 2:
            raise ValueError(f"grey is of data with several channels, got shape {tuple(shape)}")
        return Grey(tuple(shape))


@dataclass(frozen=True)
class DownsampleMeasurement(Measurement):
    """Means over blocks; see `Downsample`.

    Args:
        factor: Length of a block along each axis, at least 2.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_integer("factor", self.factor, minimum=2)

    def of(self, shape: Sequence[int]) -> Downsample:
        """The operator."""
        return Downsample(tuple(shape), self.factor)


@dataclass(frozen=True)
class BlurMeasurement(Measurement):
    """A circular Gaussian blur; see `Blur.gaussian`.

    Args:
        std: Standard deviation in pixels, above 0.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        check_number("std", self.std, above=0)

    def of(self, shape: Sequence[int]) -> Blur:
        """The operator."""
        if len(shape) < 2:
            raise ValueError(f"blur is of series, images and volumes, got shape {tuple(shape)}")
        return Blur.gaussian(tuple(shape), self.std)


@dataclass(frozen=True)
class ProjectionMeasurement(Measurement):
    """Products with random orthonormal rows; see `Projection.random`.

    Args:
        m: Number of rows, at least 1.
        seed: Seed of the rows.
    """

    m: int
    seed: int = 0

    def of(self, shape: Sequence[int]) -> Projection:
        """The operator."""
        return Projection.random(tuple(shape), self.m, self.seed)


@dataclass(frozen=True)
class OwnMeasurement(Measurement):
    """An object of the user; its module is imported.

    Args:
        text: Its place, perhaps with parameters.
    """

    text: str

    def of(self, shape: Sequence[int]) -> Operator:
        """The object as an operator; a parameter `shape` gets the shape of a sample."""
        return as_operator(construct_imported("operator", self.text, object, shape=shape), shape)


OPERATORS: dict[str, Callable[..., Measurement]] = {
    "mask": MaskMeasurement,
    "downsample": DownsampleMeasurement,
    "grey": GreyMeasurement,
    "blur": BlurMeasurement,
    "projection": ProjectionMeasurement,
}


def parse_operator(text: str) -> Measurement:
    """What is measured, from `name:key=value`, or from the place of an object of the user.

    Raises:
        ConfigError: If the name or a key is unknown, or a value is wrong.
    """
    if text.strip().partition(":")[0] not in OPERATORS and is_class_path(text):
        return OwnMeasurement(text)
    return construct_named("operator", text, OPERATORS)


def _sizes(name: str, text: str | int, places: tuple[int, ...]) -> list[int]:
    """The numbers of a text such as 4x4, one for each axis."""
    if not re.fullmatch(r"\d{1,9}(x\d{1,9})*", str(text)):
        raise ValueError(f"{name} must be numbers such as 4x4, got {text!r}")
    found = [int(number) for number in str(text).split("x")]
    if len(found) != len(places):
        raise ValueError(f"{name} must be {len(places)} numbers, for {_by(places)}, got {text}")
    return found


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _mask_of_file(file: str) -> Tensor:
    """True where a picture is white, or an array is not 0."""
    path = Path(file)
    if path.suffix.lower() in SUFFIXES:
        levels, _ = decode_image(path)
        if levels.ndim == 3:
            levels = levels.mean(2)
        return torch.from_numpy(levels >= WHITE)
    arrays = list(read_arrays(path).values())
    if len(arrays) != 1:
        raise ValueError(f"{path} must hold one array, got {len(arrays)}")
    return torch.from_numpy(np.ascontiguousarray(arrays[0] != 0))
