"""Common parts of metrics: the returned `Estimate`, and the checked rows of features."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import torch
from scipy.special import stdtrit
from torch import Tensor

from .._tensor import check_number

__all__ = [
    "Estimate",
    "SquareLaw",
    "as_rows",
    "centred",
    "row_mean",
    "rows_of_pair",
    "rows_around_mean",
    "slope_at_equality",
    "some_rows",
    "square_law",
]

_ROWS_OF_GRAM = 256  # their largest eigenvalues are accurate enough for a slope


class Law(Protocol):
    """How the variance of an estimate depends on its true value."""

    def interval(self, value: float, z: float) -> tuple[float, float]:
        """All true values from which the estimate is at most z standard errors away."""


@dataclass(frozen=True)
class SquareLaw:
    """The variance of a squared distance T as a function of its mean θ.

        Var T = null + slope · max(θ − zero, 0)

    T is |δ + Z|², where δ is the true difference and Z is noise of covariance Σ, so that its mean
    is |δ|² + tr Σ and its variance is 2 tr Σ² + 4 δᵀΣδ. The second term is taken to be proportional
    to |δ|². An interval from this law holds at, near and far from equal distributions: where T is
    small by chance, an error that is estimated at T alone would be too small.

    Attributes:
        zero: Mean of T for equal distributions; 0 if the estimator is unbiased.
        null: 2 tr Σ², the variance of T for equal distributions, at least 0.
        slope: 4 δᵀΣδ/|δ|², at least 0.
        root: Whether the metric is √T instead of T.
    """

    zero: float
    null: float
    slope: float
    root: bool = False

    def std_error(self, value: float) -> float:
        """Standard error of the metric: √Var T, for the metric √T divided by 2 √T.

        |δ|² is estimated by e − null/e with e = T − zero, and by 0 if this is negative. The part of
        e above 0 is too large on average near equal distributions, where its own error is √null.
        """
        square = value**2 if self.root else value
        excess = square - self.zero
        length = max(excess - self.null / excess, 0.0) if excess > 0 else 0.0
        error = math.sqrt(self.null + self.slope * length)
        if not self.root:
            return error
        return error / (2 * value) if value > 0 else 0.0  # all points coincide: nothing varies

    def interval(self, value: float, z: float) -> tuple[float, float]:
        """All means θ with |T − θ| ≤ z √Var T, as Wilson's interval does it for a proportion."""
        excess = (value**2 if self.root else value) - self.zero
        half = z * math.sqrt(self.null)
        centre = excess + z**2 * self.slope / 2
        reach = z * math.sqrt(max(self.null + self.slope * (centre + excess) / 2, 0.0))
        low = centre - reach if excess > half else excess - half
        high = centre + reach if excess > -half else excess + half
        if not self.root:
            return low + self.zero, high + self.zero
        return math.sqrt(max(low + self.zero, 0.0)), math.sqrt(max(high + self.zero, 0.0))


def square_law(
    value: float, plain: float, excess: float, bias: float, near: float, unbiased: bool = False
) -> SquareLaw:
    """The law of a squared distance, from its first-order variance at the samples.

    The first-order formula (delta method, jackknife) takes the gradient 2 (δ + Z) at the samples
    and gives 4 (δ + Z)ᵀΣ(δ + Z), whose mean is 4 δᵀΣδ + 4 tr Σ². Minus 4 tr Σ², and divided by
    |δ + Z|² − tr Σ, it estimates the slope 4 δᵀΣδ/|δ|². Near equal distributions both are noise.
    The estimate is therefore shrunk towards the slope that is expected there: numerator and
    denominator get the weight of the standard error of |δ + Z|² at equality,

        slope = (4 (δ + Z)ᵀΣ(δ + Z) − 4 tr Σ² + near · w)/(|δ + Z|² − tr Σ + w),   w = √(2 tr Σ²)

    Args:
        value: The squared distance.
        plain: First-order variance, not negative.
        excess: Estimate of 2 tr Σ²; a negative one counts as 0.
        bias: Estimate of tr Σ.
        near: The slope at equality, 4 tr Σ³/tr Σ², see `slope_at_equality`.
        unbiased: Whether the bias is already subtracted from `value`.
    """
    null = max(excess, 0.0)
    length = max(value if unbiased else value - bias, 0.0)
    weight = math.sqrt(null)
    total = max(plain - 2 * null, 0.0) + near * weight
    slope = total / (length + weight) if length + weight > 0 else 0.0
    return SquareLaw(0.0 if unbiased else bias, null, slope)


def slope_at_equality(gram: Tensor, n: int, m: int) -> float:
    """The slope of a `SquareLaw` at equality,  4 tr Σ³/tr Σ²  for Σ = C (1/n + 1/m).

    The noise Z varies most in the directions in which Σ is large. A difference δ that noise could
    hide is likely to lie there, too. The mean of δᵀΣδ/|δ|² is therefore taken with the weights Σ².

    Args:
        gram: Inner products of rows of one of the samples, shape (k, k); C is their covariance.
        n: Size of one sample.
        m: Size of the other sample.
    """
    means = gram.mean(0)
    spectrum = torch.linalg.eigvalsh(gram - means - means[:, None] + means.mean()).clamp(min=0)
    squares = float(spectrum.square().sum())
    if squares == 0:  # all rows coincide
        return 0.0
    return 4 * float(spectrum.pow(3).sum()) / squares / len(gram) * (1 / n + 1 / m)


def some_rows(rows: Tensor) -> Tensor:
    """At most 256 evenly spaced rows, from which `slope_at_equality` is estimated."""
    keep = torch.linspace(0, len(rows) - 1, min(len(rows), _ROWS_OF_GRAM)).round().long()
    return rows[keep.to(rows.device)]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; `str()` prints `0.0123 ± 0.0004`.

    Args:
        value: The estimate.
        std_error: Standard error of `value`, in the same unit; NaN, never 0, if it cannot be
            computed from the samples. Each metric says what its standard error covers.
        n: Sizes of the samples, one number per sample.
        name: Metric and, if there is one, feature space.
        note: A warning to show beside the number, empty if there is none.
        influence: For each number of `n` a float64 vector that says how much each row of this
            sample moves the value: value ≈ truth + mean_i ψ(x_i) + mean_j φ(y_j), where ψ and φ
            have mean 0. A vector of length 0 marks a sample that counts as known. An empty tuple
            says that the influences are not known. From them `difference` computes the error of a
            difference. The sum of Var ψ/n over the samples is `std_error`², except for squared
            distances near equal distributions, where it is about twice as large (`square_law`).
            Influences take no part in comparisons, `repr` or JSON.
        law: How the variance depends on the true value, for squared distances and their roots, and
            for their differences and ratios.
    """

    value: float
    std_error: float
    n: tuple[int, ...]
    name: str
    note: str = ""
    influence: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)
    law: Law | None = None

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval  value ± t · std_error; for squared distances that of their law.

        t is the quantile of Student's distribution with one degree of freedom less than the
        smallest sample. For MMD², the Fréchet distance and sliced W₂ the interval holds all values
        that are not further from the estimate than t standard errors *at this value*
        (`SquareLaw`). The interval holds the mean of the estimator over repetitions; the bias, of
        which the metric's documentation speaks, is not covered. Both ends are NaN if the standard
        error is.

        Args:
            level: Probability in (0, 1).

        Raises:
            TypeError: If `level` is not a number.
            ValueError: If `level` is not in (0, 1).
        """
        check_number("level", level, above=0, below=1)
        return self.within(_quantile(level, min(self.n) - 1))

    def within(self, z: float) -> tuple[float, float]:
        """The ends of the interval of z standard errors on each side."""
        if self.law is not None:
            return self.law.interval(self.value, z)
        return self.value - z * self.std_error, self.value + z * self.std_error

    def __str__(self) -> str:
        if not (math.isfinite(self.std_error) and self.std_error > 0):
            return f"{self.value:.4g} ± {self.std_error:g}"
        # Two digits of the error if the first is 1 or 2, otherwise one: at most 25 % rounding.
        exponent = math.floor(math.log10(self.std_error))
        decimals = max(-exponent + (self.std_error < 3 * 10.0**exponent), 0)
        if decimals > 6 or exponent > 5:
            return f"{self.value:.3g} ± {self.std_error:.2g}"
        return f"{self.value:.{decimals}f} ± {self.std_error:.{decimals}f}"


def as_rows(x: Tensor, name: str = "x", minimum: int = 2) -> Tensor:
    """Samples as float64 rows, without touching `x`.

    Args:
        x: Samples or features, shape (n, *D), any floating or integer dtype.
        name: Name of the argument, for messages.
        minimum: Smallest n allowed.

    Returns:
        Shape (n, d) with d = prod(D) (1 for x of shape (n,)), float64, on the device of `x`.

    Raises:
        TypeError: If `x` is not a tensor.
        ValueError: If there are fewer than `minimum` samples, no dimensions, or values that are
            not finite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {x.dtype}")
    if x.ndim == 0 or x.shape[0] < minimum:
        n = 0 if x.ndim == 0 else x.shape[0]
        raise ValueError(f"{name} must hold at least {minimum} samples, got {n}")
    if x.numel() == 0:
        raise ValueError(f"{name} must have at least one dimension, got shape {tuple(x.shape)}")
    rows = x.detach().to(torch.float64).reshape(x.shape[0], -1)
    bad = int((~torch.isfinite(rows)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} non-finite values of {rows.numel()}")
    return rows


def rows_of_pair(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both samples as rows of the same dimension.

    Args:
        x: Samples, shape (n, *D).
        reference: Samples to compare with, shape (m, *D).

    Returns:
        Shapes (n, d) and (m, d), float64, on the device of `x`.

    Raises:
        TypeError: If one of them is not a tensor.
        ValueError: If one is too small or not finite (`as_rows`), or the dimensions differ.
    """
    rows, other = as_rows(x, "x"), as_rows(reference, "reference")
    if rows.shape[1] != other.shape[1]:
        raise ValueError(
            f"x and reference must have the same number of dimensions, "
            f"got {rows.shape[1]} and {other.shape[1]}"
        )
    return rows, other.to(rows.device)


def rows_around_mean(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both samples as rows minus the mean of the reference, and this mean, shape (d,).

    A common shift changes no distance, but large values leave fewer digits for the distance.
    Arguments and errors are those of `rows_of_pair`.
    """
    rows, other = rows_of_pair(x, reference)
    origin = row_mean(other)
    return rows - origin, other - origin, origin


def centred(*rows: Tensor) -> tuple[Tensor, ...]:
    """Influences of the rows of each sample minus their means, on the CPU; length 0 is kept."""
    return tuple((row - row.mean() if len(row) else row).cpu() for row in rows)


@cache
def _quantile(level: float, degrees: int) -> float:
    """The number that |T| exceeds with probability 1 − level; NaN without degrees of freedom."""
    return float(stdtrit(degrees, (1 + level) / 2)) if degrees > 0 else math.nan


def row_mean(rows: Tensor) -> Tensor:
    """Mean of the rows, shape (d,), for rows (n, d) that may lie far from 0.

    The second pass corrects the rounding of the first. A sum of n values near c has a rounding
    error of the order of c·1e-16·log n. The sum of their differences from c has a much smaller
    rounding error.
    """
    mean = rows.mean(0)
    return mean + (rows - mean).mean(0)
