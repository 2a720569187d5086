"""Fréchet distance between the Gaussian fits of two samples in a named feature space.

    FD = |μ₁ − μ₂|² + tr(S₁ + S₂ − 2 (S₁^½ S₂ S₁^½)^½)

Dowson and Landau 1982, The Fréchet distance between multivariate normal distributions. The
published "FID" is this number in the features of one Inception network; in any other space it is
another number, so it is called `fd_<space>` here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .estimate import Estimate, as_rows, check_count

__all__ = ["GaussianStats", "frechet_bias", "frechet_distance"]


@dataclass(frozen=True)
class GaussianStats:
    """Mean and covariance of a sample of features, and which features they are.

    Args:
        mean: Shape (d,), float64.
        cov: Unbiased covariance (divisor n − 1), shape (d, d), float64; zeros if n = 1.
        n: Number of samples, at least 1.
        space: Label of the feature space (`FeatureSpace.label`: name and hash).

    Raises:
        ValueError: If n < 1, shapes do not fit, values are not finite or `cov` is not symmetric.
    """

    mean: Tensor
    cov: Tensor
    n: int
    space: str = "raw"

    def __post_init__(self) -> None:
        check_count("n", self.n, 1)
        d = self.mean.numel()
        if self.mean.shape != (d,) or self.cov.shape != (d, d) or d == 0:
            raise ValueError(
                f"mean and cov must have shapes (d,) and (d, d), got {tuple(self.mean.shape)} "
                f"and {tuple(self.cov.shape)}"
            )
        if not bool(torch.isfinite(self.mean).all() and torch.isfinite(self.cov).all()):
            raise ValueError("mean and cov must be finite, got non-finite values")
        if not torch.allclose(self.cov, self.cov.T, rtol=1e-8, atol=1e-12 * _scale(self.cov)):
            raise ValueError("cov must be symmetric")

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor], space: str = "raw") -> GaussianStats:
        """Statistics of features, given at once or in batches of any sizes.

        Args:
            features: Shape (n, *D), or an iterable of such batches (a last batch of one counts).
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
        mean = rows.mean(0)
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
    x: Tensor | GaussianStats,
    reference: Tensor | GaussianStats,
    *,
    space: str = "raw",
    blocks: int = 20,
) -> Estimate:
    """Fréchet distance between Gaussian fits, with a jackknife standard error.

    The standard error is that of a jackknife which leaves out one of `blocks` blocks of a sample
    at a time; rows are dealt to blocks by a fixed permutation, so sorted samples do no harm. It
    covers the finite size of every sample given as features; statistics are taken as exact, and
    with two of them it is NaN. Near equal distributions it is on the safe side, by a factor of
    about 1.4. It does not cover the bias, which outweighs it there: two samples of one Gaussian
    give `frechet_bias` on average, d(d+1)/(2n) + 2d/n for n = m and covariance I.

    Args:
        x: Features, shape (n, *D), or their statistics; n ≥ 2.
        reference: The same of the reference, m ≥ 2.
        space: Label of the feature space that the tensors live in (`FeatureSpace.label`).
        blocks: Blocks of the jackknife, at least 2; fewer if a sample is smaller.

    Returns:
        Estimate in squared units of the features; its note says if n ≤ d, where the covariance
        is singular (the distance is real and finite, but mostly bias).

    Raises:
        TypeError: If a sample is neither a tensor nor statistics.
        ValueError: If a sample is too small or not finite, or the feature spaces or dimensions
            differ.
    """
    check_count("blocks", blocks, 2)
    first, second = _stats(x, "x", space), _stats(reference, "reference", space)
    _check_spaces(first, second)
    variances = []
    if isinstance(x, Tensor):
        variances.append(_jackknife(x, second, blocks))
    if isinstance(reference, Tensor):
        variances.append(_jackknife(reference, first, blocks))
    std_error = math.sqrt(sum(variances)) if variances else math.nan
    d, sizes = len(first.mean), (first.n, second.n)
    note = f"n = {min(sizes)} <= d = {d}: singular covariance" if min(sizes) <= d else ""
    value = float(_distances(first.mean, first.cov, second))
    return Estimate(value, std_error, sizes, f"fd_{first.space}", note)


def frechet_bias(cov: Tensor, n: float, m: float) -> float:
    """What two samples of one Gaussian N(μ, S) give on average, to leading order in 1/n and 1/m.

        (1/n + 1/m) (tr S + ½ Σ_ij (1 + δ_ij) λ_i λ_j/(λ_i + λ_j)),   λ the eigenvalues of S

    The first term is from the means, the second from the Wishart scatter of the covariances, put
    into the second-order expansion of the distance. For S = I it is (1/n + 1/m) (d + d(d+1)/4).
    Features are not Gaussian, so for them it is a guide; the floor between two real samples is
    the number to print.

    Args:
        cov: S, shape (d, d).
        n: Size of one sample; of a known distribution `math.inf`.
        m: Size of the other.

    Raises:
        ValueError: If a size is below 2 or `cov` is not positive semi-definite.
    """
    for name, size in (("n", n), ("m", m)):
        if not size >= 2:
            raise ValueError(f"{name} must be at least 2, got {size}")
    lam = _spectrum(cov)
    pairs = lam[:, None] + lam
    ratio = torch.where(pairs > 0, torch.outer(lam, lam) / pairs.clamp(min=1e-300), 0.0)
    spread = (ratio.sum() + ratio.diagonal().sum()) / 2
    return float((lam.sum() + spread) * (1 / n + 1 / m))


def _stats(x: Tensor | GaussianStats, name: str, space: str) -> GaussianStats:
    """Statistics of features, or given ones, checked."""
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


def _distances(mean: Tensor, cov: Tensor, other: GaussianStats) -> Tensor:
    """Distances (…,) of Gaussians with means (…, d) and covariances (…, d, d) to another one.

    Through singular values: those of S₁^½ S₂^½ are the roots of the eigenvalues of S₁^½ S₂ S₁^½.
    A singular covariance makes some of the latter ±1e-16 instead of 0, and their roots 1e-8.
    """
    gap = (mean - other.mean.to(mean)).square().sum(-1)
    traces = cov.diagonal(dim1=-2, dim2=-1).sum(-1) + other.cov.trace().to(cov)
    cross = torch.linalg.svdvals(_root(cov) @ _root(other.cov).to(cov)).sum(-1)
    return (gap + traces - 2 * cross).clamp(min=0)  # only rounding can take it below 0


def _root(cov: Tensor) -> Tensor:
    """Symmetric square roots of covariances (…, d, d); eigenvalues rounded below 0 count as 0."""
    lam, basis = torch.linalg.eigh(cov)
    return (basis * lam.clamp(min=0).sqrt()[..., None, :]) @ basis.mT


def _spectrum(cov: Tensor) -> Tensor:
    """Eigenvalues of a covariance, shape (d,), checked to be non-negative up to rounding."""
    lam = torch.linalg.eigvalsh(cov.to(torch.float64))
    if float(lam[0]) < -1e-8 * _scale(cov):
        raise ValueError(f"cov must be positive semi-definite, got eigenvalue {float(lam[0]):g}")
    return lam.clamp(min=0)


def _scale(cov: Tensor) -> float:
    return float(cov.abs().max())


def _jackknife(x: Tensor, other: GaussianStats, blocks: int) -> float:
    """Variance of the distance to `other`, from leaving out one block of rows at a time."""
    values = _distances(*_leave_one_out(as_rows(x), blocks), other)
    return float(values.var(correction=0)) * (len(values) - 1)


def _leave_one_out(rows: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Means (blocks, d) and covariances (blocks, d, d) of the rows without one block each.

    The block's share is taken out of the whole: (N − n) S' = N S − n S_b − nN/(N − n) δδᵀ in terms
    of the divisor-N covariances, δ = μ_b − μ, which is `GaussianStats.merge` run backwards.
    """
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows))).to(rows.device)
    centred = rows - rows.mean(0)
    scatter = centred.T @ centred
    means, covs = [], []
    for block in order.chunk(min(blocks, len(rows))):
        part, left = centred[block], len(rows) - len(block)
        shift = part.mean(0)
        inner = (part - shift).T @ (part - shift)
        taken = inner + torch.outer(shift, shift) * (len(block) * len(rows) / left)
        means.append(rows.mean(0) - shift * (len(block) / left))
        covs.append((scatter - taken) / max(left - 1, 1))
    return torch.stack(means), torch.stack(covs)
