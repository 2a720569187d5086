"""Fréchet distance between the Gaussian fits of two samples in a named feature space.

    FD = |μ₁ − μ₂|² + tr(S₁ + S₂ − 2 (S₁^½ S₂ S₁^½)^½)

Dowson and Landau 1982, The Fréchet distance between multivariate normal distributions. The
published "FID" is this number in the features of one Inception network. In any other feature space
the number differs, so it is called `fd_<space>` here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._tensor import check_integer
from .estimate import Estimate, as_rows, centred, row_mean, square_law

__all__ = ["GaussianStats", "frechet_bias", "frechet_distance"]

_SINGLE, _DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class GaussianStats:
    """Mean and covariance of a sample of features, with the label of the feature space.

    Args:
        mean: Tensor or array of shape (d,); kept as a float64 tensor.
        cov: Unbiased covariance (divisor n − 1), shape (d, d), zeros if n = 1; kept as float64.
            A covariance that was computed in float32 is accepted: it may be unsymmetric, and its
            smallest eigenvalues may be negative, by d·1.2e-7 (at least 1e-5) of the largest.
        n: Number of samples, at least 1.
        space: Label of the feature space (`FeatureSpace.label`: name and hash).

    Raises:
        TypeError: If n is not an integer, or `mean` or `cov` do not hold real numbers.
        ValueError: If n < 1, shapes do not fit, values are not finite or `cov` is not symmetric.
    """

    mean: Tensor
    cov: Tensor
    n: int
    space: str = "raw"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_integer("n", self.n, minimum=1))
        for name in ("mean", "cov"):
            object.__setattr__(self, name, _real(name, getattr(self, name)))
        d = self.mean.numel()
        if self.mean.shape != (d,) or self.cov.shape != (d, d) or d == 0:
            raise ValueError(
                f"mean and cov must have shapes (d,) and (d, d), got {tuple(self.mean.shape)} "
                f"and {tuple(self.cov.shape)}"
            )
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.cov).all()):
            raise ValueError("mean and cov must be finite, got non-finite values")
        if float((self.cov - self.cov.T).abs().max()) > _rounding(d) * float(self.cov.abs().max()):
            raise ValueError("cov must be symmetric")
        object.__setattr__(self, "cov", (self.cov + self.cov.T) / 2)

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor], space: str = "raw") -> GaussianStats:
        """Statistics of features, given at once or in batches of any sizes.

        Args:
            features: Shape (n, *D), or an iterable of such batches; a batch of one is allowed.
            space: Label of the feature space.

        Raises:
            TypeError: If a batch is not a tensor.
            ValueError: If there are no features, values are not finite or dimensions differ.
        """
        batches = [features] if isinstance(features, Tensor) else features
        total: GaussianStats | None = None
        for batch in batches:
            stats = cls._of_rows(as_rows(batch, "features", minimum=1), space)
            total = stats if total is None else total.merge(stats)
        if total is None:
            raise ValueError("features must hold at least 1 samples, got 0")
        return total

    @classmethod
    def _of_rows(cls, rows: Tensor, space: str) -> GaussianStats:
        mean = row_mean(rows)
        centred = rows - mean
        return cls(mean, centred.T @ centred / max(len(rows) - 1, 1), len(rows), space)

    def merge(self, other: GaussianStats) -> GaussianStats:
        """Statistics of both samples together, without cancellation (Chan et al. 1979).

        Raises:
            ValueError: If the feature spaces or dimensions differ.
        """
        _check_spaces(self, other)
        n = self.n + other.n
        shift = other.mean - self.mean
        scatter = (self.n - 1) * self.cov + (other.n - 1) * other.cov
        scatter = scatter + torch.outer(shift, shift) * (self.n * other.n / n)
        return GaussianStats(self.mean + shift * (other.n / n), scatter / (n - 1), n, self.space)


def frechet_distance(
    x: Tensor | GaussianStats, reference: Tensor | GaussianStats, *, space: str = "raw"
) -> Estimate:
    """Fréchet distance between Gaussian fits, with an analytic standard error.

    The distance changes to first order in the weight of a row x of the first sample by

        φ(x) = |u|² − uᵀ T u + 2 (μ₁ − μ₂)·u,   u = x − μ₁,
        T = S₁^-½ (S₁^½ S₂ S₁^½)^½ S₁^-½,   the optimal map between the two Gaussians,

    so that Var φ/n is the variance caused by this sample (delta method); the second sample is
    treated in the same way. Near equal distributions φ is itself noise and Var φ/n is twice the
    variance, which `square_law` corrects. The standard error covers the finite size of
    every sample given as features. Given statistics count as exact; if both samples are statistics,
    the standard error is NaN. It does not cover the bias, which is larger near equal distributions:
    two samples of one Gaussian give `frechet_bias` on average, d(d+1)/(2n) + 2d/n for n = m and
    covariance I. `Estimate.interval` holds
    the mean estimate at this n, its bias included, in 92 to 100 % of cases (n = 256 and 1,000 in 2
    to 64 dimensions, at, near and far from equal distributions; benchmarks/intervals.py).

    Args:
        x: Features, shape (n, *D), or their statistics; n ≥ 2.
        reference: Features of the reference, shape (m, *D), or their statistics; m ≥ 2.
        space: Label of the feature space of the tensors (`FeatureSpace.label`).

    Returns:
        Estimate in squared units of the features. Its note says if n ≤ d: then the covariance is
        singular, and the distance is real and finite, but mostly bias.

    Raises:
        TypeError: If a sample is neither a tensor nor statistics.
        ValueError: If a sample is too small or not finite, or the feature spaces or dimensions
            differ.
    """
    first, second = _stats(x, "x", space), _stats(reference, "reference", space)
    _check_spaces(first, second)
    here, there = _Root.of(first.cov), _Root.of(second.cov.to(first.cov))
    # The singular values of S₁^½ S₂^½ are the roots of the eigenvalues of S₁^½ S₂ S₁^½.
    left, cross, right = torch.linalg.svd(here.root @ there.root)
    gap = first.mean - second.mean.to(first.mean)
    traces = first.cov.trace() + second.cov.trace().to(gap)
    value = float((gap.square().sum() + traces - 2 * cross.sum()).clamp(min=0))  # rounding
    plain, noise, rows = 0.0, torch.zeros_like(first.cov), []
    sides = ((x, first, gap, here, left), (reference, second, -gap, there, right.mT))
    for sample, stats, shift, own, basis in sides:
        if not isinstance(sample, Tensor):
            rows.append(gap.new_zeros(0))
            continue
        u = as_rows(sample).to(gap.device) - stats.mean.to(gap)
        moved = (u @ own.inverse @ basis).square() @ cross  # uᵀ T u
        rows.append(u.square().sum(1) - moved + 2 * (u @ shift))
        plain += float(rows[-1].var()) / stats.n
        noise += stats.cov.to(noise) / stats.n
    std_error, law = math.nan, None
    if isinstance(x, Tensor) or isinstance(reference, Tensor):
        bias, excess, near = _null_moments(noise)
        law = square_law(value, plain, excess, bias, near)
        std_error = law.std_error(value)
    d, sizes = len(first.mean), (first.n, second.n)
    note = f"n = {min(sizes)} <= d = {d}: singular covariance" if min(sizes) <= d else ""
    moves = () if law is None else centred(*rows)
    return Estimate(value, std_error, sizes, f"fd_{first.space}", note, moves, law)


def frechet_bias(cov: Tensor, n: float, m: float) -> float:
    """Mean distance between two samples of one Gaussian N(μ, S), to leading order in 1/n and 1/m.

        (1/n + 1/m) (tr S + ½ Σ_ij (1 + δ_ij) λ_i λ_j/(λ_i + λ_j)),   λ the eigenvalues of S

    The first term comes from the means. The second comes from the Wishart scatter of the
    covariances in the second-order expansion of the distance. For S = I the sum is
    (1/n + 1/m) (d + d(d+1)/4). Features are not Gaussian, so this number is only a guide for them:
    print the distance between two samples of real data instead.

    Args:
        cov: S, shape (d, d).
        n: Size of one sample; `math.inf` for a known distribution.
        m: Size of the other sample; `math.inf` for a known distribution.

    Raises:
        ValueError: If a size is below 2 or `cov` is not positive semi-definite.
    """
    for name, size in (("n", n), ("m", m)):
        if not size >= 2:
            raise ValueError(f"{name} must be at least 2, got {size}")
    cov = cov.to(torch.float64)
    _spectrum(cov)
    return _null_moments(cov)[0] * (1 / n + 1 / m)


def _real(name: str, values: Tensor | np.ndarray) -> Tensor:
    """Real numbers as a float64 tensor."""
    try:
        values = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must hold real numbers, got {type(values).__name__}") from error
    if values.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
    return values.to(torch.float64)


def _stats(x: Tensor | GaussianStats, name: str, space: str) -> GaussianStats:
    """Statistics of features, or the given statistics, checked."""
    if not isinstance(x, GaussianStats):
        return GaussianStats._of_rows(as_rows(x, name), space)
    if x.n < 2:
        raise ValueError(f"{name} must hold at least 2 samples, got {x.n}")
    _spectrum(x.cov)
    return x


def _check_spaces(first: GaussianStats, second: GaussianStats) -> None:
    if first.space != second.space:
        raise ValueError(
            f"statistics must be of the same feature space, got {first.space} and {second.space}"
        )
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"statistics must have the same dimension, got {len(first.mean)} and {len(second.mean)}"
        )


class _Root(NamedTuple):
    """Symmetric square root of a covariance, and its pseudo-inverse; both (d, d)."""

    root: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, cov: Tensor) -> _Root:
        lam, basis = torch.linalg.eigh(cov)
        # If the smallest eigenvalue is below 0, all eigenvalues of its size are rounding errors.
        # For a singular covariance in float32 the root of each would add √1e-7 to the cross term.
        keep = lam > torch.maximum(-lam[0], _DOUBLE * len(lam) * lam[-1])
        scales = torch.where(keep, lam, 0.0).sqrt()
        inverses = torch.where(keep, 1 / scales, 0.0)
        return cls((basis * scales) @ basis.T, (basis * inverses) @ basis.T)


def _null_moments(noise: Tensor) -> tuple[float, float, float]:
    """Mean and variance of the distance between Gaussian fits to two samples of one Gaussian.

        mean      Σ_k m_k,   variance  2 Σ_k m_k²,   slope  4 Σ_k m_k³/Σ_k m_k²

    This distance is a sum of squares, |δμ|² + ½ Σ_ij (δS_ij)²/(λ_i + λ_j) in the eigenbasis of S,
    with λ the eigenvalues of `noise`. The terms are independent, and have the means m_k: λ_i for
    δμ_i, λ_i/2 for δS_ii and λ_i λ_j/(λ_i + λ_j) for δS_ij and δS_ji together. A square of mean m
    of a normal variable has the variance 2 m². The slope is that of a `SquareLaw` at equality.

    Args:
        noise: S₁/n + S₂/m, shape (d, d), without the term of a known distribution.
    """
    lam = torch.linalg.eigvalsh(noise).clamp(min=0)
    pairs = _harmonic(lam)

    def total(power: int) -> float:
        off = pairs.pow(power).sum() - pairs.diagonal().pow(power).sum()
        return float(lam.pow(power).sum() + pairs.diagonal().pow(power).sum() + off / 2)

    squares = total(2)
    return total(1), 2 * squares, 4 * total(3) / squares if squares > 0 else 0.0


def _harmonic(lam: Tensor) -> Tensor:
    """λ_i λ_j/(λ_i + λ_j), shape (d, d), 0 where both are 0."""
    pairs = lam[:, None] + lam
    return torch.where(pairs > 0, torch.outer(lam, lam) / pairs.clamp(min=1e-300), 0.0)


def _spectrum(cov: Tensor) -> Tensor:
    """Eigenvalues of a covariance, shape (d,), checked to be non-negative up to rounding."""
    lam = torch.linalg.eigvalsh(cov)
    if float(lam[0]) < -_rounding(len(lam)) * max(float(lam[-1]), 0.0):
        raise ValueError(
            f"cov must be positive semi-definite, got an eigenvalue of {float(lam[0]):g} "
            f"beside a largest one of {float(lam[-1]):g}"
        )
    return lam.clamp(min=0)


def _rounding(d: int) -> float:
    """Relative error of a (d, d) covariance that was computed and kept in float32."""
    return max(d * _SINGLE, 1e-5)
