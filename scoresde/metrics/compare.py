"""Difference and ratio of two estimates that share samples: what they have in common cancels."""

from __future__ import annotations

import math

import torch
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

    It is 0 for an estimate and itself. If the influences of one of them are not known, the errors
    are taken to be independent, which makes the error too large if they are not.

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
    if paired:
        moves = [_minus(x, y, weight) for x, y in zip(a.influence, b.influence, strict=True)]
    else:
        shared = zip(a.influence[1:], b.influence[1:], strict=True)
        moves = [a.influence[0], -weight * b.influence[0]]
        moves += [_minus(x, y, weight) for x, y in shared]
    variance = sum(float(move.var()) / len(move) for move in moves if len(move))
    return Estimate(value, math.sqrt(variance), sizes, name, note, tuple(moves))


def _minus(x: Tensor, y: Tensor, weight: float) -> Tensor:
    return torch.as_tensor(x).double() - weight * torch.as_tensor(y).double()


def _check(a: Estimate, b: Estimate, paired: bool) -> None:
    if a.name != b.name:
        raise ValueError(f"estimates must be of the same metric, got {a.name} and {b.name}")
    first = 0 if paired else 1
    if a.n[first:] != b.n[first:]:
        what = "n" if paired else "size of the reference"
        raise ValueError(f"estimates must have the same {what}, got {a.n} and {b.n}")
