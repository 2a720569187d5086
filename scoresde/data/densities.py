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

__all__ = ["DENSITIES", "Density2D", "Mixture2D"]


@dataclass(frozen=True)
class Density2D:
    """A density in the plane.

    Args:
        sample: (generator, n) → n independent points, float64 (n, 2).
        log_prob: Points (B, 2) → exact log-density in nats (B,), in the dtype of the points;
            −inf outside the support. None if the density has no closed form.
        mixture: The Gaussian mixture that the density is; None if it is none.
    """

    sample: Callable[[np.random.Generator, int], np.ndarray]
    log_prob: Callable[[Tensor], Tensor] | None = None
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


def _moons(rng: np.random.Generator, n: int) -> np.ndarray:
    upper = rng.integers(2, size=(n, 1)) == 1
    arc = _on_circle(math.pi * rng.random(n))
    x = np.where(upper, arc - [0.5, 0.25], [0.5, 0.25] - arc)
    return 2 * x + 0.15 * rng.standard_normal((n, 2))


def _spirals(rng: np.random.Generator, n: int) -> np.ndarray:
    # The square root spreads the points evenly along the arm, not along the angle.
    theta = 3 * math.pi * np.sqrt(rng.random(n))
    sign = rng.choice([-1.0, 1.0], size=n)
    x = (sign * theta / math.pi)[:, None] * _on_circle(theta)
    return x + 0.1 * rng.standard_normal((n, 2))


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

DENSITIES: dict[str, Density2D] = {
    "gaussians8": Density2D(_GAUSSIANS8.sample, _GAUSSIANS8.log_prob, _GAUSSIANS8),
    "mixture3": Density2D(_MIXTURE3.sample, _MIXTURE3.log_prob, _MIXTURE3),
    # Uniform on the 8 squares of one colour of a 4×4 board on [−4, 4]²: density 1/32.
    "checkerboard": Density2D(_checkerboard, _checkerboard_log_prob),
    # Three rings of equal mass: angle uniform, radius r ~ N(R, 0.1²), R = 1, 2, 3.
    "rings": Density2D(_rings, _rings_log_prob),
    # Two interleaved half circles of radius 2 with Gaussian noise of standard deviation 0.15.
    "moons": Density2D(_moons),
    # Two arms of a spiral, radius 3 θ/(3π) for θ up to 3π, with Gaussian noise of 0.1.
    "spirals": Density2D(_spirals),
    # A rolled-up line, radius 3 θ/(4.5π) for θ in 1.5π … 4.5π, with Gaussian noise of 0.1.
    "swissroll": Density2D(_swissroll),
}
