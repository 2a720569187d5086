"""Description of a data set: its scale and levels (`DataSpec`) and its tensors (`Dataset`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from .._text import printable
from ..fingerprint import fingerprint
from ..plain import construct

__all__ = ["DataSpec", "Dataset"]

_MOST_FLOAT = 3.4e38  # about the largest float32: data are kept in float32
_MOST_INTEGER = 1 << 40  # more than any memory holds; only a forged checkpoint claims more


@dataclass(frozen=True)
class DataSpec:
    """Shape, range and quantization of data; stored in every checkpoint.

    Quantized data live in cells: level k of L = `levels` is the interval

        [low + (high − low) k/L,  low + (high − low) (k + 1)/L],   k = 0 … L − 1,

    so that data dequantized with u ~ U(0, 1) fill [low, high] exactly. `encode(k)` is the centre of
    the cell, and the probability of a level is the integral over its cell of the density p of
    dequantized data. Training dequantizes in the same way. Uniform dequantization: Theis, van den
    Oord and Bethge 2016, arXiv:1511.01844.

    For continuous data (`levels` None) `low` and `high` are the range of the data. For densities
    with unbounded support they are a window that holds all but a negligible part.

    Args:
        shape: Shape of one datum without batch axis, (C, H, W) for images, (D,) for vectors.
        low: Lower end of the model's scale.
        high: Upper end of the model's scale, above `low`.
        levels: Number of levels, at least 2; None for continuous data.
        classes: Number of classes of the labels; None without labels.
        name: Name of the data set, for reports.
        class_names: Names of the classes in the order of their numbers; None if they have none.

    Raises:
        TypeError: If `shape`, `levels` or `classes` do not hold integers, `low` or `high` is not a
            number, or a name is not text.
        ValueError: If a size, the number of levels or of classes is too small or too large, the
            range is empty, or the class names are not `classes` different names.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    levels: int | None = None
    classes: int | None = None
    name: str = ""
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        shape = tuple(check_integer("shape", size, minimum=1) for size in self.shape)
        if not shape:
            raise ValueError("shape must have at least one axis, got ()")
        object.__setattr__(self, "shape", shape)
        for name in ("low", "high"):
            value = getattr(self, name)
            check_number(name, value, at_least=-_MOST_FLOAT, at_most=_MOST_FLOAT)
            object.__setattr__(self, name, float(value))
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low}, {self.high}")
        counts = {
            "the product of shape": (math.prod(shape), 1),
            "levels": (self.levels, 2),
            "classes": (self.classes, 1),
        }
        for name, (value, least) in counts.items():
            if value is not None and check_integer(name, value, minimum=least) > _MOST_INTEGER:
                raise ValueError(f"{name} must be at most 2^40, got a larger number")
        if not isinstance(self.name, str):
            raise TypeError(f"name must be text, got {self.name!r}")
        if self.class_names is not None:
            self._check_class_names()

    def _check_class_names(self) -> None:
        names = tuple(self.class_names)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"class_names must be text, got {names!r}")
        if len(names) != self.classes or len(set(names)) != len(names) or "" in names:
            raise ValueError(
                f"class_names must be {self.classes} different names, as many as classes, got "
                f"{', '.join(map(repr, names))}"
            )
        object.__setattr__(self, "class_names", names)

    @property
    def class_map(self) -> str | None:
        """Numbers and names of the classes in one line of text; None without names.

        Example: `0 cat, 1 dog, 2 fox`. Of more than 12 classes only the first 10 and the last are
        listed. Characters that do not print are escaped.
        """
        if self.class_names is None:
            return None
        items = [f"{number} {printable(name)}" for number, name in enumerate(self.class_names)]
        return ", ".join(items if len(items) <= 12 else [*items[:10], "…", items[-1]])

    @property
    def span(self) -> float:
        """Width of the model's scale, high − low."""
        return self.high - self.low

    @property
    def dims(self) -> int:
        """Dimension D of one datum."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether the data are grey or colour images, of shape (1, H, W) or (3, H, W)."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def unit(self) -> str:
        """Unit of −log p per dimension: bits/dim, or nats/dim for continuous data."""
        return "nats/dim" if self.levels is None else "bits/dim"

    @property
    def nats_per_unit(self) -> float:
        """Nats per datum in one `unit`: D log 2, or D for continuous data."""
        return self.dims * (1 if self.levels is None else math.log(2))

    @property
    def bits_offset(self) -> float:
        """log2(levels/span), the difference between bits/dim of the levels and −log2 p(x)/D.

        The cell of a level has volume (span/levels)^D. The offset is 7 for 8-bit data on [−1, 1],
        8 on [0, 1], and 4 for 5-bit data on [−1, 1].

        Raises:
            ValueError: If the data are continuous, because they have no bits/dim.
        """
        return math.log2(self._require_levels("bits_offset") / self.span)

    def encode(self, k: Tensor) -> Tensor:
        """Centre of the cell of each level:  x = low + (high − low) (k + ½)/levels.

        Args:
            k: Integer levels in 0 … levels − 1, any shape.

        Returns:
            Model scale, same shape, in the default float dtype.

        Raises:
            TypeError: If k is not an integer tensor.
            ValueError: If the data are continuous or a level is out of range.
        """
        return self.dequantize(k, torch.tensor(0.5, device=k.device))

    def dequantize(self, k: Tensor, u: Tensor) -> Tensor:
        """Place u ∈ [0, 1] inside the cell of level k:  x = low + (high − low) (k + u)/levels.

        Args:
            k: Integer levels in 0 … levels − 1, any shape.
            u: Position in the cell, broadcastable to k; uniform on [0, 1) for dequantization.

        Returns:
            Model scale in [low, high], same shape as k, in the dtype of u.

        Raises:
            TypeError: If k is not an integer tensor or u not a float tensor.
            ValueError: If the data are continuous or a level is out of range.
        """
        levels = self._require_levels("dequantize")
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise TypeError(f"k must be an integer tensor of levels, got {k.dtype}")
        if not u.is_floating_point():
            raise TypeError(f"u must be a float tensor, got {u.dtype}")
        if k.numel() and (int(k.min()) < 0 or int(k.max()) >= levels):
            raise ValueError(f"k must lie in 0..{levels - 1}, got {int(k.min())}..{int(k.max())}")
        # k + u in float64: float32 would round 255 + 0.99999 up into the next cell.
        fraction = (k.double() + u.double()) / levels
        return (self.low + self.span * fraction).to(u.dtype)

    def to_levels(self, x: Tensor) -> Tensor:
        """The nearest level, by cell centre: the inverse of `encode` and `dequantize`.

            k = round((x − low)/(high − low) · levels − ½),  clamped to 0 … levels − 1

        Ties (cell borders) go up, as in dequantization with u = 0. Values outside [low, high]
        get the first or last level.

        Args:
            x: Model scale, any shape.

        Returns:
            Levels, same shape: uint8 up to 256 levels, int64 above.

        Raises:
            ValueError: If the data are continuous or x holds a NaN.
        """
        levels = self._require_levels("to_levels")
        if bool(torch.isnan(x).any()):
            raise ValueError(f"x must not hold NaN, got {int(torch.isnan(x).sum())} of them")
        # round(v − ½) with ties up is floor(v).
        k = torch.floor((x.double() - self.low) / self.span * levels).clamp(0, levels - 1)
        return k.to(torch.uint8 if levels <= 256 else torch.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain data (numbers, strings, lists, None), ready for JSON.

        Without class names the key is left out, as in old checkpoints.
        """
        values = asdict(self) | {"shape": list(self.shape)}
        names = values.pop("class_names")
        return values if names is None else values | {"class_names": list(names)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: On an unknown, missing or mistyped key, or a value that is not allowed.
        """
        return construct(cls, values, "DataSpec")

    def _require_levels(self, what: str) -> int:
        if self.levels is None:
            raise ValueError(f"{what} needs quantized data, got levels = None (continuous data)")
        return self.levels


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Args:
        name: Name or path from which the data were loaded.
        x: Data, shape (N, *spec.shape): integer levels for quantized data, otherwise float32.
        labels: Classes, int64, shape (N,); None without labels.
        spec: Shape, range and quantization.
        log_prob: Exact log-density in nats, (B, D) → (B,) in the dtype of its argument; None if
            no closed form exists.
        split: "train", "test" or "all".
    """

    name: str
    x: Tensor
    labels: Tensor | None
    spec: DataSpec
    log_prob: Callable[[Tensor], Tensor] | None = None
    split: str = "train"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def empty_class(self) -> str | None:
        """The first class without a datum, as `class 3` or `class 3 (fox)`; None if there is none.

        A network that is trained on these data never sees this class.
        """
        if self.labels is None or self.spec.classes is None:
            return None
        present = torch.unique(self.labels)
        if len(present) == self.spec.classes:
            return None
        # The first class is missing where the sorted numbers stop being 0, 1, 2, …
        differ = torch.nonzero(present != torch.arange(len(present)))
        number = int(differ[0]) if len(differ) else len(present)
        names = self.spec.class_names
        return f"class {number}" + (f" ({names[number]})" if names is not None else "")

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits for data, labels and spec; the name does not matter.

        The same images under another path have the same fingerprint. Other images under the same
        path have another fingerprint.
        """
        spec = self.spec.to_dict()
        del spec["name"]
        return fingerprint({"x": self.x, "labels": self.labels, "spec": spec})
