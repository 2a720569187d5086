"""What a network does at each noise level under one reading, in numbers with standard errors.

If ε̂ = E[ε | z], the following holds at every level κ of z = x_0 + κ ε:

    E⟨ε̂, ε⟩ = E|ε̂|²                       the slope of ε on ε̂ is 1
    E|D − x_0|² = κ² E tr ∂D/∂z             the error of the denoised mean is the one it claims
    E D = E x_0                             the denoised data have the mean of the data

The second is Tweedie's formula for the variance, Cov[x_0 | z] = κ² ∂D/∂z (Efron 2011,
doi:10.1198/jasa.2011.tm11181, section 2). The trace is a difference along one random direction η:
η·(D(z + h κ η) − D(z))/(h κ), of which the terms even in h vanish on average.

The third holds for each pixel. At large κ, D is the mean of the data of the training, also for a
network that was trained for a short time. So it shows data that are not like those of the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .measure import Measured
from .reading import Reading

__all__ = ["LEAST_LINEAR", "Level", "facts", "like_linear", "unlike", "useless"]

LEAST_LINEAR = 0.1  # error of the linear denoiser, which is below it at κ = 3 standard deviations
USELESS = 1.02  # ratio of the error to that of the linear denoiser
UNLIKE = 0.1  # bias above which data are not like those of the training

STEP = 0.1  # h
PROBE_DRAW = 500  # of the noise, for η; the draws below are those of the noise levels


@dataclass(frozen=True)
class Level:
    """The facts at one noise level; all are per dimension.

    Attributes:
        kappa: The noise level κ, at the scale of the data.
        claimed: Error |ε̂ − ε|²/D of the claim; None if the claim has no such level.
        error: Error under the last reading.
        std_error: Its standard error.
        linear: Error of the best linear denoiser of one variance.
        variance: Mean of ε̂².
        residual: Mean of (ε̂ − ε)² minus the square of the mean of ε̂ − ε.
        correlation: Correlation of ε̂ and ε.
        slope: Slope of ε on ε̂, which is 1 for the optimum.
        slope_error: Its standard error.
        own: The error κ^−2 E|D − x_0|²/D that the network itself claims by its derivative; that of
            the optimum is `error`.
        own_error: Standard error of the difference of `error` and `own`.
        bias: |E D − E x_0|²/D as a share of the variance of the data, without the part by chance.
        bias_z: How surprising the bias is if its expectation is 0, as a quantile of the normal
            distribution.
    """

    kappa: float
    claimed: float | None
    error: float
    std_error: float
    linear: float
    variance: float
    residual: float
    correlation: float
    slope: float
    slope_error: float
    own: float
    own_error: float
    bias: float
    bias_z: float


def unlike(levels: Iterable[Level], limit: float) -> float | None:
    """The largest bias at any level, if it is above `UNLIKE` beyond doubt; otherwise None.

    Args:
        levels: The facts.
        limit: Standard errors beyond which there is no doubt.
    """
    shares = [level.bias for level in levels if level.bias > UNLIKE and level.bias_z > limit]
    return max(shares, default=None)


def like_linear(levels: Sequence[Level], limit: float) -> bool:
    """Whether the error is below that of the best linear denoiser at no level, beyond doubt."""
    return all(level.error + limit * level.std_error > level.linear for level in levels)


def useless(levels: Sequence[Level], limit: float) -> bool:
    """Whether the denoiser is like a linear one, or worse, at all levels, and worse on average."""
    ratios = [math.log(level.error / level.linear) for level in levels]
    return like_linear(levels, limit) and sum(ratios) > len(ratios) * math.log(USELESS)


def facts(measured: Measured, reading: Reading) -> list[Level]:
    """The facts at all noise levels that a reading has."""
    points, claim = measured.points, measured.subject.claim
    n = len(points.x)
    claimed, errors = measured.of(claim, n), measured.of(reading, n)
    linear = points.baseline()
    rows = []
    for level, kappa in enumerate(points.kappas):
        if bool(errors[:, level].isnan().any()):
            continue
        first = float(claimed[:, level].mean())
        error = errors[:, level]
        about = {
            "kappa": kappa,
            "claimed": None if math.isnan(first) else first,
            "error": float(error.mean()),
            "std_error": float(error.std() / math.sqrt(n)),
            "linear": float(linear[level]),
        }
        rows.append(Level(**about, **_moments(measured, reading, level)))
    return rows


def _moments(measured: Measured, reading: Reading, level: int) -> dict[str, float]:
    """Moments of ε̂ and ε, the error of Tweedie's formula, and the bias, at one level."""
    sums, residuals, tweedie = [], [], []
    for found, eps, claims in _parts(measured, reading, level):
        terms = (found * eps, found * found, found, eps, eps * eps, (found - eps) ** 2)
        sums.append(torch.stack([v.double().flatten(1).mean(1).cpu() for v in terms]))
        residuals.append((found - eps).double().flatten(1).cpu())
        tweedie.append(claims)
    product, square, mean, of_eps, eps_square, error = torch.cat(sums, dim=1)
    claims = torch.cat(tweedie)
    means = [float(v.mean()) for v in (product, square, mean, of_eps, eps_square, error)]
    spread = math.sqrt((means[1] - means[2] ** 2) * (means[4] - means[3] ** 2))
    slope, slope_error = _ratio(product, square)
    gap = (error - claims).std() / math.sqrt(len(error))
    bias, bias_z = _squared_mean(torch.cat(residuals))
    unit = measured.points.kappas[level] ** 2 / measured.points.variance
    return {
        "variance": means[1],
        "residual": means[5] - (means[2] - means[3]) ** 2,
        "correlation": (means[0] - means[2] * means[3]) / spread if spread > 0 else 0.0,
        "slope": slope,
        "slope_error": slope_error,
        "own": float(claims.mean()),
        "own_error": float(gap),
        "bias": unit * bias,
        "bias_z": bias_z,
    }


def _parts(
    measured: Measured, reading: Reading, level: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """ε̂, ε, and the error that the network expects for each datum, batch by batch."""
    points = measured.points
    for start in range(0, len(points.x), points.batch):
        rows = slice(start, min(start + points.batch, len(points.x)))
        eta = points.noise(rows, PROBE_DRAW + level)
        found, moved = _predictions(measured, reading, rows, level, eta)
        # D = z − κ ε̂, so that D(z + hκη) − D(z) = κ (h η − Δε̂)
        claims = (eta * (eta - (moved - found) / STEP)).double().flatten(1).mean(1).cpu()
        yield found, points.noise(rows, level), claims


def _squared_mean(residuals: Tensor) -> tuple[float, float]:
    """|E r|²/D of n residuals, shape (n, D), without bias, and its quantile if E r = 0.

    The first is the mean of r_i · r_j over all pairs i ≠ j. If E r = 0, n |r̄|² is about tr Σ χ²_d/d
    with d = (tr Σ)²/tr Σ² for the covariance Σ of r (Satterthwaite 1946, doi:10.2307/3002019), and
    (χ²_d/d)^(1/3) is about normal with mean 1 − 2/(9d) and variance 2/(9d) (Wilson and Hilferty
    1931, doi:10.1073/pnas.17.12.684).
    """
    n, dims = residuals.shape
    products = residuals @ residuals.T / dims
    trace = float(products.diagonal().mean())
    share = float(products.sum()) / n / max(trace, 1e-300)
    products.fill_diagonal_(0.0)
    pairs = n * (n - 1)
    freedom = max(1.0, pairs * trace**2 / max(float(products.square().sum()), 1e-300))
    spread = 2 / (9 * freedom)
    return float(products.sum()) / pairs, (share ** (1 / 3) - 1 + spread) / math.sqrt(spread)


def _predictions(
    measured: Measured, reading: Reading, rows: slice, level: int, eta: Tensor
) -> tuple[Tensor, Tensor]:
    """ε̂(z) and (z + hκη − D(z + hκη))/κ, at one level."""
    points, subject, kappa = measured.points, measured.subject, measured.points.kappas[level]
    found, node = measured.predicted(reading, rows, level), subject.node(reading, kappa)
    z = points.x[rows] + kappa * points.noise(rows, level)
    moved = z + STEP * kappa * eta
    native = subject.native(reading, node, moved, points.condition(rows))
    return found, (moved - subject.denoised(reading, node, moved, native)) / kappa


def _ratio(a: Tensor, b: Tensor) -> tuple[float, float]:
    """mean(a)/mean(b) and its standard error by linearization; 0 and infinity if mean(b) is 0."""
    bottom = float(b.mean())
    if bottom == 0:
        return 0.0, math.inf
    ratio = float(a.mean()) / bottom
    return ratio, float((a - ratio * b).std() / math.sqrt(len(a)) / abs(bottom))
