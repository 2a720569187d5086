"""The discretized decoder: from a Gaussian over the model's scale to probabilities of levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._tensor import check_number
from ...data.spec import DataSpec
from ..dequantize import cell_centre

__all__ = ["cell_log_prob"]


def cell_log_prob(k: Tensor, mean: Tensor, std: float | Tensor, spec: DataSpec) -> Tensor:
    """log P(k) of levels under a Gaussian that is integrated over their cells.

        P(k) = Π_i ∫ N(x; mean_i, std²) dx  over the cell of k_i

    The first cell reaches down to −∞ and the last up to +∞, so that the probabilities of the
    levels sum to 1. Ho et al. 2020, arXiv:2006.11239, eq. (13), for any number of levels and range.

    Args:
        k: Integer levels in 0 … levels − 1, shape (B, *D).
        mean: Means at the model's scale, shape of k, floating point.
        std: Standard deviation at the model's scale, greater than 0; a number, or one for each
            element, like mean.
        spec: Range and number of levels.

    Returns:
        Nats, summed over each sample, shape (B,), float64.

    Raises:
        TypeError: If k does not hold integers.
        ValueError: If the data are continuous, a level is out of range or std not positive.
    """
    if not isinstance(std, Tensor):
        check_number("std", std, above=0)
    gap = (cell_centre(k, spec) - mean.to(torch.float64)) / std
    # By symmetry every cell is moved to the lower tail, where log Φ keeps its digits.
    upper = gap > 0
    half = 0.5 * spec.span / spec.levels / std
    first, last = k == 0, k == spec.levels - 1
    high = (half - gap.abs()).masked_fill(torch.where(upper, first, last), math.inf)
    low = (-half - gap.abs()).masked_fill(torch.where(upper, last, first), -math.inf)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    log_prob = log_high + torch.log(-torch.expm1(log_low - log_high))
    return log_prob.flatten(1).sum(1)
