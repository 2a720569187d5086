"""From integer levels to points: distributions q(x | k) for bounds on the probability P(k).

P(k) is the integral of p over the cell of k. For every q, Jensen's inequality gives
P(k) ≥ exp E_q[log p(x) − log q(x | k)]; `dequantized.py` computes the mean. The bound is close if q
is close to p in the cell. Results of different q are not comparable, so each q has a name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..batches import Batch
from ..data.spec import DataSpec
from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node

__all__ = [
    "Continuous",
    "Dequantization",
    "Points",
    "TruncatedNormalDequantization",
    "UniformDequantization",
    "dequantize",
]


@dataclass(frozen=True)
class Points:
    """A draw from q(x | k), and its density.

    Attributes:
        x: Points at the model's scale, shape (B, *D).
        log_q: The number subtracted from log p(x) for a bound on log P(k), in nats at the model's
            scale: log q(x | k), or log q(x | k) − log P(k | x) with a decoder (`GaussianNoising`).
            Shape (B,), float64.
    """

    x: Tensor
    log_q: Tensor


class Dequantization(ABC):
    """A distribution q(x | k) of the point x that replaces the datum k.

    Subclasses are frozen dataclasses. Sample i depends on its own stream of `noise` only.

    Attributes:
        random: Whether x is random.
        noised: Whether x is a sample of the forward process at t. Otherwise x is a datum without
            noise that is treated as such a sample.
        encodes: Whether x is the latent of a datum, which has another shape than k.
    """

    random: ClassVar[bool] = True
    noised: ClassVar[bool] = False
    encodes: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the dequantization in results."""

    def like_points(self, model: ScoreModel, k: Tensor, dtype: torch.dtype) -> Tensor:
        """A tensor of the shape and dtype of the points, for checks before they are drawn.

        Args:
            model: The model.
            k: The data, shape (B, *D).
            dtype: Dtype of the points.

        Raises:
            ValueError: If there are no such points of this model.
        """
        return k.to(dtype)

    @abstractmethod
    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """Draw x ~ q(x | k), one point per sample.

        Args:
            batch: The model of the density of x at time t, and the source of the draw.
            k: Integer levels of this batch, shape (B, *D).
            spec: Range and number of levels.
            t: Start time of x.
            dtype: Dtype of x.

        Returns:
            The points with log q.

        Raises:
            TypeError: If k does not hold integers.
            ValueError: If the data are continuous or a level is out of range.
        """


@dataclass(frozen=True)
class Continuous(Dequantization):
    """x = k for real data: nothing is drawn, and the bound is the log-density itself."""

    name = "continuous"
    random = False

    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """x = k, real data at the model's scale, and log q = 0."""
        if spec.levels is not None:
            raise ValueError(f"spec must be of continuous data, got {spec.levels} levels")
        return Points(k.to(dtype), k.new_zeros(len(k), dtype=torch.float64))


@dataclass(frozen=True)
class UniformDequantization(Dequantization):
    """x uniform in the cell of k, log q = −D log(span/levels).

    Theis, van den Oord and Bethge 2016, arXiv:1511.01844, section 3.1. P(k) is the integral of
    p_t over the cell: x is treated as a sample of p at t and is not scaled by α(t). It suits models
    that were trained on uniformly dequantized data, as ours are.
    """

    name = "uniform"

    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """`dequantize`; the model and t are not used."""
        x = dequantize(k, spec, batch.noise, dtype)
        log_volume = math.prod(k.shape[1:]) * math.log(spec.span / spec.levels)
        log_q = torch.full(k.shape[:1], -log_volume, dtype=torch.float64, device=k.device)
        return Points(x, log_q)


@dataclass(frozen=True)
class TruncatedNormalDequantization(Dequantization):
    """x = α c + σ z with c the centre of the cell and z ~ N(0, 1) truncated to |z| ≤ τ.

        τ = α h/σ,   h = span/(2 levels) half the width of a cell
        log q = −D log(σ √(2π) Z) − |z|²/2,   Z = Φ(τ) − Φ(−τ)

    Zheng et al. 2023, "Improved Techniques for Maximum Likelihood Estimation for Diffusion ODEs",
    arXiv:2305.03935. q is the forward process at t from the centre, truncated to the cell scaled by
    α, and P(k) is the integral of p_t over the scaled cell. If the model was trained on the centres
    and τ is large, q and p_t agree and the bound is nearly sharp. If it was trained on uniformly
    dequantized data, p_t fills the cell, and for large τ the bound is loose by up to
    log(h √2/(σ √(πe))) nats per dimension. For τ → 0 q is `UniformDequantization` of scaled cells.
    """

    name = "truncated-normal"
    noised = True

    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """x from the inverse distribution function; one normal draw per entry."""
        centre = cell_centre(k, spec)
        tau = 0.5 * t.alpha * spec.span / spec.levels / t.sigma
        z = truncated_normal(batch.noise.fresh(centre), tau)
        x = (t.alpha * centre + t.sigma * z).to(dtype)
        mass = math.erf(tau / math.sqrt(2))  # Z
        log_q = log_normal(x, t.alpha * centre, t.sigma)
        return Points(x, log_q - math.prod(k.shape[1:]) * math.log(mass))


def dequantize(
    k: Tensor, spec: DataSpec, noise: Noise, dtype: torch.dtype = torch.float32
) -> Tensor:
    """x = low + (high − low) (k + u)/levels with u ~ U(0, 1): a point in the cell of each level.

    Args:
        k: Integer levels, shape (B, *D).
        spec: Range and number of levels.
        noise: Source of the draws.
        dtype: Dtype of x.

    Returns:
        x at the model's scale, shape (B, *D).

    Raises:
        TypeError: If k does not hold integers.
        ValueError: If the data are continuous or a level is out of range.
    """
    return spec.dequantize(k, noise.uniform(k)).to(dtype)


def cell_centre(k: Tensor, spec: DataSpec) -> Tensor:
    """`spec.encode` in float64."""
    return spec.dequantize(k, torch.full((), 0.5, dtype=torch.float64, device=k.device))


def truncated_normal(z: Tensor, tau: float) -> Tensor:
    """N(0, 1) truncated to [−τ, τ], by an increasing map of N(0, 1) draws.

        z ↦ Φ⁻¹(Φ(−τ) + Φ(z) (1 − 2 Φ(−τ)))

    Only lower tails are computed (that of −z for z > 0), because a probability near 1 would be
    rounded. For large τ the map is the identity, even beyond 8σ, where Φ is 1 in float64.

    Args:
        z: Draws, any shape, float64.
        tau: τ > 0.

    Returns:
        Shape of z.
    """
    below = 0.5 * math.erfc(tau / math.sqrt(2))
    tail = 0.5 * torch.erfc(z.abs() / math.sqrt(2))  # torch's ndtr rounds to 0 below −8.3
    return torch.special.ndtri(below + tail * (1 - 2 * below)).copysign(z)


def log_normal(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(x; mean, std² I) in nats, shape (B,), computed in float64.

    Args:
        x: Shape (B, *D).
        mean: Like x.
        std: Positive.
    """
    dims = math.prod(x.shape[1:])
    z = (x.to(torch.float64) - mean).reshape(x.shape[0], dims) / std
    return -0.5 * (z**2).sum(1) - dims * math.log(std * math.sqrt(2 * math.pi))
