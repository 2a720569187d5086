"""Data and measurements of `scoresde restore`: reading, scale, and measuring with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, DataSpec
from ..data.decoding import SUFFIXES, decode_image
from ..data.npy import read_arrays
from ..inverse import Mask, Operator

__all__ = ["Readings", "Values", "dequantized", "measured_files", "read_clean", "with_noise"]


@dataclass(frozen=True)
class Values:
    """Between the model's scale and the values that users give and get.

    Quantized data have pixel values from 0, the first level (black), to 1, the last one (white):

        x = offset + factor v,   factor = (high − low)(L − 1)/L,   offset = low + (high − low)/(2 L)

    so that x at a pixel value k/(L − 1) is `DataSpec.encode(k)`. Continuous data are in their own
    units; measurements of data with a transform are at the model's scale.

    Args:
        spec: What the data are.
    """

    spec: DataSpec

    @property
    def factor(self) -> float:
        """Of values; also that of noise."""
        levels = self.spec.levels
        return 1.0 if levels is None else self.spec.span * (levels - 1) / levels

    @property
    def offset(self) -> float:
        """x at the value 0."""
        levels = self.spec.levels
        return 0.0 if levels is None else self.spec.low + self.spec.span / (2 * levels)

    @property
    def peak(self) -> float | None:
        """Largest value of images, for the PSNR; None for other data."""
        if self.spec.levels is not None:
            return 1.0
        plain = self.spec.kind == "image" and self.spec.transform is None
        return self.spec.span if plain else None

    @property
    def unit(self) -> str:
        """The unit of data."""
        if self.spec.levels is not None:
            return "pixel values, 0 to 1"
        return "units of the data"

    def of(self, x: Tensor) -> Tensor:
        """Values of data x at the model's scale, (B, *D)."""
        if self.spec.transform is not None:
            return self.spec.to_units(x)
        return (x - self.offset) / self.factor

    def of_measurement(self, y: Tensor, operator: Operator) -> Tensor:
        """Values of measurements y = A x at the model's scale."""
        return (y - self.offset * _of_ones(operator).to(y)) / self.factor

    def to_model(self, values: Tensor) -> Tensor:
        """The inverse of `of`."""
        if self.spec.transform is not None:
            return self.spec.to_model(values)
        return self.offset + self.factor * values

    def measurement_to_model(self, values: Tensor, operator: Operator) -> Tensor:
        """The inverse of `of_measurement`."""
        return self.offset * _of_ones(operator).to(values) + self.factor * values


@dataclass(frozen=True)
class Readings:
    """Measurements, and the data if they are known.

    Attributes:
        y: At the model's scale, shape (n, *measured), float64.
        truth: Values of the data, shape (n, *D), float64; None if they are not known.
        point: The data at the model's scale, dequantized, from which y was measured; None likewise.
    """

    y: Tensor
    truth: Tensor | None = None
    point: Tensor | None = None


def with_noise(truth: Tensor, point: Tensor, operator: Operator, std: float, seed: int) -> Readings:
    """Measure data: y = A x + std n.

    Args:
        truth: Values of the data.
        point: The data at the model's scale, shape (n, *D), float64.
        operator: A.
        std: Standard deviation of the noise at the model's scale.
        seed: Seed of the noise; that of datum i depends on (seed, i) alone.
    """
    y = operator.A(point)
    draws = [_stream(seed, i, 1).standard_normal(y.shape[1:]) for i in range(len(y))]
    return Readings(y + std * torch.from_numpy(np.stack(draws)), truth, point)


def dequantized(data: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Values and points of data: levels get a uniform place in their cell, as in training.

    Without it the truth would lie in the middle of cells in which the model's samples are spread,
    and central intervals would hold it too often.

    Args:
        data: The data.
        seed: Seed of the places; those of datum i depend on (seed, i) alone.

    Returns:
        Values, and points at the model's scale, shape (n, *D) each, float64.
    """
    x, values = data.scaled.x[torch.arange(len(data))], Values(data.spec)
    if data.spec.levels is None:
        return values.of(x.double()), x.double()
    places = [_stream(seed, i, 0).random(data.spec.shape) for i in range(len(x))]
    point = data.spec.dequantize(x, torch.from_numpy(np.stack(places)))
    return x.double() / (data.spec.levels - 1), point


def read_clean(files: Sequence[str], spec: DataSpec) -> Dataset:
    """Whole data of picture and array files; values of quantized data are rounded to levels.

    Raises:
        ValueError: If a file cannot be read, has another shape, or values that data cannot have.
    """
    x = torch.cat([_read(Path(file), spec, [spec.shape], "--image")[0] for file in files])
    if spec.levels is None:
        return Dataset(", ".join(files), x.float(), None, spec, split="all")
    low, high = (float(end) for end in torch.aminmax(x))
    if low < 0 or high > 1:
        raise ValueError(
            f"--image: pixel values must be floats from 0 to 1, or integers from 0 to "
            f"{spec.levels - 1}, got {low:g} to {high:g}"
        )
    levels = (x * (spec.levels - 1)).round().long()
    return Dataset(", ".join(files), levels, None, spec, split="all")


def measured_files(files: Sequence[str], spec: DataSpec, operator: Operator) -> Readings:
    """Measurements of picture and array files; for a mask also whole data, of which parts count.

    Raises:
        ValueError: If a file cannot be read or has another shape, or the data have a transform.
    """
    option, values = "--measurement", Values(spec)
    if spec.transform is not None:
        raise ValueError(
            f"{option}: is for data without a transform; give --image or --data, which are measured"
        )
    shapes = [operator.measured, *([spec.shape] if isinstance(operator, Mask) else [])]
    found = []
    for file in files:
        x, whole = _read(Path(file), spec, shapes, option)
        found.append(operator.A(x) if whole else x)
    return Readings(values.measurement_to_model(torch.cat(found), operator))


def _read(
    path: Path, spec: DataSpec, shapes: Sequence[tuple[int, ...]], option: str
) -> tuple[Tensor, bool]:
    """Values of a file, (N, *shape) for one of the shapes; whether it is not the first shape."""
    try:
        x = _picture(path) if path.suffix.lower() in SUFFIXES else _array(path, spec)
    except OSError as error:
        raise ValueError(f"{option}: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    for place, shape in enumerate(shapes):
        fitting = _fitted(x, shape)
        if fitting is not None:
            if not np.isfinite(fitting).all():
                raise ValueError(f"{option}: {path} must hold finite numbers")
            return torch.from_numpy(np.array(fitting, np.float64)), place > 0
    wanted = " or ".join(str(tuple(shape)) for shape in shapes)
    raise ValueError(f"{option}: {path} has shape {x.shape}, and {wanted} is needed")


def _picture(path: Path) -> np.ndarray:
    """Pixel values of a picture, (H, W) or (H, W, 3); of grey pixels in colour, (H, W)."""
    levels, _ = decode_image(path)
    if levels.ndim == 3 and (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    return levels / 255


def _array(path: Path, spec: DataSpec) -> np.ndarray:
    """Values of the array of a file: integers are levels of quantized data.

    Of several arrays it is "levels", as `scoresde sample` writes them, or otherwise "x".
    """
    arrays = read_arrays(path)
    names = list(arrays) if len(arrays) == 1 else ["levels", "x"]
    x = next((arrays[name] for name in names if name in arrays), None)
    if x is None:
        raise ValueError(f"{path} must hold one array, or one of the name x, got {len(arrays)}")
    if x.dtype.kind not in "buif":
        raise ValueError(f"{path} must hold real numbers, got {x.dtype}")
    quantized = spec.levels is not None and x.dtype.kind != "f"
    return x / (spec.levels - 1) if quantized else x.astype(np.float64)


def _fitted(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """x as (N, *shape) if it is one or several samples of this shape, perhaps channels last."""
    if x.shape == shape:
        return x[None]
    if x.shape[1:] == shape:
        return x
    if len(shape) != 3:
        return None
    if x.shape == (*shape[1:], shape[0]):
        return np.moveaxis(x, -1, 0)[None]
    if x.shape == shape[1:]:  # grey
        return np.broadcast_to(x, (1, *shape))
    return x[:, None] if shape[0] == 1 and x.shape[1:] == shape[1:] else None


def _of_ones(operator: Operator) -> Tensor:
    """A 1, shape (1, *measured)."""
    return operator.A(torch.ones(1, *operator.shape, dtype=torch.float64))


def _stream(seed: int, i: int, purpose: int) -> np.random.Generator:
    """Random numbers of datum i, apart from those of the samplers."""
    return np.random.default_rng([seed, i, purpose])
