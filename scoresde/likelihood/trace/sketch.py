"""Trace estimates that first find the large part of the Jacobian: Hutch++ and XTrace.

Both use only products v ↦ Jᵀ v. A below therefore stands for Jᵀ, which has the trace of J. Each
sample of a batch has its own matrix. Everything after the products is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._tensor import check_integer, plain_numbers
from ...noise import Noise
from .jacobian import Jacobian, flat_rows
from .rules import TraceRule, as_columns, normal_probes

__all__ = ["HutchPP", "XTrace"]


@dataclass(frozen=True)
class _Sketch(TraceRule):
    """A rule with m = `probes` products that gives m/`share` numbers per sample."""

    share: ClassVar[int]

    probes: int = 6

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("probes", self.probes, minimum=self.share)
        if self.probes % self.share:
            name, wanted = type(self).__name__, f"a multiple of {self.share}"
            raise ValueError(f"probes must be {wanted} for {name}, got {self.probes}")

    @property
    def columns(self) -> int:
        """Numbers per sample: m/`share`."""
        return self.probes // self.share

    def cost(self, dims: int) -> int:
        """Products: m."""
        return self.probes


@dataclass(frozen=True)
class HutchPP(_Sketch):
    """tr(Qᵀ A Q) + gᵀ (I − QQᵀ) A (I − QQᵀ) g,  Q an orthonormal basis of A S.

    S holds m/3 random sign vectors. The trace on the range of A S is exact; the trace of the rest
    of A is Hutchinson's estimate with m/3 sign probes g. Unbiased for any square A; exact if its
    rank is at most m/3. Meyer, Musco, Musco and Woodruff 2021, arXiv:2010.09649, algorithm 1.

    Args:
        probes: m, the number of products of one estimate, a multiple of 3; m/3 is at most D.
    """

    share: ClassVar[int] = 3

    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """S and then g, shape (2m/3, *x.shape)."""
        _check_room(self.columns, x)
        z = normal_probes(2 * self.columns, noise, x)
        return torch.ones_like(z).copysign(z)

    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """The exact part plus the quadratic form of each g, shape (B, m/3)."""
        sketch, g = as_columns(probes).split(self.columns, dim=2)
        q = torch.linalg.qr(_product(jacobian, sketch)).Q
        inside = (q * _product(jacobian, q)).sum((1, 2))
        rest = g - q @ (q.mT @ g)
        return inside[:, None] + (rest * _product(jacobian, rest)).sum(1) + jacobian.offset


@dataclass(frozen=True)
class XTrace(_Sketch):
    """Hutch++ with every product used twice: each probe is tested on the range of the others.

        t_i = tr(Q_iᵀ A Q_i) + ω_iᵀ (I − Q_i Q_iᵀ) A (I − Q_i Q_iᵀ) ω_i
        Q_i = an orthonormal basis of A Ω without its i-th column,   Ω = (ω_1 … ω_{m/2})

    The ω are Gaussian. Each projected ω is scaled to the length √(D − m/2 + 1), its root mean
    square, which removes the variance of the lengths. Unbiased for any square A; exact if its rank
    is below m/2. The standard error is the paper's, though the t_i share their products and are
    not quite independent. Epperly, Tropp and Webber 2024, arXiv:2301.07825, section 2.

    Args:
        probes: m, the number of products of one estimate, even; m/2 is at most D.
    """

    share: ClassVar[int] = 2

    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """The ω, shape (m/2, *x.shape)."""
        _check_room(self.columns, x)
        return normal_probes(self.columns, noise, x)

    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """The t_i, shape (B, m/2)."""
        omega = as_columns(probes)
        dims, k = omega.shape[1:]
        y = _product(jacobian, omega)
        q, r = torch.linalg.qr(y)
        z = _product(jacobian, q)
        # Q_i Q_iᵀ = Q (I − s_i s_iᵀ) Qᵀ, where s_i is orthogonal to the other columns of R.
        s = _left_out(r)
        inside = (q * z).sum((1, 2))[:, None] - (s * (q.mT @ z @ s)).sum(1)
        w = q.mT @ omega
        w = w - s * (s * w).sum(1, keepdim=True)
        rest, image = omega - q @ w, y - z @ w
        outside = (dims - k + 1) * (rest * image).sum(1) / rest.square().sum(1)
        return inside + outside + jacobian.offset


def _product(jacobian: Jacobian, columns: Tensor) -> Tensor:
    """Jᵀ times each column, (B, D, k) to (B, D, k), float64."""
    shape = jacobian.value.shape
    vectors = columns.to(jacobian.value.dtype).unbind(2)
    pulled = [flat_rows(jacobian.vjp(v.reshape(shape))) for v in vectors]
    return torch.stack(pulled, dim=2).to(torch.float64)


def _left_out(r: Tensor) -> Tensor:
    """Unit vectors s_i as columns, each orthogonal to all columns of triangular R but the i-th."""
    diagonal = r.diagonal(dim1=1, dim2=2)
    # If A has a lower rank, R is singular up to rounding, and any small pivot may replace 0.
    floor = torch.finfo(r.dtype).eps * diagonal.abs().amax(1, keepdim=True)
    floor = floor.clamp(min=torch.finfo(r.dtype).tiny ** 0.5)
    pivots = torch.where(diagonal.abs() < floor, floor, diagonal)
    r = r - torch.diag_embed(diagonal) + torch.diag_embed(pivots)
    eye = torch.eye(r.shape[1], dtype=r.dtype, device=r.device).expand_as(r)
    s = torch.linalg.solve_triangular(r.mT, eye, upper=False)
    return s / s.norm(dim=1, keepdim=True)


def _check_room(k: int, x: Tensor) -> None:
    dims = x[0].numel() if len(x) else k
    if k > dims:
        raise ValueError(
            f"probes are too many for D = {dims}: a sketch of {k} columns costs more than the "
            "exact trace"
        )
