"""The exact posterior of a Gaussian mixture given a measurement: again a mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._tensor import check_number, check_type
from ..exact import ConditionalMixture, GaussianMixture
from ..exact.base import finite_tensor
from .foreign import as_operator
from .operators import Operator

__all__ = ["posterior"]


def posterior(model: GaussianMixture, operator: Any, y: Tensor, noise: float) -> GaussianMixture:
    """p(x | y) of y = A x + σ_y n for data Σ_k w_k N(m_k, Σ_k), under the same SDE.

        S_k = A Σ_k Aᵀ + σ_y² I,   K_k = Σ_k Aᵀ S_k⁻¹
        mean  m_k + K_k (y − A m_k),   covariance  (I − K_k A) Σ_k,   weight ∝ w_k N(y; A m_k, S_k)

    Components whose weight is 0 in float64 are left out. A becomes a matrix, so that this is meant
    for small problems.

    Args:
        model: The exact model of the data; of a `ConditionalMixture` with one bound condition c the
            posterior is p(x | y, c).
        operator: The measurement A; see `Measured`.
        y: One measurement, of shape `measured`, or (1, *measured).
        noise: σ_y, at least 0.

    Returns:
        The exact model of the posterior.

    Raises:
        TypeError: If the model is no mixture.
        ValueError: If the model needs a condition and has none bound, a shape does not fit, y is
            not finite or has density 0, or the noise is 0 and some S_k is singular.
    """
    check_type("model", model, GaussianMixture)
    if isinstance(model, ConditionalMixture):
        if model.y is None:
            raise ValueError(
                "model must be without a condition, or have one bound, model.given(y), got one "
                f"with {model.condition}"
            )
        model = model.conditional()
    operator = as_operator(operator, model.shape)
    noise = check_number("noise", noise, at_least=0)
    y = finite_tensor("y", y)
    if tuple(y.shape) not in (operator.measured, (1, *operator.measured)):
        raise ValueError(f"y must have shape {operator.measured}, got {tuple(y.shape)}")
    matrix = matrix_of(operator).to(model.means)
    gap = y.reshape(-1).to(model.means) - model.means @ matrix.T
    axes = torch.eye(model.dim).to(model.means) if model.axes is None else model.axes
    covs = (axes * model.variances[:, None]) @ axes.mT
    eye = torch.eye(len(matrix)).to(matrix)
    factor, bad = torch.linalg.cholesky_ex(matrix @ covs @ matrix.T + noise**2 * eye)
    if bool(bad.any()):
        raise ValueError(
            f"noise must be above 0 here, got {noise:g}: A Σ Aᵀ + noise² I is singular, so that y "
            "has no density"
        )
    gains = torch.cholesky_solve(matrix @ covs, factor).mT
    means = model.means + (gains @ gap[..., None])[..., 0]
    kept = torch.eye(model.dim).to(matrix) - gains @ matrix
    covs = kept @ covs @ kept.mT + noise**2 * gains @ gains.mT  # (I − K A) Σ, free of cancellation
    white = torch.linalg.solve_triangular(factor, gap[..., None], upper=False)[..., 0]
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    weights = torch.softmax(model.weights.log() - 0.5 * white.square().sum(1) - log_det, 0)
    some = weights > 0
    if not bool(some.any()):
        raise ValueError(
            "y must be nearer to the measurements of the data: its density is 0 in float64 for all "
            "components"
        )
    means = means[some].reshape(-1, *model.shape)
    return GaussianMixture(model.sde, weights[some], means, covs[some])


def matrix_of(operator: Operator) -> Tensor:
    """A as a matrix of shape (M, D), float64, made from the images of unit vectors."""
    dim = torch.Size(operator.shape).numel()
    units = torch.eye(dim, dtype=torch.float64).reshape(dim, *operator.shape)
    return operator.A(units).reshape(dim, -1).T
