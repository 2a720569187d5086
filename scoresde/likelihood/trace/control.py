"""Control variates for the trace: the Jacobian that a Gaussian would have, known exactly.

A network's Jacobian is close to that of a Gaussian with the mean and covariance of the data. At
high noise p_t is nearly a Gaussian; at low noise the covariance gives the directions in which data
vary. Random probes then estimate only the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...exact import GaussianMixture
from ...exact.base import as_row
from ...sde import SDE, Node
from .jacobian import KnownJacobian, flat_rows

__all__ = [
    "check_control",
    "drift_control",
    "fit_gaussian",
    "gaussian_control",
]

FULL_UP_TO = 4096  # dimensions of a covariance of 128 MiB


def fit_gaussian(sde: SDE, x: Tensor) -> GaussianMixture:
    """The Gaussian with mean and covariance of data, as a model of one component.

    The covariance is full for n ≥ 2 data of 2 to 4096 dimensions, and diagonal otherwise. A full
    covariance is singular if n ≤ D, which is allowed.

    Args:
        sde: The forward process.
        x: Data at the model's scale, shape (n, *D), n ≥ 1.

    Returns:
        Exact score model of that Gaussian, float64, on the device of x.

    Raises:
        ValueError: If there are no data, or they are not finite.
    """
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"x must have shape (n, *D) with n ≥ 1, got {tuple(x.shape)}")
    rows = flat_rows(x.detach().to(torch.float64))
    n, dims = rows.shape
    mean = rows.mean(0)
    gaps = rows - mean
    if n >= 2 and 2 <= dims <= FULL_UP_TO:
        cov = gaps.mT @ gaps / n
    else:
        cov = gaps.square().mean(0)
    return GaussianMixture(sde, [1.0], mean.reshape(1, *x.shape[1:]), cov[None]).to(x.device)


def gaussian_control(reference: GaussianMixture, node: Node, x: Tensor) -> KnownJacobian:
    """∂ε/∂x of a Gaussian N(m, C) at one time: J₀ = σ (α² C + σ² I)⁻¹, the same at every x.

    Computed in the eigenbasis of C, which `reference` holds, so that no matrix is inverted. One
    product costs 2 D² operations per sample, or D if C is diagonal.

    Args:
        reference: A mixture of one component.
        node: The time, of numbers or of (B, 1, ..., 1) tensors.
        x: The points, shape (B, *D), of which only shape, dtype and device matter.

    Returns:
        The product v ↦ vᵀ J₀ in the dtype of v, and the trace tr J₀, shape (B,).

    Raises:
        ValueError: If `reference` has more components or another shape.
    """
    return _spectral(reference, x, node, 0.0, 1.0)


def drift_control(reference: GaussianMixture, node: Node, x: Tensor) -> KnownJacobian:
    """∂h/∂x of the probability-flow drift h = f x + g²/(2σ) ε of a Gaussian.

    J₀ = f I + g²/(2σ) σ (α² C + σ² I)⁻¹. With f = α′/α and g²/(2σ) = (α σ′ − α′ σ)/α it is also
    (α α′ C + σ σ′ I) (α² C + σ² I)⁻¹, which is used if α(1) = 0, where f is infinite. Arguments and
    errors are those of `gaussian_control`.
    """
    if reference.sde.ends_in_noise:
        return _velocity_control(reference, node, x)
    return _spectral(reference, x, node, node.f, 0.5 * node.g**2 / node.sigma)


def check_control(reference: GaussianMixture, x: Tensor) -> None:
    """Raise unless the reference is a Gaussian for points like x.

    Raises:
        TypeError: If the reference is not a `GaussianMixture`.
        ValueError: If the reference has several components or another shape.
    """
    if not isinstance(reference, GaussianMixture):
        raise TypeError(f"control must be a GaussianMixture, got {type(reference).__name__}")
    n = len(reference.weights)
    if n != 1:
        raise ValueError(f"control must be one Gaussian, got a mixture of {n}")
    if reference.shape != tuple(x.shape[1:]):
        raise ValueError(
            f"control must have the shape of the data {tuple(x.shape[1:])}, got {reference.shape}"
        )


def _spectral(
    reference: GaussianMixture, x: Tensor, node: Node, a: float | Tensor, b: float | Tensor
) -> KnownJacobian:
    """A I + b σ (α² C + σ² I)⁻¹ by its eigenvalues, shape (D,) or (B, D)."""
    check_control(reference, x)
    a, b, alpha, sigma = map(as_row, (a, b, node.alpha, node.sigma))
    values = a + b * sigma / (alpha**2 * reference.variances[0] + sigma**2)
    return _of_eigenvalues(reference, values, x)


def _velocity_control(reference: GaussianMixture, node: Node, x: Tensor) -> KnownJacobian:
    """(α α′ C + σ σ′ I) (α² C + σ² I)⁻¹ by its eigenvalues."""
    check_control(reference, x)
    alpha, sigma = as_row(node.alpha), as_row(node.sigma)
    variances = reference.variances[0]
    rate = alpha * as_row(node.alpha_rate) * variances + sigma * as_row(node.sigma_rate)
    return _of_eigenvalues(reference, rate / (alpha**2 * variances + sigma**2), x)


def _of_eigenvalues(reference: GaussianMixture, values: Tensor, x: Tensor) -> KnownJacobian:
    """The symmetric matrix with these eigenvalues, (D,) or (B, D), in the eigenbasis of C."""
    axes = None if reference.axes is None else reference.axes[0]

    def vjp(v: Tensor) -> Tensor:
        rows = flat_rows(v)
        if axes is None:
            return (rows * values.to(v)).reshape(v.shape)
        basis = axes.to(v)
        return (((rows @ basis) * values.to(v)) @ basis.mT).reshape(v.shape)

    return KnownJacobian(vjp, values.sum(-1).expand(len(x)))
