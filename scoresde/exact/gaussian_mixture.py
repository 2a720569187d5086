"""GaussianMixture: the exact score, density and samples of a Gaussian mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._tensor import check_integer
from ..noise import SampleNoise
from ..score import Time
from ..sde import SDE
from .base import ExactScore, Factor, as_row, finite_tensor, flat

__all__ = ["GaussianMixture"]

# An index far outside any batch, so that data drawn with a seed are independent of the noise of a
# sampler or a training run with the same seed.
_DATA_STREAM = 2**64 - 1


class GaussianMixture(ExactScore):
    """The exact score, density and samples of Σ_k w_k N(m_k, Σ_k) under any SDE.

        ∇ log p_t(x) = −Σ_k r_k(x) (α² Σ_k + σ² I)⁻¹ (x − α m_k),   r_k = softmax_k log(w_k N_k)

    Each Σ_k = U diag(l) Uᵀ is diagonalised once. Then α² Σ_k + σ² I = U diag(α² l + σ²) Uᵀ for
    every t, which needs no inverse and loses no digits as σ → 0. A Gaussian is a mixture of one.

    Attributes:
        weights: w_k, shape (K,), float64.
        means: m_k flattened, shape (K, D).
        variances: Eigenvalues l of Σ_k, shape (K, D).
        axes: Eigenvectors U of Σ_k in columns, shape (K, D, D); None if all Σ_k are diagonal.
    """

    @torch.inference_mode(False)  # inference tensors could not be differentiated through
    def __init__(
        self,
        sde: SDE,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence,
        covs: Tensor | Sequence,
    ) -> None:
        """Check and diagonalise the mixture.

        Args:
            sde: The forward process.
            weights: Positive, summing to 1 within 1e-6 (then normalised), shape (K,).
            means: Shape (K, *D); *D is the shape of a sample, D its number of elements.
            covs: Σ_k of the flattened samples: matrices (K, D, D), diagonals (K, D) or isotropic
                variances (K,). Positive semi-definite, and symmetric within 1e-6 of the largest
                entry. They are then made symmetric, and negative eigenvalues down to −1e-6 times
                the largest become 0. A singular Σ_k is allowed, because p_t has a density wherever
                σ > 0; only `log_prob` with t = None refuses it.

        Raises:
            ValueError: On a wrong shape, a value that is not finite, weights that are not
                positive or do not sum to 1, or a Σ_k that is not a covariance.
        """
        means = finite_tensor("means", means)
        if means.ndim == 0 or means.numel() == 0:
            raise ValueError(f"means must have shape (K, *D), K ≥ 1, got {tuple(means.shape)}")
        super().__init__(sde, means.shape[1:])
        n = means.shape[0]
        variances, axes = _diagonalise(finite_tensor("covs", covs), n, self.dim)
        self.register_buffer("weights", _checked_weights(finite_tensor("weights", weights), n))
        self.register_buffer("means", means.reshape(n, self.dim))
        self.register_buffer("variances", variances)
        self.register_buffer("axes", axes)

    def mean(self) -> Tensor:
        """Mean of the data, shape (*D), float64."""
        return (self.weights @ self.means).reshape(self.shape)

    def cov(self) -> Tensor:
        """Covariance of the flattened data, shape (D, D), float64."""
        gaps = self.means - self.weights @ self.means
        scaled = torch.sqrt(self.weights[:, None] * self.variances)
        axes = torch.eye(self.dim).to(self.means) if self.axes is None else self.axes
        root = scaled[:, None, :] * axes
        within = torch.einsum("kdi,kei->de", root, root)
        return within + torch.einsum("k,kd,ke->de", self.weights, gaps, gaps)

    def log_prob(self, x: Tensor, t: Time | None = None) -> Tensor:
        """Log density of x_t in nats; of the data themselves if t is None.

        Args:
            x: Points, shape (B, *D).
            t: A number, a tensor of shape () or (B,), a node, or None.

        Returns:
            Shape (B,), in the dtype of x.

        Raises:
            ValueError: If t is None and a Σ_k is singular, so that the data have no density.
        """
        if t is None and bool((self.variances <= 0).any()):
            raise ValueError("the data have no density, a covariance is singular: give a time t")
        node = None if t is None else self.sde.at(t, x)
        alpha, sigma = (1.0, 0.0) if node is None else map(as_row, (node.alpha, node.sigma))
        log_terms, *_ = self._components(self._rows(x), alpha, sigma)
        return torch.logsumexp(log_terms, dim=0).to(x.dtype)

    def score_trace(self, x: Tensor, t: Time) -> Tensor:
        """Divergence ∇ · ∇ log p_t(x), the trace of the score's Jacobian; not counted as NFE.

            Σ_k r_k |s_k − s|² − Σ_k r_k tr(α² Σ_k + σ² I)⁻¹

        where s_k is the score of component k and s the score of the mixture. The trace rules of
        `scoresde.likelihood` estimate this value.

        Args:
            x: Points, shape (B, *D).
            t: A number, a tensor of shape () or (B,), or a node.

        Returns:
            Shape (B,), in the dtype of x.
        """
        node = self.sde.at(t, x)
        log_terms, gaps, variances, _ = self._components(
            self._rows(x), as_row(node.alpha), as_row(node.sigma)
        )
        r = torch.softmax(log_terms, dim=0)
        scores = -self._unrotated(gaps / variances)
        mean = (r[..., None] * scores).sum(0)
        spread = ((scores - mean) ** 2).sum(-1)
        return (r * (spread - (1 / variances).sum(-1))).sum(0).to(x.dtype)

    def least_error(self, x: Tensor, t: Time) -> Tensor:
        """D + σ² ∇ · ∇ log p_t(x), see `ExactScore.least_error`."""
        node = self.sde.at(t, x)
        trace = self.score_trace(x.double(), node)
        return (self.dim + flat(node.sigma) ** 2 * trace).to(x.dtype)

    def sample(self, n: int, t: float | None = None, *, seed: int) -> Tensor:
        """Draw from p_t, or from the data if t is None.

        Sample i depends on (seed, i) alone, and is independent of the noise that a sampler or a
        training run makes from the same seed.

        Args:
            n: Number of samples, at least 0.
            t: Time, or None.
            seed: Integer in [0, 2^64).

        Returns:
            Shape (n, *D), float64, on the device of the mixture.
        """
        check_integer("n", n, minimum=0)
        noise = SampleNoise(seed, [_DATA_STREAM])
        log_weights, means = self._terms(n)
        edges = torch.cumsum(log_weights.exp(), 0)[:-1]  # above the last edge: the last component
        k = (noise.uniform(edges.new_empty(1, n))[0] >= edges).sum(0)
        z = noise.prior((1, n, self.dim))[0].to(self.means.device)
        node = None if t is None else self.sde.at(t, z)
        alpha, sigma = (1.0, 0.0) if node is None else (node.alpha, node.sigma)
        x = z * torch.sqrt(alpha**2 * self.variances[k] + sigma**2)
        if self.axes is not None:
            for j in range(len(self.weights)):  # axes[k] would be n matrices
                x[k == j] = x[k == j] @ self.axes[j].T
        chosen = means.expand(-1, n, -1)[k, torch.arange(n, device=k.device)]
        return (x + alpha * chosen).reshape(n, *self.shape)

    def _expectation(self, x: Tensor, alpha: Factor, sigma: Factor, a: Factor, b: Factor) -> Tensor:
        """Σ_k r_k (a m_k + (a α Σ_k + b σ) (α² Σ_k + σ² I)⁻¹ (x − α m_k))."""
        log_terms, gaps, variances, means = self._components(x, alpha, sigma)
        r = torch.softmax(log_terms, dim=0).unsqueeze(-1)
        gain = (a * alpha * self.variances.unsqueeze(1) + b * sigma) / variances
        return (r * (a * means + self._unrotated(gain * gaps))).sum(0)

    def _terms(self, n: int) -> tuple[Tensor, Tensor]:
        """log w_k of shape (K, 1), or (K, n) if it differs between n points; m_k of (K, ·, D)."""
        return torch.log(self.weights).unsqueeze(1), self.means.unsqueeze(1)

    def _components(self, x: Tensor, alpha: Factor, sigma: Factor) -> tuple[Tensor, ...]:
        """log(w_k N_k(x)) of shape (K, B), Uᵀ(x − α m_k) of (K, B, D), α² l + σ², and m_k."""
        # `unsqueeze` and `square` cost half of an index and a power, which counts in small models
        variances = alpha**2 * self.variances.unsqueeze(1) + sigma**2
        log_weights, means = self._terms(x.shape[0])
        gaps = x - alpha * means
        if (axes := self.axes) is not None:
            gaps = gaps @ axes
        log_scales = log_weights - 0.5 * torch.log(2 * math.pi * variances).sum(-1)
        return log_scales - 0.5 * (gaps.square() / variances).sum(-1), gaps, variances, means

    def _unrotated(self, coordinates: Tensor) -> Tensor:
        """U c for coordinates c of shape (K, B, D)."""
        axes = self.axes
        return coordinates if axes is None else coordinates @ axes.mT


def _checked_weights(weights: Tensor, n: int) -> Tensor:
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), got {tuple(weights.shape)}")
    if not bool((weights > 0).all()):
        raise ValueError(f"weights must be positive, got {weights.tolist()}")
    total = float(weights.sum())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"weights must sum to 1, got a sum of {total}")
    return weights / total


def _diagonalise(covs: Tensor, n: int, dim: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (n, dim) and eigenvectors (n, dim, dim) of covariances; None if diagonal."""
    axes = None
    if covs.shape == (n,):
        values = covs[:, None].expand(n, dim).clone()
    elif covs.shape == (n, dim):
        values = covs
    elif covs.shape == (n, dim, dim):
        tolerance = 1e-6 * covs.abs().amax(dim=(1, 2), keepdim=True)
        if bool(((covs - covs.mT).abs() > tolerance).any()):
            raise ValueError("covs must be symmetric")
        values, axes = torch.linalg.eigh(0.5 * (covs + covs.mT))
    else:
        raise ValueError(
            f"covs must have shape ({n}, {dim}, {dim}), ({n}, {dim}) or ({n},), "
            f"got {tuple(covs.shape)}"
        )
    lowest = values.amin(dim=1)
    bad = torch.nonzero(lowest < -1e-6 * values.abs().amax(dim=1)).flatten().tolist()
    if bad:
        k = bad[0]
        raise ValueError(
            f"covs must be positive semi-definite, got an eigenvalue {float(lowest[k]):.6g} "
            f"in component {k}"
        )
    return values.clamp(min=0), axes
