"""Linear measurements A: the base class `Operator`, and those with equal singular values.

Every operator takes and returns batches, x of shape (B, *shape) and y of shape (B, *measured). The
names `A`, `A_adjoint` and `A_dagger` are those of deepinv's `LinearPhysics`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from .._tensor import check_integer, check_shape

__all__ = ["Downsample", "Grey", "Mask", "Operator", "like_rows", "sample_shape"]

Spectrum = Callable[[Tensor], Tensor]  # g(S), like S


class Operator(ABC):
    """A linear map A = U S Vᵀ from a sample to a measurement, with what inverse problems need.

    Attributes:
        shape: Shape *D of a sample.
        measured: Shape of a measurement.
    """

    shape: tuple[int, ...]
    measured: tuple[int, ...]

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """A x, shape (B, *measured), for x of shape (B, *D)."""

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Aᵀ y, shape (B, *D), for y of shape (B, *measured)."""

    @abstractmethod
    def A_dagger(self, y: Tensor) -> Tensor:  # noqa: N802
        """A⁺ y, shape (B, *D): the shortest x with the least |y − A x|."""

    @abstractmethod
    def solve(self, y: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
        """(a A Aᵀ + b I)⁻¹ y.

        Args:
            y: Shape (B, *measured).
            a: At least 0, a number or one for each sample.
            b: Likewise, above 0.
        """

    @abstractmethod
    def filter(self, x: Tensor, g: Spectrum) -> Tensor:
        """V g(S) Vᵀ x: each right singular vector of A gets the factor g(s); 0 where s = 0.

        Args:
            x: Shape (B, *D).
            g: A function of the singular values s > 0, a tensor; returns a tensor like it.
        """


class _EqualSingularValues(Operator):
    """A map with A Aᵀ = c I, so that all singular values are √c.

    Subclasses set `gain`, which is c.
    """

    gain: float

    def A_dagger(self, y: Tensor) -> Tensor:  # noqa: N802
        """Aᵀ y/c."""
        return self.A_adjoint(y) / self.gain

    def solve(self, y: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
        """y/(a c + b)."""
        return y / (like_rows(a, y) * self.gain + like_rows(b, y))

    def filter(self, x: Tensor, g: Spectrum) -> Tensor:
        """g(√c) AᵀA x/c."""
        factor = g(torch.full((), math.sqrt(self.gain), dtype=torch.float64, device=x.device))
        return self.A_adjoint(self.A(x)) * (factor / self.gain).to(x)


@dataclass(frozen=True, eq=False)
class Mask(_EqualSingularValues):
    """Some entries of a sample, in their order, as a vector of shape (M,).

    Args:
        keep: True where an entry is measured, bool, shape *D, or (1, H, W) and the like for the
            shape given.
        shape: Shape *D of a sample, to which `keep` is expanded; None for that of `keep`.

    Raises:
        TypeError: If `keep` is not bool.
        ValueError: If it keeps nothing, or does not expand to the shape.
    """

    keep: Tensor
    shape: tuple[int, ...] | None = None

    gain = 1.0

    def __post_init__(self) -> None:
        keep = torch.as_tensor(self.keep)
        if keep.dtype != torch.bool:
            raise TypeError(f"keep must be a bool tensor, True where measured, got {keep.dtype}")
        shape = tuple(keep.shape) if self.shape is None else sample_shape(self.shape)
        try:
            keep = keep.expand(shape).clone()
        except RuntimeError:
            raise ValueError(
                f"keep must expand to the shape {shape}, got {tuple(keep.shape)}"
            ) from None
        if keep.ndim == 0 or not bool(keep.any()):
            raise ValueError("keep must be True for at least one entry, got none")
        object.__setattr__(self, "keep", keep)
        object.__setattr__(self, "shape", shape)

    @property
    def measured(self) -> tuple[int, ...]:
        """(M,)."""
        return (int(self.keep.sum()),)

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """The entries that are kept."""
        return x[:, self.keep.to(x.device)]

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """The entries in their places, and 0 elsewhere."""
        x = y.new_zeros(y.shape[0], *self.shape)
        x[:, self.keep.to(y.device)] = y
        return x


@dataclass(frozen=True, eq=False)
class Grey(_EqualSingularValues):
    """The mean over the channels, shape (1, *sizes): the inverse problem is colourization.

    Args:
        shape: Shape (C, *sizes) of a sample.

    Raises:
        ValueError: If the shape has fewer than 2 axes.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", sample_shape(self.shape))
        if len(self.shape) < 2:
            _refuse_shape(self.shape, "channels and sizes, (C, *sizes)")

    @property
    def gain(self) -> float:
        """1/C."""
        return 1 / self.shape[0]

    @property
    def measured(self) -> tuple[int, ...]:
        """(1, *sizes)."""
        return (1, *self.shape[1:])

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """The mean over axis 1."""
        return x.mean(1, keepdim=True)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """y/C in every channel."""
        return (y / self.shape[0]).expand(y.shape[0], *self.shape).clone()


@dataclass(frozen=True, eq=False)
class Downsample(_EqualSingularValues):
    """Means over blocks of `factor` entries along each axis behind the channels.

    Args:
        shape: Shape (C, *sizes) of a sample.
        factor: Length of a block, which divides each size.

    Raises:
        TypeError: If `factor` is not an integer.
        ValueError: If it is less than 1, or does not divide each size.
    """

    shape: tuple[int, ...]
    factor: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", sample_shape(self.shape))
        factor = check_integer("factor", self.factor, minimum=1)
        if len(self.shape) < 2:
            _refuse_shape(self.shape, "channels and sizes, (C, *sizes)")
        if any(size % factor for size in self.shape[1:]):
            raise ValueError(f"factor must divide the sizes {self.shape[1:]}, got {factor}")

    @property
    def gain(self) -> float:
        """1/factor^d for d axes."""
        return float(self.factor) ** -(len(self.shape) - 1)

    @property
    def measured(self) -> tuple[int, ...]:
        """(C, *sizes/factor)."""
        return (self.shape[0], *(size // self.factor for size in self.shape[1:]))

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """The mean of every block."""
        axes = [n for size in self.measured[1:] for n in (size, self.factor)]
        blocks = x.reshape(x.shape[0], self.shape[0], *axes)
        return blocks.mean(tuple(range(3, blocks.ndim, 2)))

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """y/factor^d in every entry of the block."""
        x = y * self.gain
        for axis in range(2, y.ndim):
            x = x.repeat_interleave(self.factor, axis)
        return x


def like_rows(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A number as it is; one number for each sample as shape (B, 1, …, 1), in the dtype of x."""
    if not isinstance(value, Tensor):
        return value
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def sample_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape *D of a sample as Python integers, or raise."""
    return check_shape((1, *shape))[1:]


def _refuse_shape(shape: tuple[int, ...], wanted: str) -> NoReturn:
    raise ValueError(f"shape must have {wanted}, got {shape}")
