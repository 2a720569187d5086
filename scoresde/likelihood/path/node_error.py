"""The standard error of a sum over equally spaced random nodes, estimated from its terms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["error_of_sum"]


def error_of_sum(
    terms: Tensor, errors: Tensor, few_dimensions: bool = False
) -> tuple[Tensor, Tensor]:
    """Standard error of Σ_j y_j over equally spaced nodes, and its degrees of freedom.

    y_j is a smooth function at node j plus noise. Where the noise is known, its variance is
    V = Σ errors². The error from the positions of the nodes is estimated from two sums, over the
    even and over the odd nodes: twice either sum is an estimate of the whole sum. Half the
    difference of these two estimates is A = Σ (−1)^j y_j, and

        variance = V + ¼ max(0, A² − V) + (y_M − y_1)²/12

    A² has mean V plus the squared error of M/2 nodes. If the error falls at least as fast as 1/M,
    the error of M nodes is at most half the error of M/2 nodes. The last term is the variance of
    (U − ½)(y_M − y_1) for an offset U uniform in [0, 1]. That is the error, to first order in 1/M,
    of a function that differs at its ends. The degrees of freedom are Satterthwaite's (Σ v)²/Σ v².
    The v_j are means of errors² over three nodes, because single errors² are estimates themselves.

    Where the noise is not known (errors 0 or NaN), V and A are replaced by the smaller of two
    estimates, from differences of order 2 and 4 between neighbours. These differences remove slowly
    changing parts of y_j. The degrees of freedom are half those of the second differences, because
    neighbouring differences share terms.

    In few dimensions sign probes have few values (two in a plane), and the probes of a node often
    agree, so that its known error is unreliable. The larger of the two variances is used there,
    with half the smaller degrees of freedom.

    Args:
        terms: y, shape (B, M).
        errors: Standard error of each term, shape (B, M).
        few_dimensions: Whether D < 4.

    Returns:
        Standard error and degrees of freedom, shape (B,) each; NaN where no errors are known and
        there are fewer than 3 nodes.
    """
    known = errors.square().sum(1)
    signs = terms.new_ones(terms.shape[1])
    signs[1::2] = -1
    excess = ((terms * signs).sum(1).square() - known).clamp(min=0)
    rough, dof = _from_differences(terms)
    use = known > 0  # False for NaN
    variance = torch.where(use, known + 0.25 * excess, rough)
    freedom = torch.where(use, _effective(errors.square()), dof)
    if few_dimensions:
        variance, freedom = torch.maximum(variance, rough), 0.5 * torch.minimum(freedom, dof)
    ends = (terms[:, -1] - terms[:, 0]).square() / 12
    return (variance + ends).sqrt(), freedom.clamp(min=1)


def _from_differences(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of the sum from differences between neighbours, and its degrees of freedom."""
    m = terms.shape[1]
    if m < 3:
        nan = torch.full_like(terms[:, 0], math.nan)
        return nan, nan
    variances = []
    for order in (2, 4):
        if order < m:
            norm = math.comb(2 * order, order)  # Σ_i comb(order, i)²
            squares = torch.diff(terms, n=order, dim=1).square() / norm
            variances.append(squares.sum(1) * m / squares.shape[1])
    second = torch.diff(terms, n=2, dim=1).square()
    return torch.stack(variances).amin(0), 0.5 * _effective(second)


def _effective(squares: Tensor) -> Tensor:
    """(Σ v)²/Σ v² for v the mean over three neighbours of squares (B, n), shape (B,)."""
    v = torch.nn.functional.avg_pool1d(squares[:, None], 3, stride=1, padding=1)[:, 0]
    return v.sum(1).square() / v.square().sum(1).clamp(min=1e-300)
