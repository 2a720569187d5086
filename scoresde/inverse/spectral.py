"""Operators with different singular values: circular blur, and a dense matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._tensor import check_integer, check_number
from ..evaluation import seeded
from .operators import Operator, Spectrum, like_rows, sample_shape

__all__ = ["Blur", "Projection"]

# Singular values below this share of the largest one are rounding of the numbers that were given,
# and count as 0.
_NULL, _NULL_SINGLE = 1e-10, 1e-6


@dataclass(frozen=True, eq=False)
class Blur(Operator):
    """Circular convolution of each channel with a kernel, whose middle is the entry itself.

    In Fourier space A is the product with k̂, the transform of the kernel: S = |k̂|.

    Args:
        kernel: The weights, with d axes and no more entries than the sizes; the middle of an axis
            of n weights is n // 2.
        shape: Shape (C, *sizes) of a sample with d sizes.

    Raises:
        TypeError: If the kernel is complex.
        ValueError: If the kernel is not finite, is 0, or does not fit the shape.
    """

    kernel: Tensor
    shape: tuple[int, ...]
    _transform: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = sample_shape(self.shape)
        kernel = _real("kernel", self.kernel)
        if not bool(kernel.isfinite().all()) or not bool((kernel != 0).any()):
            raise ValueError("kernel must be finite and not 0")
        fits = kernel.ndim == len(shape) - 1
        if not fits or any(n > size for n, size in zip(kernel.shape, shape[1:], strict=True)):
            raise ValueError(
                f"kernel must have {len(shape) - 1} axes no longer than {shape[1:]}, for samples "
                f"of shape {shape}, got {tuple(kernel.shape)}"
            )
        whole = kernel.new_zeros(shape[1:])
        whole[tuple(slice(0, n) for n in kernel.shape)] = kernel
        middle = [-(n // 2) for n in kernel.shape]
        whole = whole.roll(middle, tuple(range(kernel.ndim)))
        transform = torch.fft.fftn(whole)
        largest = transform.abs().max()
        transform[transform.abs() <= _null(self.kernel) * largest] = 0
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "kernel", kernel)
        object.__setattr__(self, "_transform", transform)

    @classmethod
    def gaussian(cls, shape: Sequence[int], std: float, radius: int | None = None) -> Blur:
        """A Gaussian kernel that sums to 1.

        Args:
            shape: Shape (C, *sizes) of a sample.
            std: Standard deviation in entries, above 0.
            radius: The kernel has 2 radius + 1 entries along each axis; None for 3 std, rounded up,
                as far as they fit.
        """
        shape = sample_shape(shape)
        std = check_number("std", std, above=0)
        fitting = (min(shape[1:], default=1) - 1) // 2
        radius = min(math.ceil(3 * std), fitting) if radius is None else radius
        radius = check_integer("radius", radius, minimum=0)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        line = torch.exp(-0.5 * (offsets / std) ** 2)
        kernel = line / line.sum()
        for _ in shape[2:]:
            kernel = kernel[..., None] * (line / line.sum())
        return cls(kernel, shape)

    @property
    def measured(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.shape

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """The convolution."""
        return self._times(x, self._transform)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """The correlation with the kernel."""
        return self._times(y, self._transform.conj())

    def A_dagger(self, y: Tensor) -> Tensor:  # noqa: N802
        """Division by k̂ where it is not 0."""
        k = self._transform
        return self._times(y, torch.where(k == 0, k, 1 / k))

    def solve(self, y: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
        """Division by a |k̂|² + b."""
        power = self._transform.abs().square().to(y)
        total = like_rows(a, y) * power + like_rows(b, y)
        return self._times(y, 1 / total)

    def filter(self, x: Tensor, g: Spectrum) -> Tensor:
        """The product with g(|k̂|)."""
        s = self._transform.abs().to(x.device)
        return self._times(x, torch.where(s == 0, 0.0, g(torch.where(s == 0, 1.0, s))))

    def _times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The real inverse transform of factor · x̂, for factors whose result is real."""
        axes = tuple(range(2, x.ndim))
        kind = torch.promote_types(x.dtype, torch.complex32) if factor.is_complex() else x.dtype
        spectrum = torch.fft.fftn(x, dim=axes) * factor.to(x.device, kind)
        return torch.fft.ifftn(spectrum, dim=axes).real


@dataclass(frozen=True, eq=False)
class Projection(Operator):
    """Scalar products of a sample with the rows of a matrix, shape (M,).

    Args:
        matrix: Shape (M, D), not 0.
        shape: Shape *D of a sample, with D entries; None for (D,).

    Raises:
        TypeError: If the matrix is complex.
        ValueError: If the matrix is not finite, is 0, or does not fit the shape.
    """

    matrix: Tensor
    shape: tuple[int, ...] | None = None
    _factors: tuple[Tensor, Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        matrix = _real("matrix", self.matrix)
        if matrix.ndim != 2:
            raise ValueError(f"matrix must have shape (M, D), got {tuple(matrix.shape)}")
        shape = (matrix.shape[1],) if self.shape is None else sample_shape(self.shape)
        if math.prod(shape) != matrix.shape[1]:
            raise ValueError(
                f"matrix must have {math.prod(shape)} columns for samples of shape {shape}, got "
                f"{matrix.shape[1]}"
            )
        if not bool(matrix.isfinite().all()) or not bool((matrix != 0).any()):
            raise ValueError("matrix must be finite and not 0")
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        used = s > _null(self.matrix) * s[0]
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "_factors", (u[:, used], s[used], vt[used]))

    @classmethod
    def random(cls, shape: Sequence[int], m: int, seed: int) -> Projection:
        """M orthonormal rows, whose span is uniformly distributed.

        Args:
            shape: Shape *D of a sample.
            m: M, at most the number of entries of a sample.
            seed: Seed of the rows.
        """
        shape = sample_shape(shape)
        dim = math.prod(shape)
        m = check_integer("m", m, minimum=1, maximum=dim)
        with seeded(seed):
            normal = torch.randn(dim, m, dtype=torch.float64, device="cpu")
        return cls(torch.linalg.qr(normal)[0].T, shape)

    @property
    def measured(self) -> tuple[int, ...]:
        """(M,)."""
        return (self.matrix.shape[0],)

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """The products with the rows."""
        return x.flatten(1) @ self.matrix.to(x).T

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """The sum of the rows with the weights y."""
        return (y @ self.matrix.to(y)).reshape(-1, *self.shape)

    def A_dagger(self, y: Tensor) -> Tensor:  # noqa: N802
        """V S⁻¹ Uᵀ y."""
        u, s, vt = (factor.to(y) for factor in self._factors)
        return (y @ u / s @ vt).reshape(-1, *self.shape)

    def solve(self, y: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
        """U (a S² + b)⁻¹ Uᵀ y + (y − U Uᵀ y)/b."""
        u, s, _ = (factor.to(y) for factor in self._factors)
        a, b = like_rows(a, y), like_rows(b, y)
        inside = y @ u
        found = (inside / (a * s**2 + b)) @ u.T
        return found if u.shape[0] == u.shape[1] else found + (y - inside @ u.T) / b

    def filter(self, x: Tensor, g: Spectrum) -> Tensor:
        """V g(S) Vᵀ x."""
        _, s, vt = self._factors
        factors, vt = g(s.to(x.device)).to(x), vt.to(x)
        return ((x.flatten(1) @ vt.T * factors) @ vt).reshape(x.shape)


def _real(name: str, given: Tensor) -> Tensor:
    """Numbers in float64, or raise if they are complex."""
    if torch.as_tensor(given).is_complex():
        raise TypeError(f"{name} must hold real numbers, got {torch.as_tensor(given).dtype}")
    return torch.as_tensor(given, dtype=torch.float64)


def _null(given: Tensor) -> float:
    """The share of the largest singular value below which one is 0, for numbers as given."""
    return _NULL if torch.as_tensor(given).dtype == torch.float64 else _NULL_SINGLE
