"""Common parts of metrics: the returned `Estimate`, and the checked rows of features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Estimate",
    "as_rows",
    "row_mean",
    "rows_of_pair",
    "rows_around_mean",
    "variance_of_square",
]


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
    """

    value: float
    std_error: float
    n: tuple[int, ...]
    name: str
    note: str = ""

    def __str__(self) -> str:
        if not (math.isfinite(self.std_error) and self.std_error > 0):
            return f"{self.value:.4g} ± {self.std_error:g}"
        # Two digits of the error if the first is 1 or 2, otherwise one: at most 25 % rounding.
        exponent = math.floor(math.log10(self.std_error))
        decimals = max(-exponent + (self.std_error < 3 * 10.0**exponent), 0)
        if decimals > 6:
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


def variance_of_square(plain: float, excess: float) -> float:
    """Variance of a squared distance from its first-order variance in the estimated distribution.

    A squared distance is |δ + Z|², where δ is the true difference and Z is noise of covariance Σ.
    Its variance is V = 4 δᵀΣδ + 2 tr Σ². The first-order formula (delta method, jackknife) takes
    the gradient 2 (δ + Z) at the samples and gives 4 (δ + Z)ᵀΣ(δ + Z), whose mean is V + 2 tr Σ².
    At δ = 0 the excess 2 tr Σ² is V itself, so that the formula is too large by a factor of 2.

    Args:
        plain: First-order variance, not negative.
        excess: Estimate of 2 tr Σ².

    Returns:
        plain − excess, but at least plain/2 and at least excess/2. V is at least half the mean of
        `plain`, and at least the mean of `excess`. Without the second bound an estimate far below
        0, whose gradient is small by chance, would get a far too small error.
    """
    return max(plain - excess, plain / 2, excess / 2)


def row_mean(rows: Tensor) -> Tensor:
    """Mean of the rows, shape (d,), for rows (n, d) that may lie far from 0.

    The second pass corrects the rounding of the first. A sum of n values near c has a rounding
    error of the order of c·1e-16·log n. The sum of their differences from c has a much smaller
    rounding error.
    """
    mean = rows.mean(0)
    return mean + (rows - mean).mean(0)
