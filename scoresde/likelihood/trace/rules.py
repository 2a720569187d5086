"""The trace of a Jacobian: exact, and Hutchinson's unbiased estimate.

A `TraceRule` chooses vectors, multiplies a Jacobian with them, and computes estimates of the trace
from the products.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._tensor import check_choice, check_integer, plain_numbers
from ...noise import Noise
from .jacobian import Jacobian, flat_rows, quadratic_forms

__all__ = [
    "ExactTrace",
    "Hutchinson",
    "TraceRule",
    "as_columns",
    "error_of_mean",
    "normal_probes",
]

PROBES = ("rademacher", "gaussian", "orthogonal")


class TraceRule(ABC):
    """Estimates of the trace of a Jacobian from its products with some vectors.

    `estimate` gives several numbers per sample, each with mean tr J over the probes. The rule's
    estimate is the mean of these numbers. If the probes are kept along a path, each number can be
    integrated separately, and `std_error` holds for the integrals, because integration is linear.
    """

    @property
    @abstractmethod
    def columns(self) -> int:
        """How many numbers `estimate` gives per sample."""

    @abstractmethod
    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """Probes for the points x of shape (B, *D).

        Args:
            noise: Source of randomness; None for a rule that needs none.
            x: The points, of which only shape, dtype and device matter.

        Returns:
            Shape (m, B, *D), dtype of x; the probes of a sample depend on its stream alone.

        Raises:
            ValueError: If there is no noise, or more probes than D allows.
        """

    @abstractmethod
    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """Unbiased estimates of tr J.

        Args:
            jacobian: From `linearize`.
            probes: From `draw`, for the samples of this Jacobian.

        Returns:
            Shape (B, columns), float64.
        """

    @abstractmethod
    def cost(self, dims: int) -> int:
        """Derivative passes of one estimate in D = `dims` dimensions."""

    def std_error(self, estimates: Tensor, dims: int) -> Tensor:
        """Standard error of the mean of estimates (B, columns): their deviation/√columns.

        Args:
            estimates: From `estimate`, or their integrals with the same probes.
            dims: D.

        Returns:
            Shape (B,); NaN for a single column, whose spread is not known.
        """
        return error_of_mean(estimates, dim=1)


@dataclass(frozen=True)
class ExactTrace(TraceRule):
    """tr J = Σ_i e_iᵀ J e_i from D products; no randomness."""

    @property
    def columns(self) -> int:
        """1."""
        return 1

    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """No probes, shape (0, B, *D)."""
        return x.new_empty(0, *x.shape)

    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """The trace, shape (B, 1)."""
        value = jacobian.value
        total = torch.zeros(len(value), dtype=torch.float64, device=value.device)
        # one at a time: all unit vectors at once would take D times the memory of x
        for i in range(math.prod(value.shape[1:])):
            e = torch.zeros_like(flat_rows(value))
            e[:, i] = 1
            total += flat_rows(jacobian.vjp(e.reshape(value.shape)))[:, i]
        return total[:, None] + jacobian.offset

    def cost(self, dims: int) -> int:
        """D."""
        return dims

    def std_error(self, estimates: Tensor, dims: int) -> Tensor:
        """0."""
        return torch.zeros_like(estimates[:, 0])


@dataclass(frozen=True)
class Hutchinson(TraceRule):
    """vᵀ J v for each of K probes v with E[v vᵀ] = I.

    Hutchinson 1989, "A stochastic estimator of the trace of the influence matrix"; for flows,
    Grathwohl et al. 2019 (FFJORD), arXiv:1810.01367. With S = (J + Jᵀ)/2 one probe has variance

        rademacher   entries ±1                                   2 Σ_{i≠j} S_ij²
        gaussian     entries N(0, 1)                              2 Σ_ij S_ij²
        orthogonal   uniform on the sphere of radius √D,          2D/(D + 2) (Σ_ij S_ij² − tr² S/D)
                     each orthogonal to the earlier probes

    The mean of K probes has 1/K of this variance. For K orthogonal probes there is the further
    factor (D − K)/(D − 1), because they are draws without replacement from a basis; K = D probes
    give the trace exactly. An antithetic probe −v is useless, because it gives the same number as
    v.

    The k-th probe of a sample depends neither on the number of probes nor on the batch.

    Args:
        probe: One of the above.
        probes: K ≥ 1; at most D if orthogonal.
    """

    probe: str = "rademacher"
    probes: int = 1

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("probe", self.probe, PROBES)
        check_integer("probes", self.probes, minimum=1)

    @property
    def columns(self) -> int:
        """One number per probe."""
        return self.probes

    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """The probes, shape (K, *x.shape), in the dtype of x."""
        z = normal_probes(self.probes, noise, x)
        if self.probe == "rademacher":
            return torch.ones_like(z).copysign(z)
        return _orthogonal(z) if self.probe == "orthogonal" else z

    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """Each probe's quadratic form, shape (B, K)."""
        return quadratic_forms(jacobian, probes) + jacobian.offset

    def cost(self, dims: int) -> int:
        """K."""
        return self.probes

    def std_error(self, estimates: Tensor, dims: int) -> Tensor:
        """Standard deviation over the probes / √K; NaN for K = 1.

        Orthogonal probes have the further factor √(1 − K/D), the correction for draws without
        replacement.
        """
        error = error_of_mean(estimates, dim=1)
        if self.probe != "orthogonal":
            return error
        return error * math.sqrt(1 - self.probes / dims) if self.probes < dims else 0 * error


def as_columns(probes: Tensor) -> Tensor:
    """Probes (k, B, *D) as the columns of a matrix for each sample, (B, D, k), float64."""
    k, n, *shape = probes.shape
    return probes.reshape(k, n, math.prod(shape)).permute(1, 2, 0).to(torch.float64)


def normal_probes(n: int, noise: Noise | None, x: Tensor) -> Tensor:
    """Probes from N(0, I), shape (n, *x.shape), drawn from the stream of each sample.

    Raises:
        ValueError: If there is no noise.
    """
    if noise is None:
        raise ValueError("an estimated trace needs probes: give seed or noise")
    return torch.stack([noise.probe(x) for _ in range(n)])


def error_of_mean(estimates: Tensor, dim: int) -> Tensor:
    """Standard error of the mean over independent estimates: their deviation / √n.

    Args:
        estimates: Any shape.
        dim: The axis of the n ≥ 1 estimates.

    Returns:
        The shape without that axis; NaN for n = 1.
    """
    n, mean = estimates.shape[dim], estimates.mean(dim, keepdim=True)
    if n == 1:
        return torch.full_like(mean, math.nan).squeeze(dim)
    return ((estimates - mean).square().sum(dim) / (n - 1) / n).sqrt()


def _orthogonal(z: Tensor) -> Tensor:
    """For each sample, orthogonal vectors of length √D made from Gaussian ones, (K, B, *D)."""
    columns = as_columns(z)
    dims, k = columns.shape[1:]
    if k > dims:
        raise ValueError(f"probes must be at most D = {dims} if they are orthogonal, got {k}")
    directions = torch.linalg.qr(columns).Q * math.sqrt(dims)
    return directions.permute(2, 0, 1).reshape(z.shape).to(z)
