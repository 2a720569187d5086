"""Difference and ratio of two estimates that share samples: what they have in common cancels."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from .estimate import Estimate

__all__ = ["difference", "ratio"]

_LARGEST_ERROR = 0.25  # relative standard error of a denominator, for a ratio with an interval


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
    return _combined(a, b, 1.0, a.value - b.value, paired, f"{a.name} difference")


def ratio(a: Estimate, b: Estimate, *, paired: bool = True) -> Estimate:
    """a/b with its standard error, by the delta method:  the error of (a − r b)/b for r = a/b.

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
    return Estimate(value, error, found.n, found.name, found.note, moves)


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
    return Estimate(value, _first_order(moves), sizes, name, note, tuple(moves))


def _weights(a: Estimate, b: Estimate, weight: float) -> tuple[float, float]:
    """The weights of both influences in a − weight · b.

    For roots √A and √B of squared distances they are those of

        √A − w √B ≈ (A − w² B)/(2 max(√A, w √B))

    with the denominator taken as known. The influences of √A and √B divide by √A and √B. Near
    equal distributions these are noise, and the difference of such influences is 0 where the
    noise moves both alike, although A − w² B varies.
    """
    rooted = all(each.law is not None and each.law.root for each in (a, b))
    largest = max(a.value, weight * b.value)
    if not rooted or largest <= 0:
        return 1.0, weight
    return a.value / largest, weight**2 * b.value / largest


def _first_order(moves: Iterable[Tensor]) -> float:
    """The standard error that follows from influences:  √(Σ Var ψ/n)."""
    return math.sqrt(sum(float(move.var()) / len(move) for move in moves if len(move)))


def _scaled(estimate: Estimate) -> list[Tensor]:
    """The influences times one factor, with which they give the standard error."""
    plain = _first_order(estimate.influence)
    factor = estimate.std_error / plain if plain > 0 else 0.0
    return [factor * move for move in estimate.influence]


def _check(a: Estimate, b: Estimate, paired: bool) -> None:
    if a.name != b.name:
        raise ValueError(f"estimates must be of the same metric, got {a.name} and {b.name}")
    first = 0 if paired else 1
    if a.n[first:] != b.n[first:]:
        what = "n" if paired else "size of the reference"
        raise ValueError(f"estimates must have the same {what}, got {a.n} and {b.n}")
