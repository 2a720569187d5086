"""VE: the SDE of NCSN, whose noise level grows geometrically."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import as_time, check_integer, check_number, equally_spaced, plain_numbers
from .base import SDE

__all__ = ["VE"]


@dataclass(frozen=True)
class VE(SDE):
    """Variance-exploding SDE (NCSN): α = 1, σ(t) = σ_min (σ_max/σ_min)^t.

        g = σ(t) √(2 log(σ_max/σ_min))

    The standard deviation of the kernel is σ(t), as in the paper's code. So x at t = 0 already
    contains noise of standard deviation σ_min; started from clean data, the SDE would have
    √(σ(t)² − σ_min²). Song et al. 2021, arXiv:2011.13456, eq. (9), (30), (31).

    Args:
        sigma_min: σ(0) > 0.
        sigma_max: σ(1) > σ_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("sigma_min", self.sigma_min, above=0)
        check_number("sigma_max", self.sigma_max)
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                "sigma_max must be greater than sigma_min, "
                f"got {self.sigma_max} and {self.sigma_min}"
            )

    @classmethod
    def from_data(cls, x: Tensor, sigma_min: float = 0.01) -> VE:
        """NCSNv2's choice: σ_max is the largest Euclidean distance between two data points.

        Song & Ermon 2020, arXiv:2006.09011, technique 1.

        Args:
            x: Data on the model's scale, shape (n, *D), n ≥ 2. Up to 8192 points all distances are
                computed. Of more points only the 8192 that are farthest from the mean are used.
                With r_1 ≥ r_2 ≥ … the distances from the mean, σ_max is then exact if it is at
                least r_1 + r_8193. Otherwise it may be too small, but the true one is below
                r_1 + r_8193.
            sigma_min: σ(0).

        Raises:
            ValueError: If there are fewer than two points, or no two of them are farther apart
                than `sigma_min`.
        """
        if len(x) < 2:
            raise ValueError(f"x must hold at least 2 data points, got {len(x)}")
        return cls(sigma_min, _largest_distance(x.detach().flatten(1).double()))

    def ladder(self, levels: int | None = None) -> Tensor:
        """Times whose σ are NCSN's geometric sequence from σ_max down to σ_min, shape (L,)."""
        return equally_spaced(1, 0, self._check_levels(levels))

    def ratio(self, levels: int) -> float:
        """γ = σ_{i−1}/σ_i of a ladder of `levels` ≥ 2 levels."""
        return math.exp(self._log_ratio / (self._check_levels(levels) - 1))

    def overlap(self, levels: int, dims: int) -> float:
        """The share of the states of one level that are typical of the next higher level.

            C(γ) = Φ(√(2D) (γ − 1) + 3γ) − Φ(√(2D) (γ − 1) − 3γ),   γ = σ_{i−1}/σ_i

        In many dimensions the length of σ ε is nearly normal with mean √D σ and standard deviation
        σ/√2. C is the probability that the length of σ_i ε is within three standard deviations of
        the mean length of σ_{i−1} ε. If C ≈ 0, a sampler that goes down one level arrives where
        the network has not been trained. Song & Ermon 2020, arXiv:2006.09011, choose γ such that
        C ≈ 0.5 (technique 2).

        Args:
            levels: L ≥ 2, the length of the ladder.
            dims: D ≥ 1, numbers per datum.
        """
        return _overlap(self.ratio(levels), check_integer("dims", dims, minimum=1))

    def levels_for(self, dims: int, overlap: float = 0.5) -> int:
        """The fewest levels, at least 2, whose neighbours overlap by `overlap` or more.

        Args:
            dims: D ≥ 1, numbers per datum.
            overlap: C in (0, 1), see `VE.overlap`.

        Raises:
            ValueError: If that needs more than a million levels.
        """
        check_number("overlap", overlap, above=0, below=1)
        most = 10**6
        if self.overlap(most, dims) < overlap:
            raise ValueError(f"overlap must be one that {most} levels reach, got {overlap}")
        # C rises with L: by bisection.
        return 2 + bisect_left(range(2, most), overlap, key=lambda n: self.overlap(n, dims))

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior: σ_max."""
        return self.sigma_max

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = σ_min (σ_max/σ_min)^t."""
        return self.sigma_min * torch.exp(as_time(t) * self._log_ratio)

    def f(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = σ(t) √(2 log(σ_max/σ_min))."""
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ = −log σ."""
        return (-as_time(lam) - math.log(self.sigma_min)) / self._log_ratio


def _overlap(gamma: float, dims: int) -> float:
    """C(γ) of `VE.overlap`: Φ(a + 3γ) − Φ(a − 3γ), a = √(2D) (γ − 1) ≥ 0."""
    a = math.sqrt(2 * dims) * (gamma - 1)
    # In terms of erfc(z) = 2 Φ(−√2 z), which keeps its digits where Φ is near 1.
    return 0.5 * (
        math.erfc((a - 3 * gamma) / math.sqrt(2)) - math.erfc((a + 3 * gamma) / math.sqrt(2))
    )


_MOST = 8192  # points between which all distances are computed


def _largest_distance(rows: Tensor) -> float:
    """The largest distance between two of the rows (n, D), in 6 digits.

    Fewer digits than float64 has, so that every machine finds the same number.
    """
    if len(rows) > _MOST:
        radii = (rows - rows.mean(0)).norm(dim=1)
        rows = rows[radii.topk(_MOST).indices]
    rows = rows - rows.mean(0)
    largest = 0.0
    for start in range(0, len(rows), 512):
        part = torch.cdist(rows[start : start + 512], rows[start:])
        i, j = divmod(int(part.argmax()), part.shape[1])
        # cdist loses digits by cancellation; the difference does not.
        largest = max(largest, float((rows[start + i] - rows[start + j]).norm()))
    return float(f"{largest:.6g}")
