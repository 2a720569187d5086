"""`DataSpec`, the description of a data set: its shape, scale, levels and conditions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .._condition import ConditionSpec, checked_sizes, checked_tokens
from .._tensor import check_integer, check_number, plain_numbers
from .._text import printable
from ..plain import construct
from .levels import InLevels
from .transforms import Chain, chain_from_list, chain_to_list
from .units import InUnits

__all__ = ["DataSpec"]

_KINDS = {1: "vector", 2: "series", 3: "image", 4: "volume"}  # by the number of axes

# Keys of `to_dict` that old checkpoints lack.
_LATER = ("class_names", "vector", "array", "sizes", "tokens", "size_counts", "transform")
_LATER += ("feature_names",)
_MOST_FLOAT = 3.4e38  # about the largest float32: data are kept in float32
_MOST_INTEGER = 1 << 40  # more than any memory holds; only a forged checkpoint claims more


@dataclass(frozen=True)
class DataSpec(InLevels, InUnits):
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
        shape: Shape of one datum without batch axis; see `kind`.
        low: Lower end of the model's scale.
        high: Upper end of the model's scale, above `low`.
        levels: Number of levels, at least 2; None for continuous data.
        classes: Number of classes of the labels; None without labels.
        name: Name of the data set, for reports.
        class_names: Names of the classes in the order of their numbers; None if they have none.
        vector: Length of the vector of numbers that belongs to each datum as a condition; None
            without one.
        array: Channels of the array of the datum's size that belongs to each datum as a condition,
            for series, images and volumes; None without one.
        sizes: Least and most number of points of a set, for sets of shape (most, F); None for all
            other data.
        tokens: Number and length (T, F) of the tokens that belong to each datum as a condition;
            None without tokens.
        size_counts: How many sets of the training data have each size, from least to most; None if
            this is not known.

    Raises:
        TypeError: If `shape`, `levels`, `classes`, `vector` or `array` do not hold integers, `low`
            or `high` is not a number, or a name is not text.
        ValueError: If a size, the number of levels or of classes is too small or too large, the
            range is empty, the class names are not `classes` different names, there is an array
            for data that are no series, images or volumes, or `sizes` do not suit the shape.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    levels: int | None = None
    classes: int | None = None
    name: str = ""
    class_names: tuple[str, ...] | None = None
    vector: int | None = None
    array: int | None = None
    sizes: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    size_counts: tuple[int, ...] | None = None
    transform: Chain | None = None
    feature_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        shape = tuple(check_integer("shape", size, minimum=1) for size in self.shape)
        if not shape:
            raise ValueError("shape must have at least one axis, got ()")
        object.__setattr__(self, "shape", shape)
        bounds = {"at_least": -_MOST_FLOAT, "at_most": _MOST_FLOAT}
        for name in ("low", "high"):
            object.__setattr__(self, name, float(check_number(name, getattr(self, name), **bounds)))
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low}, {self.high}")
        counts = {
            "the product of shape": (math.prod(shape), 1),
            "levels": (self.levels, 2),
            "classes": (self.classes, 1),
            "vector": (self.vector, 1),
            "array": (self.array, 1),
        }
        for name, (value, least) in counts.items():
            if value is not None and check_integer(name, value, minimum=least) > _MOST_INTEGER:
                raise ValueError(f"{name} must be at most 2^40, got a larger number")
        if not isinstance(self.name, str):
            raise TypeError(f"name must be text, got {self.name!r}")
        if self.class_names is not None:
            self._check_class_names()
        if self.array is not None and not (2 <= len(shape) <= 4 and self.sizes is None):
            raise ValueError(f"array must be None for data of shape {shape}, got {self.array}")
        if self.tokens is not None:
            object.__setattr__(self, "tokens", checked_tokens(self.tokens))
        if self.sizes is not None:
            self._check_sizes()
        self.check_units()

    def _check_sizes(self) -> None:
        sizes = checked_sizes(self.sizes)
        if len(self.shape) != 2 or self.shape[0] != sizes[1]:
            raise ValueError(
                f"sizes must be None, or (least, N) for sets of shape (N, F), got {sizes} for "
                f"shape {self.shape}"
            )
        if self.levels is not None:
            raise ValueError(f"levels must be None for sets, got {self.levels}")
        object.__setattr__(self, "sizes", sizes)
        if self.size_counts is not None:
            counts = tuple(check_integer("size_counts", n, minimum=0) for n in self.size_counts)
            if len(counts) != sizes[1] - sizes[0] + 1 or sum(counts) == 0:
                raise ValueError(f"size_counts must be one number for each of the sizes {sizes}")
            object.__setattr__(self, "size_counts", counts)

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
    def condition(self) -> ConditionSpec:
        """The conditions of the data: classes, a vector, an array, the sizes of sets, tokens."""
        array = None if self.array is None else (self.array, *self.shape[1:])
        return ConditionSpec(self.classes, self.vector, array, self.sizes, self.tokens)

    @property
    def span(self) -> float:
        """Width of the model's scale, high − low."""
        return self.high - self.low

    @property
    def dims(self) -> int:
        """Dimension D of one datum."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """What one datum is.

        vector    (D,)
        series    (C, L): C channels at L times
        image     (C, H, W)
        volume    (C, D, H, W)
        set       (N, F) with `sizes`: up to N points of F features, zeros in place of the rest
        array     any other shape
        """
        if self.sizes is not None:
            return "set"
        return _KINDS.get(len(self.shape), "array")

    @property
    def is_image(self) -> bool:
        """Whether the data are grey or colour images, of shape (1, H, W) or (3, H, W)."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def unit(self) -> str:
        """Unit of −log p: bits/dim, nats/dim for continuous data, nats/set for sets of any size."""
        if self.sizes is not None:
            return "nats/set"
        return "nats/dim" if self.levels is None else "bits/dim"

    @property
    def nats_per_unit(self) -> float:
        """Nats per datum in one `unit`: D log 2, D for continuous data, or 1 for sets."""
        return self.dims_per_unit * (1 if self.levels is None else math.log(2))

    @property
    def dims_per_unit(self) -> int:
        """The dimensions among which one `unit` divides −log p: D, or 1 for sets."""
        return self.dims if self.sizes is None else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data (numbers, strings, lists, None), ready for JSON.

        Keys that old checkpoints lack are left out if they are None.
        """
        values = asdict(self) | {"shape": list(self.shape)}
        if self.transform is not None:
            values["transform"] = chain_to_list(self.transform)
        for key in _LATER:
            if (value := values.pop(key)) is not None:
                values[key] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: On an unknown, missing or mistyped key, or a value that is not allowed.
        """
        if isinstance(values, dict) and values.get("transform") is not None:
            values = {**values, "transform": chain_from_list(values["transform"])}
        return construct(cls, values, "DataSpec")
