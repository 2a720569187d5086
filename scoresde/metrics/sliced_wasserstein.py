"""Sliced Wasserstein-2 distance: optimal transport along many lines.

    SW₂² = E_θ W₂²(θ·x, θ·y),   θ uniform on the unit sphere

Bonneel, Rabin, Peyré and Pfister 2015, Sliced and Radon Wasserstein Barycenters of Measures. On a
line the optimal plan joins equal quantiles, so that each W₂ is computed exactly by sorting.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._tensor import check_integer
from .estimate import (
    Estimate,
    centred,
    rows_around_mean,
    slope_at_equality,
    some_rows,
    square_law,
)

__all__ = ["directions", "sliced_wasserstein"]

_HALVED = 500  # rows at most for `_null_moments`: it is only a correction, and need not be precise
_PROJECTIONS_AT_ONCE = 2**21  # 16 MiB of float64 projections at a time; a few copies exist at once


def directions(d: int, projections: int, seed: int = 0) -> Tensor:
    """Fixed directions in orthonormal groups, each direction uniform on the sphere.

    A group of d directions measures a shift of the mean without error, since Σ_θ (θ·δ)² = |δ|²,
    while independent directions scatter. There are at least two groups, so that the scatter
    between groups shows the error of a finite number of directions.

    Args:
        d: Dimension, at least 1.
        projections: Largest number of directions, at least 2; rounded down to whole groups.
        seed: Seed of a separate generator; the global generator is not used.

    Returns:
        Shape (groups, size, d) with size ≤ d, float64.

    Raises:
        TypeError: If one of them is not an integer.
        ValueError: If d < 1, projections < 2 or seed < 0.
    """
    d = check_integer("d", d, minimum=1)
    projections = check_integer("projections", projections, minimum=2)
    seed = check_integer("seed", seed, minimum=0)
    size = min(d, projections // 2)
    gaussian = np.random.default_rng(seed).standard_normal((projections // size, d, size))
    basis, upper = np.linalg.qr(gaussian)
    # QR leaves the signs free; with a positive diagonal the bases are uniform (Haar).
    signs = np.sign(np.diagonal(upper, axis1=1, axis2=2))
    return torch.from_numpy(np.ascontiguousarray((basis * signs[:, None]).transpose(0, 2, 1)))


def sliced_wasserstein(
    x: Tensor, reference: Tensor, *, projections: int = 512, seed: int = 0
) -> Estimate:
    """Sliced W₂ between two samples of any sizes, over fixed seeded directions.

    The standard error covers the finite size of both samples (the variance of the dual potential
    averaged over directions, which is the influence function of SW₂²; Rodríguez-Vítores, del Barrio
    and Loubes 2025, arXiv:2503.18831) and the finite number of directions (scatter between groups).
    Near equal distributions the potential is itself noise, and its variance is twice that of SW₂²
    (`square_law`, with mean and variance for equal distributions from two halves of each sample).
    The bias is not covered: for samples of equal distributions SW₂ is positive, of
    order √(1/n + 1/m). Print the value for two samples of real data of the same sizes beside it.

    Args:
        x: Samples or features, shape (n, *D), n ≥ 2.
        reference: Shape (m, *D), m ≥ 2.
        projections: Number of directions, see `directions`.
        seed: Seed of the directions; use one seed for samples that are compared with each other.

    Returns:
        Estimate in the unit of `x`.

    Raises:
        TypeError: If one of the samples is not a tensor.
        ValueError: If a sample is too small or not finite, the dimensions differ, or there are
            fewer than two projections.
    """
    rows, other, _ = rows_around_mean(x, reference)
    n, m = len(rows), len(other)
    theta = directions(rows.shape[1], projections, seed).to(rows.device)
    groups, size, d = theta.shape
    lines = theta.reshape(-1, d)
    squared, potential_x, potential_y = _transport(rows, other, lines)
    between = squared.reshape(groups, size).mean(1).var() / groups
    plain = float(potential_x.var() / n + potential_y.var() / m)
    (bias_x, scale_x), (bias_y, scale_y) = _null_moments(rows, lines), _null_moments(other, lines)
    excess, bias = (scale_x / n + scale_y / m) ** 2, bias_x / n + bias_y / m
    square = float(squared.mean())
    few = some_rows(other)
    near = slope_at_equality(few @ few.T / d, n, m)  # of shifts, whose noise is the largest
    law = replace(square_law(square, plain, excess + float(between), bias, near), root=True)
    value = math.sqrt(square)
    std_error = law.std_error(value)
    slope = 1 / (2 * value) if value > 0 else 0.0  # of the root
    moves = centred(slope * potential_x, slope * potential_y)
    return Estimate(value, std_error, (n, m), "sliced_w2", "", moves, law)


def _null_moments(x: Tensor, theta: Tensor) -> tuple[float, float]:
    """n times mean and standard deviation of SW₂² between n rows and their own distribution.

    They are estimated from two random halves of x, which have the same distribution. SW₂² between
    the halves is a sum of squares of variables of mean zero, so that the variance of the potentials
    is twice the variance of SW₂². Mean and standard deviation both fall as 1/n + 1/m. With fewer
    than 4 rows the result is 0, and nothing is corrected.
    """
    if len(x) < 4:
        return 0.0, 0.0
    order = np.random.default_rng(0).permutation(len(x))[:_HALVED]
    halves = [x[torch.from_numpy(rows).to(x.device)] for rows in np.array_split(order, 2)]
    squared, *potentials = _transport(*halves, theta)
    variance = sum(float(f.var()) / len(f) for f in potentials) / 2
    sizes = sum(1 / len(half) for half in halves)
    return float(squared.mean()) / sizes, math.sqrt(variance) / sizes


def _transport(x: Tensor, y: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared W₂ along each direction (L,), and mean dual potentials at x (n,) and y (m,)."""
    size = max(1, _PROJECTIONS_AT_ONCE // (len(x) + len(y)))
    plan = _Plan.between(len(x), len(y), x.device)
    squared, potential_x, potential_y = [], torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0])
    for chunk in theta.split(size):
        (xs, order_x), (ys, order_y) = (chunk @ x.T).sort(1), (chunk @ y.T).sort(1)
        gap = xs[:, plan.x] - ys[:, plan.y]
        squared.append(gap.square() @ plan.mass)
        potential_x += _potential(xs, ys, order_x)
        potential_y += _potential(ys, xs, order_y)
    return torch.cat(squared), potential_x / len(theta), potential_y / len(theta)


class _Plan(NamedTuple):
    """Optimal plan between n and m sorted points of equal weight: pairs and the mass they move."""

    x: Tensor
    y: Tensor
    mass: Tensor

    @classmethod
    def between(cls, n: int, m: int, device: torch.device) -> _Plan:
        """Overlay of the quantile steps k/n and k/m, exact because it counts in units of 1/(nm)."""
        steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
        start = torch.from_numpy(steps[:-1]).to(device)
        mass = torch.from_numpy(np.diff(steps) / (n * m)).to(device)
        return cls(start // m, start // n, mass)


def _potential(own: Tensor, other: Tensor, order: Tensor) -> Tensor:
    """Sum over directions of the dual potential f of each point, in the points' own order.

    Along the optimal plan f_{i+1} − f_i = (x_{i+1} − y)² − (x_i − y)², where y is the partner at
    the level (i + 1)/n, where x_i ends and x_{i+1} begins. If y changes at exactly this level, the
    mean of both partners is used.

    Args:
        own: Sorted projections, shape (L, n).
        other: Sorted projections of the other sample, shape (L, m).
        order: Position of each sorted point in the sample, shape (L, n).

    Returns:
        Shape (n,).
    """
    n, m = own.shape[1], other.shape[1]
    level = torch.arange(1, n, device=own.device) * m
    partner = other[:, (level - 1) // n] + other[:, level // n]  # just below and just above
    steps = own.diff(dim=1) * (own[:, 1:] + own[:, :-1] - partner)
    potential = torch.nn.functional.pad(steps.cumsum(1), (1, 0))
    # The constant is free in each direction; centring keeps the sum over directions small.
    potential = potential - potential.mean(1, keepdim=True)
    return torch.zeros_like(potential).scatter_(1, order, potential).sum(0)
