"""Synthetic densities in the plane; nearly all points lie inside [−4, 4]².

Samples come from a numpy `Generator`, so that a seed means the same points on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

__all__ = ["DENSITIES", "Curve2D", "Density2D", "Mixture2D"]


@dataclass(frozen=True)
class Density2D:
    """A density in the plane.

    Args:
        sample: (generator, n) → n independent points, float64 (n, 2).
        log_prob: Points (B, 2) → exact log-density in nats (B,), in the dtype of the points;
            −inf outside the support. Exact up to rounding; on a curve it is a quadrature, see
            `Curve2D`.
        entropy: −∫ p log p in nats, with an error below 1e-6: the least mean of −log q that any
            density q reaches on data of p.
        mixture: The Gaussian mixture that the density is; None if it is none.
    """

    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_prob: Callable[[Tensor], Tensor]
    entropy: float
    mixture: Mixture2D | None = None


@dataclass(frozen=True)
class Mixture2D:
    """Gaussian mixture: weights (K,), means (K, 2), covariances (K, 2, 2)."""

    weights: np.ndarray
    means: np.ndarray
    covs: np.ndarray

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n points, shape (n, 2)."""
        k = rng.choice(len(self.weights), size=n, p=self.weights)
        roots = np.linalg.cholesky(self.covs)
        return self.means[k] + np.einsum("nij,nj->ni", roots[k], rng.standard_normal((n, 2)))

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of points (B, 2), shape (B,)."""
        _check_points(x)
        weights, means, covs = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device)
            for v in (self.weights, self.means, self.covs)
        )
        normals = MultivariateNormal(means, covs)
        return MixtureSameFamily(Categorical(weights), normals).log_prob(x)


_BLOCK = 512  # points at a time, so that all nodes for each stay in a processor's cache


@dataclass(frozen=True)
class Curve2D:
    """Points on a curve in the plane with Gaussian noise of standard deviation σ.

        p(x) = ∫ w(θ) N(x; c(θ), σ² I) dθ,   by Gauss–Legendre quadrature

    Where neighbouring nodes are h σ apart, the relative error is about exp(−2π²/h²). For the curves
    below h is at most 0.8, which is an error below rounding.

    Args:
        place: Angles θ (K,) → points of the curve (K, 2).
        ends: First and last angle.
        power: The density w(θ) of the angle is proportional to θ^power.
        noise: Standard deviation σ.
        nodes: Number of nodes.
        mirrored: Whether one half of the mass lies on the curve −c.
    """

    place: Callable[[np.ndarray], np.ndarray]
    ends: tuple[float, float]
    power: int
    noise: float
    nodes: int
    mirrored: bool = False

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of points (B, 2), shape (B,)."""
        _check_points(x)
        node, weight = np.polynomial.legendre.leggauss(self.nodes)
        theta = self.ends[0] + (self.ends[1] - self.ends[0]) * (node + 1) / 2
        weight = weight * theta**self.power
        centre = self.place(theta)
        if self.mirrored:
            centre, weight = np.concatenate([centre, -centre]), np.tile(weight, 2)
        log_weight = np.log(weight / weight.sum()) - math.log(2 * math.pi * self.noise**2)
        centre, log_weight = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (centre, log_weight)
        )
        parts = []
        for points in x.split(_BLOCK):
            across, up = ((points[:, i, None] - centre[:, i]) / self.noise for i in (0, 1))
            parts.append(torch.logsumexp(log_weight - (across**2 + up**2) / 2, dim=-1))
        return torch.cat(parts)


def _checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return 2 * (np.stack([column, row], axis=1) + rng.random((n, 2))) - 4


def _checkerboard_log_prob(x: Tensor) -> Tensor:
    _check_points(x)
    column, row = torch.floor((x + 4) / 2).unbind(-1)
    inside = (x >= -4).all(-1) & (x < 4).all(-1)
    filled = inside & ((column + row) % 2 == 0)
    return torch.where(filled, -math.log(32), -math.inf).to(x.dtype)


_RADII = (1.0, 2.0, 3.0)


def _rings(rng: np.random.Generator, n: int) -> np.ndarray:
    r = rng.choice(_RADII, size=n) + 0.1 * rng.standard_normal(n)
    return r[:, None] * _on_circle(2 * math.pi * rng.random(n))


def _rings_log_prob(x: Tensor) -> Tensor:
    """p(x) = Σ_R N(r; R, 0.1²)/3 · 1/(2πr); the mass at r < 0 is below 1e-23."""
    _check_points(x)
    r = torch.linalg.vector_norm(x, dim=-1)
    rings = Normal(torch.tensor(_RADII, dtype=x.dtype, device=x.device), 0.1)
    log_p_r = torch.logsumexp(rings.log_prob(r.unsqueeze(-1)) - math.log(3), dim=-1)
    return log_p_r - torch.log(2 * math.pi * r)


def _half_circle(theta: np.ndarray) -> np.ndarray:
    return 2 * (_on_circle(theta) - [0.5, 0.25])


def _moons(rng: np.random.Generator, n: int) -> np.ndarray:
    upper = rng.integers(2, size=(n, 1)) == 1
    arc = _on_circle(math.pi * rng.random(n))
    x = np.where(upper, arc - [0.5, 0.25], [0.5, 0.25] - arc)
    return 2 * x + 0.15 * rng.standard_normal((n, 2))


def _arm(theta: np.ndarray) -> np.ndarray:
    return (theta / math.pi)[:, None] * _on_circle(theta)


def _spirals(rng: np.random.Generator, n: int) -> np.ndarray:
    # The square root spreads the points evenly along the arm, not along the angle.
    theta = 3 * math.pi * np.sqrt(rng.random(n))
    sign = rng.choice([-1.0, 1.0], size=n)
    x = (sign * theta / math.pi)[:, None] * _on_circle(theta)
    return x + 0.1 * rng.standard_normal((n, 2))


def _roll(theta: np.ndarray) -> np.ndarray:
    return (theta / (1.5 * math.pi))[:, None] * _on_circle(theta)


def _swissroll(rng: np.random.Generator, n: int) -> np.ndarray:
    theta = 1.5 * math.pi * (1 + 2 * rng.random(n))
    x = (theta / (1.5 * math.pi))[:, None] * _on_circle(theta)
    return x + 0.1 * rng.standard_normal((n, 2))


def _on_circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _check_points(x: Tensor) -> None:
    if x.shape[-1:] != (2,):
        raise ValueError(f"x must have shape (B, 2), got {tuple(x.shape)}")


# Eight Gaussians of standard deviation 0.2 on a circle of radius 3.
_GAUSSIANS8 = Mixture2D(
    np.full(8, 1 / 8),
    3 * _on_circle(np.arange(8) * math.pi / 4),
    np.tile(0.04 * np.eye(2), (8, 1, 1)),
)

# Three correlated Gaussians of unequal weight. The reference values in the tests are for it.
_MIXTURE3 = Mixture2D(
    np.array([0.5, 0.3, 0.2]),
    np.array([[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]]),
    np.array(
        [[[0.2, 0.05], [0.05, 0.1]], [[0.08, -0.03], [-0.03, 0.15]], [[0.05, 0.0], [0.0, 0.05]]]
    ),
)

# Two half circles, two arms and a roll, as in `DENSITIES`.
_MOONS = Curve2D(_half_circle, (0, math.pi), 0, 0.15, 128, mirrored=True)
_SPIRALS = Curve2D(_arm, (0, 3 * math.pi), 1, 0.1, 384, mirrored=True)
_SWISSROLL = Curve2D(_roll, (1.5 * math.pi, 4.5 * math.pi), 0, 0.1, 384)

# The entropies are quadratures in float64; the tests repeat them.
DENSITIES: dict[str, Density2D] = {
    "gaussians8": Density2D(_GAUSSIANS8.sample, _GAUSSIANS8.log_prob, 1.69844275, _GAUSSIANS8),
    "mixture3": Density2D(_MIXTURE3.sample, _MIXTURE3.log_prob, 1.54606537, _MIXTURE3),
    # Uniform on the 8 squares of one colour of a 4×4 board on [−4, 4]²: density 1/32.
    "checkerboard": Density2D(_checkerboard, _checkerboard_log_prob, math.log(32)),
    # Three rings of equal mass: angle uniform, radius r ~ N(R, 0.1²), R = 1, 2, 3.
    "rings": Density2D(_rings, _rings_log_prob, 2.64779852),
    # Two interleaved half circles of radius 2 with Gaussian noise of standard deviation 0.15.
    "moons": Density2D(_moons, _MOONS.log_prob, 2.09455764),
    # Two arms of a spiral, radius 3 θ/(3π) for θ up to 3π, with Gaussian noise of 0.1.
    "spirals": Density2D(_spirals, _SPIRALS.log_prob, 2.49465071),
    # A rolled-up line, radius 3 θ/(4.5π) for θ in 1.5π … 4.5π, with Gaussian noise of 0.1.
    "swissroll": Density2D(_swissroll, _SWISSROLL.log_prob, 2.02668005),
}
