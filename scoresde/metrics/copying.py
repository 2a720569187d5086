"""Whether samples lie closer to the training data than new data do: a test of copying."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .estimate import Estimate, centred, rows_of_pair

__all__ = ["copying"]

_DISTANCES = 2**22  # 32 MiB of float64 distances at a time


def copying(x: Tensor, train: Tensor, held_out: Tensor) -> Estimate:
    """Probability that a sample is nearer to the training data than a new data point is.

        P(L(x) < L(h)) + ½ P(L(x) = L(h)),   L = distance to the nearest training row

    It is 0.5 if the samples are like new data, above 0.5 if they are closer to the training data
    than new data are (copies give 1), and below 0.5 if they are farther away (noise gives 0). This
    is the Mann-Whitney statistic of the global test of Meehan, Chaudhuri and Dasgupta 2020,
    arXiv:2004.05675, with x and h exchanged, as a probability instead of a z-score. A
    share p of copies among samples that are like new data gives 0.5 + p/2. Smooth samples near the
    mean of the data may also lie closer to the training data: look at the pairs.

    Args:
        x: Samples or features, shape (n, *D), n ≥ 2.
        train: Training data, shape (m, *D); they count as known.
        held_out: Real data that the model was not trained on, shape (l, *D), l ≥ 2.

    Returns:
        Estimate with n = (n, l). Its standard error covers samples and held-out data (the variance
        of both projections of the U-statistic), and is never below that of one more sample on
        either side.

    Raises:
        TypeError: If one of the samples is not a tensor.
        ValueError: If a sample is too small or not finite, or the dimensions differ.
    """
    rows, known = rows_of_pair(x, train)
    new, _ = rows_of_pair(held_out, train)
    own, other = _nearest(rows, known), _nearest(new.to(rows.device), known)
    share_x = 1 - _rank(own, other)  # of held-out data that are farther away
    share_h = _rank(other, own)  # of samples that are nearer
    n, m = len(own), len(other)
    variance = float(share_x.var()) / n + float(share_h.var()) / m
    error = math.sqrt(max(variance, 1 / (min(n, m) + 2) ** 2))
    moves = centred(share_x, share_h)
    return Estimate(float(share_x.mean()), error, (n, m), "copying", influence=moves)


def _nearest(x: Tensor, y: Tensor) -> Tensor:
    """Distance of each row of x to the nearest row of y, shape (n,)."""
    mode = "donot_use_mm_for_euclid_dist"
    blocks = x.split(max(1, _DISTANCES // len(y)))
    return torch.cat([torch.cdist(block, y, compute_mode=mode).amin(1) for block in blocks])


def _rank(a: Tensor, b: Tensor) -> Tensor:
    """Share of b that is below each a, where equal values count half; shape (n,)."""
    b = b.sort().values
    below, up_to = torch.searchsorted(b, a), torch.searchsorted(b, a, right=True)
    return (below + up_to) / (2.0 * len(b))
