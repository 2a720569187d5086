"""The base class of transforms, `Transform`, and chains of them.

A transform maps data x in the user's units to z at the model's scale, one feature at a time:

    z_i = g_i(x_i),   log p(x) = log p(z) + log |det ∂z/∂x|,   log |det ∂z/∂x| = Σ_i log |g_i'(x_i)|

The features are the entries of a vector, the channels of a series, an image or a volume, and the
coordinates of the points of a set. A chain is a tuple of transforms; the first one acts first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..._deferred import refuse
from ..._tensor import check_integer, check_number

__all__ = [
    "Chain",
    "Transform",
    "apply_chain",
    "feature_name",
    "invert_chain",
    "log_det_of_chain",
    "numbers",
]


def feature_name(number: int, names: Sequence[str] | None) -> str:
    """The name of a feature for messages: its own, or "feature 3"; counted from 0."""
    return f"feature {number}" if names is None else f"feature {names[number]!r}"


def numbers(name: str, value: float | Sequence[float]) -> float | tuple[float, ...]:
    """One number for all features, or a tuple with one number for each; checked to be finite."""
    if isinstance(value, (list, tuple, Tensor)):
        if not len(value):
            raise ValueError(f"{name} must hold at least one number, got none")
        return tuple(float(check_number(name, one)) for one in value)
    return float(check_number(name, value))


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """A transform of each feature of the data, by a monotone function of this feature alone.

    Everything is computed in float64; the result has the dtype of the argument.

    Args:
        columns: The features that are transformed, counted from 0; None for all. The numbers of a
            transform are in the order of its columns.
        axis: Axis of the features in data of shape (B, *D): 1 for vectors and channels, −1 for
            sets of points, whose shape is (B, N, F).

    Raises:
        TypeError: If a column or the axis is not an integer.
        ValueError: If a column is negative or given twice, the axis is neither 1 nor −1, or there
            are not as many numbers as columns.
    """

    columns: tuple[int, ...] | None = None
    axis: int = 1

    def __post_init__(self) -> None:
        if self.axis not in (1, -1):
            raise ValueError(f"axis must be 1 or -1, got {self.axis!r}")
        if self.columns is not None:
            columns = tuple(check_integer("columns", c, minimum=0) for c in self.columns)
            if len(set(columns)) != len(columns) or not columns:
                raise ValueError(f"columns must be different features, got {list(columns)}")
            object.__setattr__(self, "columns", columns)
        for name in self.parameters:
            object.__setattr__(self, name, numbers(name, getattr(self, name)))
        sizes = {len(v) for v in self._values() if isinstance(v, tuple)}
        sizes |= set() if self.columns is None else {len(self.columns)}
        if len(sizes) > 1 and any(isinstance(v, tuple) for v in self._values()):
            raise ValueError(
                f"{', '.join(self.parameters)} must have one number for each feature, got {sizes}"
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its numbers."""
        return tuple(f.name for f in fields(self) if f.name not in ("columns", "axis"))

    def check_features(self, features: int) -> None:
        """Raise unless the transform fits data with this number of features.

        Raises:
            ValueError: If a column does not exist, or there are other numbers than features.
        """
        if self.columns is not None and max(self.columns) >= features:
            raise ValueError(
                f"columns must be features 0 … {features - 1} of the data, got {max(self.columns)}"
            )
        for name, value in zip(self.parameters, self._values(), strict=True):
            wanted = features if self.columns is None else len(self.columns)
            if isinstance(value, tuple) and len(value) != wanted:
                raise ValueError(f"{name} must hold {wanted} numbers, got {len(value)}")

    def forward(self, x: Tensor) -> Tensor:
        """z = g(x), from the user's units to the model's scale.

        Args:
            x: Data in units, shape (B, *D).

        Returns:
            Like x; NaN or infinite where x leaves the domain, see `domain`.
        """
        return self._on_columns(x, self._forward)

    def inverse(self, z: Tensor) -> Tensor:
        """x = g⁻¹(z), from the model's scale to the user's units.

        Args:
            z: Data at the model's scale, shape (B, *D).

        Returns:
            Like z.
        """
        return self._on_columns(z, self._inverse)

    def log_slope(self, x: Tensor) -> Tensor:
        """log |∂z/∂x| of each entry, 0 for other columns.

        Args:
            x: Data in units, shape (B, *D).

        Returns:
            Shape (B, *D), float64.
        """
        moved = x.to(torch.float64).movedim(self.axis, -1)
        if self.columns is None:
            return self._log_slope(moved).expand_as(moved).movedim(-1, self.axis)
        at = torch.tensor(self.columns, device=x.device)
        chosen = moved.index_select(-1, at)
        slopes = self._log_slope(chosen).expand_as(chosen)
        return torch.zeros_like(moved).index_copy(-1, at, slopes).movedim(-1, self.axis)

    def log_det(self, x: Tensor) -> Tensor:
        """log |det ∂z/∂x| = Σ log |g'(x)| of each datum, in nats.

        Args:
            x: Data in units, shape (B, *D).

        Returns:
            Shape (B,), float64.
        """
        return self.log_slope(x).flatten(1).sum(1)

    def outside(self, x: Tensor) -> Tensor | None:
        """Which entries leave the domain, bool like x; None if every number lies in it."""
        if self.domain is None:
            return None
        moved = x.to(torch.float64).movedim(self.axis, -1)
        at = torch.tensor(self.columns or range(moved.shape[-1]), device=x.device)
        wrong = self._outside(moved.index_select(-1, at))
        bad = torch.zeros_like(moved, dtype=torch.bool).index_copy(-1, at, wrong)
        return bad.movedim(-1, self.axis)

    @property
    def domain(self) -> str | None:
        """The numbers it accepts, in words: "must be above 0"; None for all."""
        return None

    def _values(self) -> list[float | tuple[float, ...]]:
        return [getattr(self, name) for name in self.parameters]

    def _number(self, name: str, like: Tensor) -> Tensor:
        """A parameter as a float64 tensor that broadcasts against features in the last axis."""
        return torch.tensor(getattr(self, name), dtype=torch.float64, device=like.device)

    def _on_columns(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        moved = x.to(torch.float64).movedim(self.axis, -1)
        if self.columns is None:
            return function(moved).movedim(-1, self.axis).to(x.dtype)
        at = torch.tensor(self.columns, device=x.device)
        out = moved.index_copy(-1, at, function(moved.index_select(-1, at)))
        return out.movedim(-1, self.axis).to(x.dtype)

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """g of float64 features in the last axis."""

    @abstractmethod
    def _inverse(self, z: Tensor) -> Tensor:
        """g⁻¹ of float64 features in the last axis."""

    @abstractmethod
    def _log_slope(self, x: Tensor) -> Tensor:
        """log |g'| of float64 features in the last axis, broadcastable to x."""

    def _outside(self, x: Tensor) -> Tensor:
        """Which float64 features in the last axis leave the domain."""
        return torch.zeros_like(x, dtype=torch.bool)


Chain = tuple[Transform, ...]


def apply_chain(
    chain: Chain, x: Tensor, names: Sequence[str] | None = None, *, first_row: int = 0
) -> Tensor:
    """Data at the model's scale, after a check that they lie in the domain of each transform.

    Args:
        chain: The transforms, the first one acts first.
        x: Data in units, shape (B, *D).
        names: Names of the features, for messages.
        first_row: Number of the first row, for messages.

    Raises:
        ValueError: If an entry leaves a domain; the message names feature, row and value.
    """
    z = x.to(torch.float64)
    for transform in chain:
        _check_domain(transform, z, names, first_row)
        z = transform.forward(z)
    return z.to(x.dtype)


def invert_chain(chain: Chain, z: Tensor) -> Tensor:
    """Data in the user's units, from the model's scale.

    Args:
        chain: The transforms, the last one is undone first.
        z: Data at the model's scale, shape (B, *D).
    """
    x = z.to(torch.float64)
    for transform in reversed(chain):
        x = transform.inverse(x)
    return x.to(z.dtype)


def log_det_of_chain(chain: Chain, x: Tensor, present: Tensor | None = None) -> Tensor:
    """log |det ∂z/∂x| of each datum, in nats, shape (B,), float64.

    Args:
        chain: The transforms.
        x: Data in units, shape (B, *D).
        present: The points of sets that exist, bool (B, N); None counts every entry.
    """
    z = x.to(torch.float64)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for transform in chain:
        slopes = transform.log_slope(z)
        if present is not None:
            slopes = torch.where(present[..., None], slopes, 0.0)
        total = total + slopes.flatten(1).sum(1)
        z = transform.forward(z)
    return total


def _check_domain(
    transform: Transform, x: Tensor, names: Sequence[str] | None, first_row: int
) -> None:
    """Raise ValueError unless all entries lie in the domain of a transform."""
    bad = transform.outside(x.detach())
    if bad is None:
        return
    kind = type(transform).__name__.lower()

    def error(count: int) -> ValueError:
        place = bad.nonzero()[0].tolist()
        feature = feature_name(place[transform.axis], names)
        more = "" if count == 1 else f" ({count} such values)"
        return ValueError(
            f"{feature} {transform.domain} for the transform {kind}, got "
            f"{float(x[tuple(place)]):.6g} in row {first_row + place[0]}{more}"
        )

    refuse(bad, error)
