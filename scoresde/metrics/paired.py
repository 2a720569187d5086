"""Paired error: the distance between a sampler's end points and exact end points, for equal x_T."""

from __future__ import annotations

from torch import Tensor

from .estimate import Estimate, centred, rows_of_pair

__all__ = ["paired_rmse"]


def paired_rmse(x: Tensor, reference: Tensor) -> Estimate:
    """Mean over samples of the RMSE over dimensions:  1/n Σ_i √(1/d Σ_k (x_ik − r_ik)²).

    If `reference` is an accurate solution of the probability-flow ODE from the same x_T, this
    measures the solver alone, because the error of the score model cancels. The standard error is
    s/√n, that of the mean over samples. It covers the choice of the n starting points.

    Args:
        x: End points, shape (n, *D), n ≥ 2.
        reference: Exact end points, row i from the same start as row i of `x`, shape (n, *D).

    Returns:
        Estimate in the unit of `x`, with n = (n,).

    Raises:
        TypeError: If one of them is not a tensor.
        ValueError: If the shapes differ, n < 2, or values are not finite.
    """
    rows, exact = rows_of_pair(x, reference)
    if x.shape != reference.shape:
        raise ValueError(
            f"x and reference must have the same shape, got {tuple(x.shape)} and "
            f"{tuple(reference.shape)}"
        )
    rmse = (rows - exact).square().mean(1).sqrt()
    n = len(rmse)
    error = float(rmse.std()) / n**0.5
    return Estimate(float(rmse.mean()), error, (n,), "paired_rmse", influence=centred(rmse))
