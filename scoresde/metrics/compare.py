"""Difference and ratio of two estimates that share samples: what they have in common cancels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from .estimate import Estimate, SquareLaw

__all__ = ["difference", "first_order_error", "ratio"]

_LARGEST_ERROR = 0.25  # relative standard error of a denominator, for a ratio with an interval


@dataclass(frozen=True)
class DifferenceLaw:
    """The interval of a − b from those of a and b, for squared distances that share no samples.

        low = a − b − √((a − a_low)² + (b_high − b)² − 2 ρ (a − a_low) (b_high − b)),  high alike

    The variance of a squared distance rises with its value, so that its interval reaches further up
    than down. This holds for the difference of a large and a small one, too (Zou and Donner 2008,
    Construction of confidence limits about effect measures, Statistics in Medicine 27).

    Attributes:
        a: The first estimate.
        b: The second estimate.
        correlation: ρ, from the reference that both share.
    """

    a: Estimate
    b: Estimate
    correlation: float

    def interval(self, value: float, z: float) -> tuple[float, float]:
        """The interval of z standard errors on each side."""
        (a_low, a_high), (b_low, b_high) = self.a.within(z), self.b.within(z)
        below = self._length(self.a.value - a_low, b_high - self.b.value)
        above = self._length(a_high - self.a.value, self.b.value - b_low)
        return value - below, value + above

    def _length(self, a: float, b: float) -> float:
        return math.sqrt(max(a * a + b * b - 2 * self.correlation * a * b, 0.0))


@dataclass(frozen=True)
class RatioLaw:
    """All ratios r with  |a − r b| ≤ z √(Var a − 2 r Cov(a, b) + r² Var b)  (Fieller 1954).

    Attributes:
        a: Numerator.
        b: Denominator.
        variances: Var a, Cov(a, b) and Var b.
    """

    a: float
    b: float
    variances: tuple[float, float, float]

    def interval(self, value: float, z: float) -> tuple[float, float]:
        """The interval of z standard errors on each side; NaN if it is not bounded."""
        square, mixed, constant = (
            product - z**2 * variance
            for product, variance in zip(
                (self.b**2, self.a * self.b, self.a**2), reversed(self.variances), strict=True
            )
        )
        root = mixed**2 - square * constant
        if not (square > 0 and root >= 0):
            return math.nan, math.nan
        return (mixed - math.sqrt(root)) / square, (mixed + math.sqrt(root)) / square


def difference(a: Estimate, b: Estimate, *, paired: bool = True) -> Estimate:
    """a − b with the standard error of the difference, for two estimates of one metric.

    Both were made with the same reference y. In a paired comparison row i of both samples also
    comes from the same x_T, so that much of the noise is common to a and b. With the influences
    ψ and φ of the rows the variance is

        paired       Var(ψ^a − ψ^b)/n + Var(φ^a − φ^b)/m
        not paired   Var ψ^a/n_a + Var ψ^b/n_b + Var(φ^a − φ^b)/m

    It is 0 for an estimate and itself. Squared distances have too large influences near equal
    distributions. If the samples are not paired, the influences of each estimate are therefore
    scaled to its standard error. In a paired difference they are not: if b moves all samples of a
    alike, the first-order variance of the difference is the true one, even where that of a is twice
    too large. For two paired samples of equal quality, which differ by noise alone, the error is
    too large by up to √2. If the influences of one estimate are not known, the errors are taken to
    be independent, which makes the error too large if they are not.

    Args:
        a: Estimate of a metric.
        b: Estimate of the same metric.
        paired: Whether row i of both samples comes from the same start.

    Returns:
        Estimate in the unit of the metric. It has the influences of the difference, so that
        differences can themselves be compared.

    Raises:
        ValueError: If the metrics or the features differ, or the sizes of samples that are shared.
    """
    found = _combined(a, b, 1.0, a.value - b.value, paired, f"{a.name} difference")
    if paired or not (_squared(a, b) and found.influence):
        return found
    both = zip(_scaled(a)[1:], _scaled(b)[1:], strict=True)
    shared = sum(_covariance(x, y) for x, y in both)
    product = a.std_error * b.std_error
    return replace(found, law=DifferenceLaw(a, b, shared / product if product > 0 else 0.0))


def ratio(a: Estimate, b: Estimate, *, paired: bool = True) -> Estimate:
    """a/b with its standard error, by the delta method:  the error of (a − r b)/b for r = a/b.

    The interval is Fieller's (`RatioLaw`): it reaches further up than down, as the ratio does.

    Args:
        a: Estimate of a metric.
        b: Estimate of the same metric.
        paired: Whether row i of both samples comes from the same start, see `difference`.

    Returns:
        Estimate without unit. If b is not at least 4 of its standard errors above 0, the ratio has
        no finite mean, and its standard error is NaN; if b is 0, the value is NaN as well.

    Raises:
        ValueError: As for `difference`.
    """
    value = a.value / b.value if b.value else math.nan
    safe = b.std_error <= _LARGEST_ERROR * b.value
    found = _combined(a, b, value if safe else 1.0, value, paired, f"{a.name} ratio")
    error = found.std_error / b.value if safe and b.value else math.nan
    moves = tuple(row / b.value for row in found.influence) if math.isfinite(error) else ()
    law = RatioLaw(a.value, b.value, _variances(a, b, paired)) if moves else None
    return Estimate(value, error, found.n, found.name, found.note, moves, law)


def _combined(
    a: Estimate, b: Estimate, weight: float, value: float, paired: bool, name: str
) -> Estimate:
    """An estimate of this value with the standard error of a − weight · b."""
    _check(a, b, paired)
    sizes = a.n if paired else (a.n[0], *b.n)
    note = a.note or b.note
    if not (a.influence and b.influence):
        error = math.hypot(a.std_error, weight * b.std_error)
        return Estimate(value, error, sizes, name, note)
    left, right = _weights(a, b, weight)
    if paired:
        moves = [left * x - right * y for x, y in zip(a.influence, b.influence, strict=True)]
    else:
        (x, *shared), (y, *other) = _scaled(a), _scaled(b)
        both = zip(shared, other, strict=True)
        moves = [left * x, -right * y, *(left * x - right * y for x, y in both)]
    return Estimate(value, first_order_error(moves), sizes, name, note, tuple(moves))


def _weights(a: Estimate, b: Estimate, weight: float) -> tuple[float, float]:
    """The weights of both influences in a − weight · b.

    For roots √A and √B of squared distances they are those of

        √A − w √B = (A − w² B)/(√A + w √B)

    with the denominator taken as known. The influences of √A and √B divide by √A and √B. Near
    equal distributions these are noise, and the difference of such influences is 0 where the
    noise moves both alike, although A − w² B varies. The denominator varies with the numerator,
    which makes such an error too large; with 2 max(√A, w √B) as denominator it is too small. The
    mean of both denominators is used (95 ± 4 % in benchmarks/intervals.py).
    """
    rooted = _squared(a, b) and a.law.root and b.law.root
    parts = sorted((a.value, weight * b.value))
    total = 1.5 * parts[1] + 0.5 * parts[0]
    if not rooted or total <= 0:
        return 1.0, weight
    return 2 * a.value / total, 2 * weight**2 * b.value / total


def _squared(a: Estimate, b: Estimate) -> bool:
    """Whether both are squared distances, or roots of such."""
    return isinstance(a.law, SquareLaw) and isinstance(b.law, SquareLaw)


def _variances(a: Estimate, b: Estimate, paired: bool) -> tuple[float, float, float]:
    """Var a, Cov(a, b) and Var b; unpaired samples share the reference alone.

    The first-order covariance of squared distances is that of the samples' own noise where this
    exceeds the differences: it has the sign of chance. It counts by the share of each first-order
    variance that is not noise.
    """
    left, right = (a.influence, b.influence) if paired else (_scaled(a), _scaled(b))
    common = list(zip(left, right, strict=True))[0 if paired else 1 :]
    shared = sum(_covariance(x, y) for x, y in common)
    if _squared(a, b):
        shared *= _signal(a) * _signal(b)
    return a.std_error**2, shared, b.std_error**2


def _signal(estimate: Estimate) -> float:
    """Share of the first-order variance of a squared distance that is not twice its noise."""
    plain = first_order_error(estimate.influence) ** 2
    plain *= (2 * estimate.value) ** 2 if estimate.law.root else 1.0
    return max(1 - 2 * estimate.law.null / plain, 0.0) if plain > 0 else 0.0


def _covariance(x: Tensor, y: Tensor) -> float:
    """Covariance of the means of two influences of the same rows, which have mean 0."""
    return float(x @ y) / (max(len(x) - 1, 1) * len(x)) if len(x) else 0.0


def first_order_error(moves: Iterable[Tensor]) -> float:
    """The standard error that follows from influences:  √(Σ Var ψ/n)."""
    return math.sqrt(sum(float(move.var()) / len(move) for move in moves if len(move)))


def _scaled(estimate: Estimate) -> list[Tensor]:
    """The influences times one factor, with which they give the standard error."""
    plain = first_order_error(estimate.influence)
    factor = estimate.std_error / plain if plain > 0 else 0.0
    return [factor * move for move in estimate.influence]


def _check(a: Estimate, b: Estimate, paired: bool) -> None:
    if a.name != b.name:
        raise ValueError(f"estimates must be of the same metric, got {a.name} and {b.name}")
    first = 0 if paired else 1
    if a.n[first:] != b.n[first:]:
        what = "n" if paired else "size of the reference"
        raise ValueError(f"estimates must have the same {what}, got {a.n} and {b.n}")
