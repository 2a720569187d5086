"""Fidelity and coverage from balls around nearest neighbours, with standard errors.

The ball of a row reaches to its k-th nearest neighbour in its own sample. The union of all balls
stands for the support of a distribution.

All standard errors come from influences with fixed radii. A row whose deletion leaves others
without a ball is given what they lose, times n − 1, as by the jackknife, which is never too small
on average (Efron and Stein 1981). The errors are wide. For 256 samples and rows of the reference
(benchmarks/intervals.py) they are 1.5 to 2.2 times the spread of precision and recall, whose 95 %
intervals then hold the mean in 99 to 100 % of cases. For clipped density and coverage they are 1.0
to 1.2 times the spread far from the data (93 to 98 %), and twice the spread near 1 (99 %).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaln, gammaln
from torch import Tensor

from .._tensor import check_integer
from .estimate import Estimate, as_rows, centred, rows_of_pair

__all__ = ["Balls", "DensityCoverage", "PrecisionRecall", "density_coverage", "precision_recall"]

_DISTANCES = 2**22  # 32 MiB of float64 distances at a time


@dataclass(frozen=True)
class Balls:
    """Rows with the distances to their k-th nearest neighbours; made once for a reference.

    Attributes:
        rows: Shape (m, d), float64.
        radii: Distance of each row to its k-th nearest other row, shape (m,).
        k: Number of neighbours.
        own: Share, at most 1, of k clipped balls of other rows that hold each row, shape (m,).
    """

    rows: Tensor
    radii: Tensor
    k: int
    own: Tensor

    @classmethod
    def around(cls, rows: Tensor, k: int) -> Balls:
        """The balls of a sample.

        Args:
            rows: Shape (m, *D), m > k.
            k: Number of neighbours, at least 1.

        Raises:
            TypeError: If `rows` is not a tensor or k not an integer.
            ValueError: If k < 1, m ≤ k, or values are not finite.
        """
        k = check_integer("k", k, minimum=1)
        rows = as_rows(rows, "rows", minimum=k + 1)
        nearest = [d.topk(k + 1, largest=False).values[:, -1] for d in _distances(rows, rows)]
        balls = cls(rows, torch.cat(nearest), k, torch.ones(len(rows), dtype=torch.float64))
        others = _incidence(rows, balls.clipped).of_points - 1  # each row is in its own ball
        return replace(balls, own=(others / k).clamp(max=1))

    @property
    def clipped(self) -> Balls:
        """The same balls, but none larger than the median one."""
        return replace(self, radii=self.radii.clamp(max=float(self.radii.median())))


class PrecisionRecall(NamedTuple):
    """Share of the samples in the support of the data, and of the data in that of the samples."""

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """Clipped density and clipped coverage, both in [0, 1]."""

    clipped_density: Estimate
    clipped_coverage: Estimate


def precision_recall(x: Tensor, reference: Tensor | Balls, k: int = 3) -> PrecisionRecall:
    """Precision and recall by k-nearest-neighbour balls, both in [0, 1].

        precision = mean_i 1{x_i in a ball of y},   recall = mean_j 1{y_j in a ball of x}

    Kynkäänniemi et al. 2019, arXiv:1904.06991, with k = 3. Both depend on n, m
    and k, and are below 1 for equal distributions: print the values of real data of the same n.

    Args:
        x: Samples or features, shape (n, *D), n > k.
        reference: Shape (m, *D), m > k, or its balls, whose k then counts.
        k: Number of neighbours.

    Raises:
        TypeError: If one of the samples is not a tensor.
        ValueError: If a sample is too small or not finite, or the dimensions differ.
    """
    x, balls = _pair(x, reference, k)
    own, n, m = Balls.around(x, balls.k), len(x), len(balls.rows)
    real = _incidence(x, balls).of_points
    fake = _incidence(balls.rows, own).of_points
    # Without a row the points that only its ball holds are lost.
    lost_y = _incidence(x, balls, points=real == 1).of_balls
    lost_x = _incidence(balls.rows, own, points=fake == 1).of_balls
    return PrecisionRecall(
        _estimate("precision", balls.k, (real > 0).double(), lost_y * (m - 1) / n),
        _estimate("recall", balls.k, lost_x * (n - 1) / m, (fake > 0).double(), over=1),
    )


def density_coverage(x: Tensor, reference: Tensor | Balls, k: int = 5) -> DensityCoverage:
    """Clipped density and coverage by the balls of the reference: fidelity and diversity.

        density  = mean_i min(1/k #{j: x_i in clipped ball j}, 1), divided by its value for the
                   reference itself, at most 1
        coverage = f^-1(mean_j min(1/k #{i: x_i in ball j}, 1))

    Salvy, Talbot and Thirion 2025, arXiv:2507.01761. No ball is larger than the median one, so that
    outliers of the reference excuse no bad sample; and no sample or ball counts more than once. f
    is the expected value if only a share of the samples is good, the others being far away
    (`_expected`). Both are then the share of good samples: 1 for equal distributions. The versions
    that are not clipped (Naeem et al. 2020, arXiv:2002.09797, with k = 5 as here) have no such
    meaning: density has no upper bound, and one outlier of the reference can hold all bad samples.

    Args:
        x: Samples or features, shape (n, *D), n ≥ 2.
        reference: Shape (m, *D), m > k, or its balls, whose k then counts.
        k: Number of neighbours.

    Raises:
        TypeError: If one of the samples is not a tensor.
        ValueError: If a sample is too small or not finite, or the dimensions differ.
    """
    x, balls = _pair(x, reference, k)
    n, m, k = len(x), len(balls.rows), balls.k
    held = _incidence(x, balls).of_balls
    # Without a sample each of its balls of at most k samples loses 1/k.
    lost = _incidence(x, balls, held=held <= k).of_points * (n - 1) / m
    coverage = _estimate("clipped_coverage", k, lost / k, held.clamp(max=k) / k, over=1)
    return DensityCoverage(_clipped_density(x, balls), _calibrated(coverage, m, k))


def _clipped_density(x: Tensor, balls: Balls) -> Estimate:
    clipped, k, real = balls.clipped, balls.k, float(balls.own.mean())
    counts = _incidence(x, clipped).of_points
    lost = _incidence(x, clipped, points=counts <= k).of_balls * len(balls.rows) / (k * len(x))
    good = (counts / k).clamp(max=1)
    moves = [good / real, (lost - float(good.mean()) / real * balls.own) / real]
    found = _estimate("clipped_density", k, *moves)
    return replace(found, value=min(found.value, 1.0))


def _calibrated(found: Estimate, m: int, k: int) -> Estimate:
    """The share of good samples at which clipped coverage is expected to have this value."""
    n = found.n[0]
    curve = _expected(np.arange(n + 1), m, k)
    good = float(np.interp(found.value, curve, np.arange(n + 1)))
    at = min(int(good), n - 1)
    slope = n * (curve[at + 1] - curve[at])  # of f in the share of good samples
    moves = tuple(move / slope for move in found.influence)
    return replace(found, value=good / n, std_error=found.std_error / slope, influence=moves)


def _expected(good: np.ndarray, m: int, k: int) -> np.ndarray:
    """E min(J/k, 1) of the number J of good samples in a ball:  1/k Σ_{i=1..k} P(J ≥ i).

    The probability of the ball of the k-th of m − 1 neighbours is Beta(k, m − k), so that J has a
    beta-binomial distribution.

    Args:
        good: Numbers of good samples, shape (L,).
        m: Size of the reference, above k.
        k: Number of neighbours.
    """
    j = np.arange(k)[:, None]
    many = np.maximum(good - j, 0)
    log_choose = gammaln(good + 1) - gammaln(j + 1) - gammaln(many + 1)
    log_p = log_choose + betaln(j + k, many + m - k) - betaln(k, m - k)
    probability = np.where(good >= j, np.exp(log_p), 0.0)  # P(J = j)
    return 1 - ((k - j) * probability).sum(0) / k


class _Incidence(NamedTuple):
    """Weighted numbers of the balls that hold each point (n,), and of points in each ball (m,)."""

    of_points: Tensor
    of_balls: Tensor


def _incidence(
    x: Tensor, balls: Balls, points: Tensor | None = None, held: Tensor | None = None
) -> _Incidence:
    points = torch.ones(len(x)) if points is None else points
    weights = torch.ones(len(balls.rows)) if held is None else held
    points, weights = points.to(x), weights.to(x)
    of_points, of_balls, start = [], torch.zeros_like(balls.radii), 0
    for block in _distances(x, balls.rows):
        inside = (block <= balls.radii).to(x.dtype)
        of_points.append(inside @ weights)
        of_balls += points[start : start + len(block)] @ inside
        start += len(block)
    return _Incidence(torch.cat(of_points), of_balls)


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Distances of some rows of x to all of y, block by block; exactly 0 for equal rows."""
    size = max(1, _DISTANCES // len(y))
    for start in range(0, len(x), size):
        yield torch.cdist(x[start : start + size], y, compute_mode="donot_use_mm_for_euclid_dist")


def _pair(x: Tensor, reference: Tensor | Balls, k: int) -> tuple[Tensor, Balls]:
    rows = reference.rows if isinstance(reference, Balls) else reference
    x, rows = rows_of_pair(x, rows)
    return x, reference if isinstance(reference, Balls) else Balls.around(rows, k)


def _estimate(name: str, k: int, x: Tensor, y: Tensor, over: int = 0) -> Estimate:
    """The mean over the samples (over = 0) or the reference (1), with the influences of both.

    If nothing varies, as for a share of 0 or 1, the error is that of a share with one more success
    and one more failure, so that it is not 0.
    """
    n, m = len(x), len(y)
    own = (x, y)[over]
    variance = float(x.var()) / n + float(y.var()) / m
    least = (1 + 1 / len(own)) / (len(own) + 2) ** 2
    error = max(variance, least) ** 0.5
    return Estimate(float(own.mean()), error, (n, m), f"{name}_k{k}", influence=centred(x, y))
