"""Exact problems in y = x/α and σ/α, which do not depend on the noise schedule of a library.

Data lie within ±1, so that clipping the predicted x_0 to this range changes nothing.

- the mixture: three correlated Gaussians in the plane, for the distance to exact end points
- the Gaussian: N(0.075, 0.125²), for the moments of samplers that draw noise
- the point: all data equal 0.3; each ODE solution is 0.3 + σ ε, so that the end tells its σ
"""

from __future__ import annotations

import math
from functools import cache

import torch
from scipy.integrate import OdeSolution, solve_ivp
from torch import Tensor

from ..exact import GaussianMixture
from ..interop.samplers import Denoiser, Levels
from ..sde import VP, Node
from .orders import mixture as plane_mixture
from .orders import starts

__all__ = [
    "EVEN",
    "POINT",
    "UNEVEN",
    "gaussian_denoiser",
    "gaussian_moments",
    "gaussian_states",
    "mixture_denoiser",
    "mixture_states",
    "point_denoiser",
    "point_states",
]

SCALE = 0.25  # of the data of `orders`
MEAN, STD = 0.3 * SCALE, 0.5 * SCALE
POINT = 0.3
SIGMA_MAX, SIGMA_MIN = 5.0, 0.02
EVEN, UNEVEN = (Levels(SIGMA_MAX, SIGMA_MIN, uneven) for uneven in (False, True))
TOLERANCE = 1e-11
NEAR_DATA = 1e-6  # below this σ the solution changes by less than 1e-10


def mixture_denoiser() -> Denoiser:
    """The denoiser of the mixture in the plane."""
    return Denoiser(_mixture_x0)


def _mixture_x0(y: Tensor, sigma: float) -> Tensor:
    # λ does not enter the closed form
    node = Node(0.0, 1.0, sigma / SCALE, 0.0, 0.0, 0.0, 0.0, 0.0)
    return SCALE * _mixture().x0(y / SCALE, node)


@cache
def _mixture() -> GaussianMixture:
    return plane_mixture(VP())


@cache
def _solution() -> OdeSolution:
    """The probability-flow ODE of all starts as a function of λ = −log σ."""

    def rhs(lam: float, y: Tensor) -> Tensor:
        sigma, state = math.exp(-lam), torch.from_numpy(y).reshape(-1, 2)
        return (_mixture_x0(state, sigma) - state).flatten().numpy()

    span = (-math.log(SIGMA_MAX), -math.log(NEAR_DATA))
    begin = (starts(VP()) * SIGMA_MAX).flatten().numpy()
    solved = solve_ivp(
        rhs, span, begin, "DOP853", rtol=TOLERANCE, atol=TOLERANCE, dense_output=True
    )
    if not solved.success:
        raise RuntimeError(f"no reference solution: {solved.message}")
    return solved.sol


@torch.no_grad()
def mixture_states(sigma: float) -> Tensor:
    """The 49 exact solutions of the mixture's ODE at a noise level, 0 included, shape (49, 2)."""
    lam = -math.log(min(max(sigma, NEAR_DATA), SIGMA_MAX))
    return torch.from_numpy(_solution()(lam)).reshape(-1, 2)


def gaussian_denoiser() -> Denoiser:
    """The denoiser of N(m, d²): (m σ² + y d²)/(σ² + d²)."""
    return Denoiser(lambda y, sigma: (MEAN * sigma**2 + y * STD**2) / (sigma**2 + STD**2))


def gaussian_moments(sigma: float) -> tuple[float, float]:
    """Mean and standard deviation of y at a noise level."""
    return MEAN, math.hypot(STD, sigma)


def gaussian_states(sigma: float, n: int) -> Tensor:
    """n quantiles of y at a noise level, rescaled to the exact variance, shape (n, 1).

    They are shuffled, so that a sampler whose samples share noise cannot profit from their order.
    """
    mean, std = gaussian_moments(sigma)
    q = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    q = q / q.square().mean().sqrt()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return (mean + std * q[order])[:, None]


def point_states(sigma: float) -> Tensor:
    """`POINT` ± σ, 500 samples of each, shape (1000, 1)."""
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(500)
    return (POINT + sigma * signs)[:, None]


def point_denoiser() -> Denoiser:
    """The denoiser of data that all equal `POINT`."""
    return Denoiser(lambda y, sigma: torch.full_like(y, POINT))
