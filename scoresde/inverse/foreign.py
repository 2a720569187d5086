"""Operators of other libraries, such as the physics of deepinv, by what they can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .operators import Operator, Spectrum, like_rows, sample_shape

__all__ = ["Foreign", "as_operator"]

MOST_STEPS = 500  # of the conjugate gradients; exact arithmetic needs one for each measured number
_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}  # of |residual|/|y|, above rounding
_NULL = 1e-5  # share of the largest singular value below which deepinv's `A_dagger` takes one for 0
_ROUNDING = 1e-3  # of float32 through a long chain of operations; a wrong adjoint is further off


@dataclass(frozen=True, eq=False)
class Foreign(Operator):
    """Any object with the methods `A(x)` and `A_adjoint(y)`, both linear, as an `Operator`.

    A⁺ and (a A Aᵀ + b I)⁻¹ are computed by conjugate gradients on A Aᵀ; its own `A_dagger` is used
    if it has one. If it has the methods `V` and `V_adjoint` and the singular values `mask`, as
    deepinv's `DecomposablePhysics`, then `filter` is computed with them, and it is refused
    otherwise. If the object holds float32 tensors alone, float64 samples are rounded for it.

    All methods ran with these linear physics of deepinv 0.5 as they are: Inpainting, Denoising,
    Downsampling, Blur, BlurFFT, Decolorize, Demosaicing, CompressedSensing, StructuredRandom,
    SinglePixelCamera, MRI, Tomography. `DDRM` takes those that are a `DecomposablePhysics`.

    Args:
        physics: The object; one of deepinv's `LinearPhysics`, for example.
        shape: Shape *D of a sample.

    Raises:
        TypeError: If a method is missing.
        ValueError: If A does not take samples of this shape, returns no batch, or `A_adjoint` is
            not its adjoint, as for a measurement that is not linear.
    """

    physics: Any
    shape: tuple[int, ...]
    measured: tuple[int, ...] = field(init=False)
    _dtype: torch.dtype | None = field(init=False, repr=False)
    _spectral: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = type(self.physics).__name__
        for method in ("A", "A_adjoint"):
            if not callable(getattr(self.physics, method, None)):
                raise TypeError(f"operator must have the method {method}, which {name} lacks")
        shape = sample_shape(self.shape)
        object.__setattr__(self, "shape", shape)
        own = next((t for t in _tensors(self.physics) if t.is_floating_point()), None)
        object.__setattr__(self, "_dtype", None if own is None else own.dtype)
        zeros = torch.zeros(1, *shape, device="cpu" if own is None else own.device)
        try:
            y = self.A(zeros)
            back = self.A_adjoint(y).shape
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"operator {name} does not take samples of {shape}: {error}") from None
        if not isinstance(y, Tensor) or y.ndim < 2 or y.shape[0] != 1:
            raise ValueError(f"operator {name} must return one measurement for each sample")
        if tuple(back) != (1, *shape):
            raise ValueError(
                f"operator {name} does not take samples of {shape}: A_adjoint(A(x)) has shape "
                f"{tuple(back)}"
            )
        object.__setattr__(self, "measured", tuple(y.shape[1:]))
        waves = _waves(zeros)
        self._check_adjoint(waves)
        object.__setattr__(self, "_spectral", self._is_spectral(waves))

    def _check_adjoint(self, x: Tensor) -> None:
        """Raise unless (A x)·z = x·(Aᵀ z) for one z."""
        y = self.A(x)
        z = _waves(y)
        back = self.A_adjoint(z)
        gap = float((y * z).sum(dtype=torch.float64) - (x * back).sum(dtype=torch.float64))
        size = float(y.norm() * z.norm() + x.norm() * back.norm())
        if not abs(gap) <= _ROUNDING * size:
            raise ValueError(
                f"operator {type(self.physics).__name__} must be linear with A_adjoint as its "
                f"adjoint: (A x)·z and x·(Aᵀ z) differ by {gap:.3g}, where |A x| |z| is "
                f"{float(y.norm() * z.norm()):.3g}"
            )

    def _is_spectral(self, x: Tensor) -> bool:
        """Whether the object has V and S with V S² Vᵀ x = Aᵀ A x."""
        has = all(callable(getattr(self.physics, name, None)) for name in ("V", "V_adjoint"))
        if not has or not isinstance(getattr(self.physics, "mask", None), Tensor):
            return False
        wanted = self.A_adjoint(self.A(x))
        try:
            found = self._filtered(x, torch.square)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return False
        same = found.shape == wanted.shape
        return same and bool((found - wanted).norm() <= _ROUNDING * wanted.norm())

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """A x of the object."""
        return self._called(self.physics.A, x)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Aᵀ y of the object."""
        return self._called(self.physics.A_adjoint, y)

    def A_dagger(self, y: Tensor) -> Tensor:  # noqa: N802
        """A⁺ y of the object if it has it, otherwise Aᵀ (A Aᵀ)⁻¹ y."""
        if callable(getattr(self.physics, "A_dagger", None)):
            return self._called(self.physics.A_dagger, y)
        return self.A_adjoint(self.solve(y, 1.0, 0.0))

    def solve(self, y: Tensor, a: float | Tensor, b: float | Tensor) -> Tensor:
        """Conjugate gradients on a A Aᵀ + b I; each sample has its own steps."""
        a, b = like_rows(a, y), like_rows(b, y)
        precision = torch.promote_types(self._dtype or torch.float32, torch.float32)
        least = max(_TOLERANCE[precision], _TOLERANCE.get(y.dtype, 1e-6))
        goal = (least * _norm(y)) ** 2
        found, rest = torch.zeros_like(y), y.clone()
        way, square = rest.clone(), _norm(rest) ** 2
        for _ in range(MOST_STEPS):
            going = square > goal
            if not bool(going.any()):
                return found
            image = a * self.A(self.A_adjoint(way)) + b * way
            curve = (way * image).flatten(1).sum(1).reshape(square.shape)
            # A sample that has arrived, or whose rest is in the null space, stays where it is.
            length = torch.where(going & (curve > 0), square / curve, 0.0)
            found, rest = found + length * way, rest - length * image
            before, square = square, _norm(rest) ** 2
            way = rest + square / before.clamp(min=torch.finfo(y.dtype).tiny) * way
        raise RuntimeError(
            f"the conjugate gradients did not converge in {MOST_STEPS} steps for the operator "
            f"{type(self.physics).__name__}; give it the methods `solve` and `filter`"
        )

    def filter(self, x: Tensor, g: Spectrum) -> Tensor:
        """V g(S) Vᵀ x, with V and S of the object.

        Raises:
            ValueError: If it does not have them.
        """
        if not self._spectral:
            raise ValueError(
                f"operator {type(self.physics).__name__} does not tell its singular values; take a "
                "method that needs none, such as PiGDM or DDNM"
            )
        return self._filtered(x, g)

    def _filtered(self, x: Tensor, g: Spectrum) -> Tensor:
        """V g(S) Vᵀ x; V may lead to complex numbers."""
        own = self._dtype or x.dtype
        s = self.physics.mask.abs().to(torch.float64)
        null = s <= _NULL * s.max()
        factor = torch.where(null, 0.0, g(torch.where(null, 1.0, s))).to(own)
        return self.physics.V(factor * self.physics.V_adjoint(x.to(own))).to(x.dtype)

    def _called(self, method: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        rounded = self._dtype not in (None, x.dtype)
        found = method(x.to(self._dtype)) if rounded else method(x)
        return found.to(x.dtype) if isinstance(found, Tensor) and rounded else found


def as_operator(operator: Any, shape: Sequence[int] | None = None) -> Operator:
    """An `Operator` as it is, another object as a `Foreign` one.

    Args:
        operator: The operator, or an object with `A` and `A_adjoint`.
        shape: Shape *D of a sample of the model, or None if the model does not know it.

    Raises:
        TypeError: If a method is missing.
        ValueError: If the shapes do not fit, or that of a foreign object is not known.
    """
    if not isinstance(operator, Operator):
        shape = getattr(operator, "shape", None) if shape is None else shape
        if shape is None:
            raise ValueError(
                f"operator must be Foreign({type(operator).__name__}, shape), because the model "
                "does not know the shape of its data"
            )
        return Foreign(operator, tuple(shape))
    if shape is not None and tuple(shape) != operator.shape:
        raise ValueError(
            f"operator must take samples of shape {tuple(shape)}, those of the model, got one for "
            f"{operator.shape}"
        )
    return operator


def _tensors(physics: Any) -> list[Tensor]:
    """The parameters and buffers of a module; nothing for other objects."""
    if not isinstance(physics, torch.nn.Module):
        return []
    return [*physics.parameters(), *physics.buffers()]


def _waves(x: Tensor) -> Tensor:
    """Numbers like x that repeat no pattern, the same each time."""
    return torch.cos(1 + torch.arange(x.numel(), dtype=x.dtype, device=x.device)).reshape(x.shape)


def _norm(y: Tensor) -> Tensor:
    """Length of each measurement, shape (B, 1, …, 1)."""
    return y.flatten(1).norm(dim=1).reshape(-1, *[1] * (y.ndim - 1))
