"""Averages of any length after training, as sums of stored power-function averages.

A sum of averages is the average with the sum of their profiles: Σ x_i w̄_i = ∫ Σ x_i p_i(τ) w(τ) dτ.
So the x_i are chosen such that Σ x_i p_i is close to the wanted profile. Karras et al. 2024,
arXiv:2312.02696, section 3.2 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .._tensor import float64
from .power import power_exponent

__all__ = ["DOUBTFUL", "Profile", "Reconstruction", "inner_products", "reconstruct"]

DOUBTFUL, REFUSED = 0.1, 0.5  # residuals above which a fit deserves a warning, and is an error


class Profile(NamedTuple):
    """The profile of a power-function average:  p(τ) = (γ + 1) τ^γ / t^(γ + 1) for τ in [0, t].

    Attributes:
        sigma_rel: Relative width, which gives γ; see `power_exponent`.
        updates: t, in updates of the average.
    """

    sigma_rel: float
    updates: float


@dataclass(frozen=True)
class Reconstruction:
    """A sum of stored averages.

    Attributes:
        coefficients: The factor x_i of each stored average; their sum is 1.
        residual: ‖Σ x_i p_i − p‖ / ‖p‖. If the weights at different updates are independent around
            a constant, this is the error of the sum in units of the average's own deviation.
    """

    coefficients: tuple[float, ...]
    residual: float


def inner_products(first: Sequence[Profile], second: Sequence[Profile]) -> Tensor:
    """Integrals of products of profiles.

        ∫ p_i p_j dτ = (γ_i + 1)(γ_j + 1) / (γ_i + γ_j + 1) · (t_i/t_j)^γ_j / t_j   for t_i ≤ t_j

    Args:
        first: n profiles.
        second: m profiles.

    Returns:
        Shape (n, m), float64, in 1/updates.
    """
    (g, t), (h, s) = _columns(first), _columns(second)
    g, t = g[:, None], t[:, None]
    latest = torch.maximum(t, s)
    exponent = torch.where(t <= s, h, g)  # that of the later profile
    ratio = torch.minimum(t, s) / latest
    return (g + 1) * (h + 1) / (g + h + 1) * ratio**exponent / latest


def reconstruct(stored: Sequence[Profile], wanted: Profile) -> Reconstruction:
    """The sum of stored averages whose profile is nearest to the wanted one.

    It minimizes ‖Σ x_i p_i − p‖² under Σ x_i = 1. The paper has no such constraint. Without it the
    x_i of a coarse fit have another sum (0.96 for σ_rel = 0.15 from four times), so that all
    weights would be too small by this factor. With it, weights that stay constant are averaged
    exactly, and the residual hardly grows.

    Args:
        stored: Profiles of the stored averages, all different; those after the wanted time get
            x_i = 0.
        wanted: Its time must be a time of the stored averages.

    Raises:
        ValueError: If sigma_rel is out of range, if the time is not a stored one, or if the best
            fit has a residual above 0.5.
    """
    if all(wanted.updates != profile.updates for profile in stored):
        known = ", ".join(f"{t:g}" for t in sorted({profile.updates for profile in stored}))
        raise ValueError(f"updates must be those of a snapshot ({known}), got {wanted.updates:g}")
    used = [profile for profile in stored if profile.updates <= wanted.updates]
    gram, toward = inner_products(used, used), inner_products(used, [wanted])
    size = float(inner_products([wanted], [wanted]))
    x = _constrained_least_squares(gram, toward)
    squared = float(x.T @ gram @ x - 2 * x.T @ toward) + size
    residual = math.sqrt(max(0.0, squared) / size)
    if residual > REFUSED:
        raise ValueError(
            f"sigma_rel {wanted.sigma_rel:g} cannot be made from these snapshots: the residual is "
            f"{residual:.2f}, above {REFUSED:g}; store them more often, or ask for a width nearer "
            "to theirs"
        )
    factors = iter(x[:, 0].tolist())
    return Reconstruction(tuple(next(factors) if p in used else 0.0 for p in stored), residual)


def _constrained_least_squares(gram: Tensor, toward: Tensor) -> Tensor:
    """The minimum of xᵀ G x − 2 xᵀ b under Σ x_i = 1, with a Lagrange multiplier; shape (n, 1)."""
    scale = gram.diagonal().rsqrt()[:, None]  # unit diagonal, for a good condition
    n = len(gram)
    system = torch.zeros(n + 1, n + 1, dtype=gram.dtype)
    system[:n, :n] = scale * gram * scale.T
    system[:n, n] = system[n, :n] = scale[:, 0] / scale.max()
    right = torch.cat([scale * toward, (1 / scale.max()).reshape(1, 1)])
    return scale * torch.linalg.solve(system, right)[:n]


def _columns(profiles: Sequence[Profile]) -> tuple[Tensor, Tensor]:
    """γ and t of profiles, each of shape (n,), float64."""
    gammas = [power_exponent(profile.sigma_rel) for profile in profiles]
    return float64(gammas), float64([float(profile.updates) for profile in profiles])
