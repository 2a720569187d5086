"""Conditions: what a conditional model is conditioned on, one entry for each sample.

A condition is a tensor, or a dict or tuple of conditions. Every tensor in it has one leading entry
per sample. A leading dimension of 1, or a single number, is one condition for all samples.
A `ConditionSpec` describes the conditions of our networks and of data sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ._tensor import check_integer, plain_numbers

__all__ = [
    *("Condition", "ConditionSpec", "bound_rows", "leaves", "map_condition", "present"),
    *("checked_sizes", "checked_tokens", "take_rows"),
]

_INTEGER = ("class", "size")  # the kinds that are integers

Condition = Any  # Tensor | dict[str, Condition] | tuple[Condition, ...]


def map_condition(f: Callable[[Tensor], Tensor], y: Condition) -> Condition:
    """The condition with f applied to each of its tensors."""
    if isinstance(y, Mapping):
        return {key: map_condition(f, value) for key, value in y.items()}
    if isinstance(y, tuple):
        return tuple(map_condition(f, value) for value in y)
    return f(y)


def leaves(y: Condition, name: str = "y") -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a condition with its name for messages, such as `y["text"]` or `y[0]`."""
    if isinstance(y, Mapping):
        for key, value in y.items():
            yield from leaves(value, f"{name}[{key!r}]")
    elif isinstance(y, tuple):
        for i, value in enumerate(y):
            yield from leaves(value, f"{name}[{i}]")
    else:
        yield name, y


def take_rows(y: Condition, rows: slice | Tensor) -> Condition:
    """The condition of some samples of the batch."""
    return map_condition(lambda leaf: leaf[rows], y)


def present(size: Tensor, most: int) -> Tensor:
    """Which points of padded sets exist:  present[b, i] = (i < size[b]).

    Args:
        size: Number of points of each set, int64, shape (B,).
        most: N, the number of points of a padded set.

    Returns:
        Bool, shape (B, N), on the device of `size`.
    """
    return torch.arange(most, device=size.device) < size[:, None]


def bound_rows(y: Condition, n: int, device: torch.device | str) -> Condition:
    """A condition for n samples, checked: tensors on the device with leading dimension n.

    Integers become int64, floating Python numbers float64; other dtypes stay.

    Args:
        y: A condition; its entries may also be numbers, lists or arrays. A list is one tensor.
        n: Number of samples.
        device: Device of the result.

    Raises:
        TypeError: If an entry is not a tensor of real numbers.
        ValueError: If the leading dimension of an entry is neither n nor 1; the message names it.
    """
    return _bound("y", y, n, device)


def _bound(name: str, y: Condition, n: int, device: torch.device | str) -> Condition:
    if isinstance(y, Mapping):
        if not all(isinstance(key, str) for key in y):
            raise TypeError(f"{name} must have text as keys, got {', '.join(map(repr, y))}")
        return {k: _bound(f"{name}[{k!r}]", value, n, device) for k, value in y.items()}
    if isinstance(y, tuple):
        return tuple(_bound(f"{name}[{i}]", value, n, device) for i, value in enumerate(y))
    try:
        leaf = torch.as_tensor(y)
        if leaf.is_floating_point() and not hasattr(y, "dtype"):
            leaf = torch.as_tensor(y, dtype=torch.float64)  # Python numbers keep their digits
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor of numbers, got {type(y).__name__}") from error
    if leaf.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {leaf.dtype}")
    if leaf.ndim == 0:
        leaf = leaf[None]
    if leaf.shape[0] not in (1, n):
        raise ValueError(
            f"{name} must have leading dimension {n}, or 1 for one condition of all samples, got "
            f"shape {tuple(leaf.shape)}"
        )
    integer = not leaf.is_floating_point() and leaf.dtype != torch.bool
    leaf = leaf.to(device, torch.int64) if integer else leaf.to(device)
    return leaf.expand(n, *leaf.shape[1:])


@dataclass(frozen=True)
class ConditionSpec:
    """The kinds of condition that a network was built for, or that a data set has.

    One kind alone is a tensor. Several kinds are a dict with the keys "class", "vector", "array",
    "size", "tokens".

        class     integers 0 … K − 1, shape (n,); K stands for "no class"
        vector    floating numbers, shape (n, V), or (n,) for V = 1
        array     floating numbers, shape (n, C, *sizes): (n, C, L), (n, C, H, W), (n, C, D, H, W)
        size      integers, shape (n,): the number of points of each set, which always belongs to it

        tokens    floating numbers, shape (n, T, F): T vectors of length F

    A network with the attribute `condition`, such as `UNet` and `MLP`, says by it which conditions
    it accepts, and promises to accept "no condition" for single samples: the class K, and entries
    of NaN in place of a vector, an array or tokens. `TrainSettings.label_dropout` trains these.

    Args:
        classes: Number K of classes, at least 1; None without classes.
        vector: Length V of the vector, at least 1; None without a vector.
        array: Shape (C, L), (C, H, W) or (C, D, H, W) of the array; None without an array.
        sizes: Least and most number of points of a set, (least, most); None if the data are not
            sets.
        tokens: Number and length (T, F) of the tokens; None without tokens.

    Raises:
        TypeError: If an argument does not hold integers.
        ValueError: If a number is less than 1, the array's shape is not one of those above,
            `sizes` are not two numbers 1 ≤ least ≤ most, or `tokens` not two numbers.
    """

    classes: int | None = None
    vector: int | None = None
    array: tuple[int, ...] | None = None
    sizes: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("classes", "vector"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)
        if self.array is not None:
            shape = tuple(check_integer("array", size, minimum=1) for size in self.array)
            if not 2 <= len(shape) <= 4:
                raise ValueError(
                    f"array must have shape (C, L), (C, H, W) or (C, D, H, W), got {shape}"
                )
            object.__setattr__(self, "array", shape)
        if self.sizes is not None:
            object.__setattr__(self, "sizes", checked_sizes(self.sizes))
        if self.tokens is not None:
            object.__setattr__(self, "tokens", checked_tokens(self.tokens))

    @property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample's entry of each kind; empty for an unconditional network."""
        shapes = {
            "class": None if self.classes is None else (),
            "vector": None if self.vector is None else (self.vector,),
            "array": self.array,
            "size": None if self.sizes is None else (),
            "tokens": self.tokens,
        }
        return {kind: shape for kind, shape in shapes.items() if shape is not None}

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """Plain data. Without sizes or tokens their keys are left out, as in old checkpoints."""
        values = asdict(self)
        absent = [key for key in ("sizes", "tokens") if values[key] is None]
        return {key: value for key, value in values.items() if key not in absent}

    def __str__(self) -> str:
        texts = {
            "class": f"{self.classes} classes",
            "vector": f"a vector of {self.vector}",
            "array": f"an array of shape {self.array}",
            "size": "the sizes {} to {} of sets".format(*self.sizes or (0, 0)),
            "tokens": "{} tokens of length {}".format(*self.tokens or (0, 0)),
        }
        return " and ".join(texts[kind] for kind in self.kinds) or "no condition"

    def parts(self, y: Condition, n: int) -> dict[str, Tensor]:
        """The entries of a condition by kind, with their shapes and dtypes checked.

        The numbers are not read, so that a compiled graph may call it.

        Args:
            y: A condition whose tensors have leading dimension n.
            n: Number of samples.

        Returns:
            "class" and "size" of shape (n,), "vector" of shape (n, V), "array" of shape
            (n, C, *sizes), "tokens" of shape (n, T, F), those that the network has.

        Raises:
            TypeError: If classes or sizes are not int64, or other kinds not floating.
            ValueError: If the kinds or shapes are others; the message says which are wanted.
        """
        if not self.kinds:
            raise ValueError("y must be None: the network takes no condition")
        parts = self._by_kind(y)
        for kind, shape in self.kinds.items():
            name, part = self._name(kind), parts[kind]
            if kind == "vector" and shape == (1,) and part.shape == (n,):
                part = parts[kind] = part[:, None]
            floating = kind not in _INTEGER
            if part.is_floating_point() != floating or (not floating and part.dtype == torch.bool):
                wanted = "integer class labels" if kind == "class" else "integer sizes of sets"
                wanted = "floating numbers" if floating else wanted
                raise TypeError(f"{name} must hold {wanted}, got {part.dtype}")
            if part.shape != (n, *shape):
                raise ValueError(
                    f"{name} must have shape {(n, *shape)}, as the network takes {self}, got "
                    f"{tuple(part.shape)}"
                )
        return parts

    def checked(self, y: Condition, n: int) -> Condition:
        """A condition that a caller gave, with its shapes, dtypes and values checked.

        Args:
            y: From `bound_rows` for n samples.
            n: Number of samples.

        Returns:
            The condition; a vector of shape (n,) has become (n, 1).

        Raises:
            TypeError: As for `parts`.
            ValueError: As for `parts`, if a class is not 0 … K − 1, a size outside `sizes`, or if
                a number is not finite.
        """
        parts = self.parts(y, n)
        for kind, part in parts.items():
            if kind == "class":
                self.check_classes(part, self.classes - 1)
            elif kind == "size":
                self._check_range(kind, "sizes of sets", part, *self.sizes)
            elif not math.isfinite(part.sum().item()) and not bool(part.isfinite().all()):
                bad = int((~part.isfinite()).sum())
                raise ValueError(
                    f"{self._name(kind)} must be finite, got {bad} values that are not"
                )
        return self._joined(parts)

    def check_classes(self, y: Tensor, last: int) -> None:
        """Raise ValueError unless every class number is in 0 … last."""
        self._check_range("class", "classes", y, 0, last)

    def _check_range(self, kind: str, what: str, y: Tensor, first: int, last: int) -> None:
        """Raise ValueError unless every number of a kind is in first … last."""
        if y.numel() == 0:
            return
        low, high = (int(v) for v in torch.aminmax(y))
        if low < first or high > last:
            wrong = low if low < first else high
            raise ValueError(f"{self._name(kind)} must hold {what} {first} to {last}, got {wrong}")

    def size(self, y: Condition | None) -> Tensor | None:
        """The sizes of sets in a condition, int64, shape (n,); None if the data are not sets."""
        if self.sizes is None or y is None:
            return None
        return self._by_kind(y)["size"]

    def example(self, n: int, device: torch.device | str = "cpu") -> Condition | None:
        """A condition of n samples that a network takes: class 0, zeros, and the largest sets."""
        parts = {}
        for kind, shape in self.kinds.items():
            dtype = torch.int64 if kind in _INTEGER else torch.float32
            value = self.sizes[1] if kind == "size" else 0
            parts[kind] = torch.full((n, *shape), value, dtype=dtype, device=device)
        return self._joined(parts) if parts else None

    def without(self, y: Condition, rows: Tensor) -> Condition:
        """The condition with "no condition" in some rows: class K, and NaN for numbers.

        The size of a set stays: it says which points exist.

        Args:
            y: A condition of n samples.
            rows: Which samples, bool, shape (n,).
        """
        parts = {}
        for kind, part in self.parts(y, len(rows)).items():
            if kind == "size":
                parts[kind] = part
                continue
            none = self.classes if kind == "class" else math.nan
            parts[kind] = part.masked_fill(rows.reshape(-1, *[1] * (part.ndim - 1)), none)
        return self._joined(parts)

    def selected(self, y: Condition, have: ConditionSpec) -> Condition:
        """Those kinds of a data set's condition that this spec has.

        Args:
            y: A condition of the data, or None.
            have: The conditions of the data; without kinds if they are not described.

        Raises:
            ValueError: If there is no condition, a kind is missing, or differs in size.
        """
        if not self:
            return None
        if y is None:
            raise ValueError(f"the network takes {self}, the data have no condition")
        for name in ("classes", "vector", "array", "sizes", "tokens"):
            own, there = getattr(self, name), getattr(have, name)
            if have and own is not None and own != there:
                raise ValueError(f"the network takes {self}, the data have {have}")
        if isinstance(y, Mapping) and set(self.kinds) <= set(y):
            return self._joined({kind: y[kind] for kind in self.kinds})
        return y

    def _by_kind(self, y: Condition) -> dict[str, Tensor]:
        if len(self.kinds) > 1:
            if not isinstance(y, Mapping) or set(y) != set(self.kinds):
                got = f"the keys {', '.join(y)}" if isinstance(y, Mapping) else type(y).__name__
                raise ValueError(f"y must be a dict with keys {', '.join(self.kinds)}, got {got}")
            return {kind: y[kind] for kind in self.kinds}
        if not isinstance(y, Tensor):
            raise ValueError(f"y must be one tensor for {self}, got a {type(y).__name__}")
        return {kind: y for kind in self.kinds}

    def _joined(self, parts: dict[str, Tensor]) -> Condition:
        return parts if len(parts) > 1 else next(iter(parts.values()))

    def _name(self, kind: str) -> str:
        return f"y[{kind!r}]" if len(self.kinds) > 1 else "y"


def checked_sizes(sizes: tuple[int, int]) -> tuple[int, int]:
    """Least and most number of points of a set, or raise unless 1 ≤ least ≤ most."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) != 2:
        raise ValueError(f"sizes must be two numbers (least, most), got {sizes!r}")
    least = check_integer("the first of sizes", sizes[0], minimum=1)
    most = check_integer("the second of sizes", sizes[1], minimum=1)
    if least > most:
        raise ValueError(f"sizes must be (least, most) with least ≤ most, got ({least}, {most})")
    return least, most


def checked_tokens(tokens: tuple[int, int]) -> tuple[int, int]:
    """Number and length of tokens, or raise unless both are at least 1."""
    if not isinstance(tokens, (tuple, list)) or len(tokens) != 2:
        raise ValueError(f"tokens must be two numbers (T, F), got {tokens!r}")
    count, length = (check_integer("each entry of tokens", n, minimum=1) for n in tokens)
    return count, length
