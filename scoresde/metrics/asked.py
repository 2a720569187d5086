"""The share of conditional samples that a classifier names as the class that was asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .estimate import Estimate

__all__ = ["share_as_asked"]


def share_as_asked(named: Tensor, asked: Tensor) -> Estimate:
    """(1/n) Σ_i [named_i = asked_i].

    Args:
        named: The class that a classifier names for each sample, integers, shape (n,), n ≥ 1.
        asked: The class under which the sample was drawn, like `named`.

    Returns:
        Estimate with n = (n,). Its standard error is √(p (1 − p)/n) with p = (k + 1)/(n + 2) for k
        samples as asked, which is not 0 if all or none of them are.

    Raises:
        ValueError: If the shapes differ, or there is no sample.
    """
    if named.ndim != 1 or named.shape != asked.shape or not len(named):
        raise ValueError(
            f"named and asked must be n ≥ 1 classes each, got shapes {tuple(named.shape)} and "
            f"{tuple(asked.shape)}"
        )
    right = (named.cpu() == asked.cpu()).to(torch.float64)
    n = len(right)
    p = (float(right.sum()) + 1) / (n + 2)
    error = math.sqrt(p * (1 - p) / n)
    return Estimate(float(right.mean()), error, (n,), "as asked", influence=(right - right.mean(),))
