"""How often the truth lies in central intervals of samples: their calibration."""

from __future__ import annotations

import torch
from torch import Tensor

from .._tensor import check_number

__all__ = ["interval_coverage"]


def interval_coverage(samples: Tensor, truth: Tensor, share: float) -> Tensor:
    """Share of the numbers of each datum that lie within the central interval of their samples.

        r = number of samples below the truth, one of 0, …, S

    If truth and samples are independent draws from one continuous distribution, each r has
    probability 1/(S + 1). The interval takes the middle `share` of these S + 1 ranks; a rank that
    is only partly inside counts by its part. So the expectation is `share` for every number S of
    samples, and no quantile is estimated.

    Args:
        samples: S samples of each of n data, shape (n, S, *D).
        truth: Shape (n, *D).
        share: Of the central interval, between 0 and 1.

    Returns:
        Shape (n,), float64. Numbers of one datum depend on each other; different data do not, so
        that the spread over data gives a standard error.

    Raises:
        ValueError: If the shapes do not fit, or the share is not between 0 and 1.
    """
    check_number("share", share, above=0, below=1)
    if samples.ndim != truth.ndim + 1 or samples[:, 0].shape != truth.shape:
        raise ValueError(
            f"samples must have shape (n, S, *D) for truth of shape (n, *D), got "
            f"{tuple(samples.shape)} and {tuple(truth.shape)}"
        )
    ranks = samples.shape[1] + 1
    rank = (samples < truth[:, None]).sum(1).to(torch.float64)
    low, high = ranks * (1 - share) / 2, ranks * (1 + share) / 2
    inside = (rank + 1).clamp(max=high) - rank.clamp(min=low)
    return inside.clamp(min=0).flatten(1).mean(1)
