"""Exact score models: data whose p_t is known in closed form under any SDE.

A Gaussian mixture remains a Gaussian mixture under x_t = α x_0 + σ ε,

    p_t(x) = Σ_k w_k N(x; α m_k, α² Σ_k + σ² I)

and a finite data set is a mixture of points. Samplers, likelihoods and networks are compared with
these models. So they compute in float64, whatever the dtype of x is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ._tensor import check_integer
from .noise import SampleNoise
from .score import ScoreModel, Time
from .sde import SDE, Node

__all__ = ["FiniteData", "GaussianMixture"]

# A coefficient for flattened points of shape (B, D): a number, or numbers of shape (B, 1).
Coefficient = float | Tensor

# An index far outside any batch. So data drawn with a seed are independent of the noise of a sampler
# or a training run with the same seed.
_DATA_STREAM = 2**64 - 1

# Elements of the largest temporary of `FiniteData`: 2^23 float64 numbers are 64 MiB.
_CHUNK = 2**23


class _ExactScore(ScoreModel):
    """Every quantity as E[c_x0 x_0 + c_eps ε | x_t = x], so that none is computed from another."""

    takes_labels = False

    def __init__(self, sde: SDE, shape: Sequence[int]) -> None:
        super().__init__(sde)
        self.shape = tuple(shape)
        self.dim = math.prod(self.shape)

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """E[ε | x_t = x], exact; one forward evaluation is counted."""
        return self._mean(x, self.sde.at(t, x), 0.0, 1.0)

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t = x], exact also where α is small; one forward evaluation is counted."""
        return self._mean(x, self.sde.at(t, x), 1.0, 0.0)

    def v(self, x: Tensor, t: Time) -> Tensor:
        """E[α ε − σ x_0 | x_t = x], exact; one forward evaluation is counted."""
        node = self.sde.at(t, x)
        return self._mean(x, node, -node.sigma, node.alpha)

    def _mean(self, x: Tensor, node: Node, c_x0: Coefficient, c_eps: Coefficient) -> Tensor:
        """E[c_x0 x_0 + c_eps ε | x_t = x] like x, counted."""
        rows = self._rows(x)
        self.nfe.add_forward(node.t)
        alpha, sigma, c_x0, c_eps = map(_row, (node.alpha, node.sigma, c_x0, c_eps))
        return self._expectation(rows, alpha, sigma, c_x0, c_eps).reshape(x.shape).to(x.dtype)

    @abstractmethod
    def _expectation(
        self,
        x: Tensor,
        alpha: Coefficient,
        sigma: Coefficient,
        c_x0: Coefficient,
        c_eps: Coefficient,
    ) -> Tensor:
        """E[c_x0 x_0 + c_eps ε | x_t = x] for float64 x of shape (B, D), like x."""

    def _rows(self, x: Tensor) -> Tensor:
        """The points x as float64 of shape (B, D), or raise."""
        if x.ndim == 0 or tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(["B", *map(str, self.shape)])
            raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
        return x.reshape(x.shape[0], self.dim).to(torch.float64)


class GaussianMixture(_ExactScore):
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

    @torch.inference_mode(False)  # no derivative could pass through tensors made in that mode
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
                entry. They are then made symmetric, and negative eigenvalues down to −1e-6
                times the largest become 0. A singular Σ_k is allowed, because p_t has a density wherever
                σ > 0; only `log_prob` of the data themselves refuses it.

        Raises:
            ValueError: On a wrong shape, a value that is not finite, weights that are not
                positive or do not sum to 1, or a Σ_k that is not a covariance.
        """
        means = _finite("means", means)
        if means.ndim == 0 or means.numel() == 0:
            raise ValueError(f"means must have shape (K, *D), K ≥ 1, got {tuple(means.shape)}")
        super().__init__(sde, means.shape[1:])
        n = means.shape[0]
        variances, axes = _diagonalise(_finite("covs", covs), n, self.dim)
        self.register_buffer("weights", _checked_weights(_finite("weights", weights), n))
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
        root = scaled[:, None, :] * self._axes()
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
        alpha, sigma = (1.0, 0.0) if node is None else map(_row, (node.alpha, node.sigma))
        log_terms, _, _ = self._components(self._rows(x), alpha, sigma)
        return torch.logsumexp(log_terms, dim=0).to(x.dtype)

    def score_trace(self, x: Tensor, t: Time) -> Tensor:
        """Divergence ∇ · ∇ log p_t(x), the trace of the score's Jacobian; not counted as NFE.

            Σ_k r_k |s_k − s|² − Σ_k r_k tr(α² Σ_k + σ² I)⁻¹

        where s_k is the score of component k and s that of the mixture. It is the exact value that
        the trace rules of `scoresde.likelihood` estimate.

        Args:
            x: Points, shape (B, *D).
            t: A number, a tensor of shape () or (B,), or a node.

        Returns:
            Shape (B,), in the dtype of x.
        """
        node = self.sde.at(t, x)
        log_terms, gaps, variances = self._components(
            self._rows(x), _row(node.alpha), _row(node.sigma)
        )
        r = torch.softmax(log_terms, dim=0)
        scores = -self._unrotated(gaps / variances)
        mean = (r[..., None] * scores).sum(0)
        spread = ((scores - mean) ** 2).sum(-1)
        return (r * (spread - (1 / variances).sum(-1))).sum(0).to(x.dtype)

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
        edges = torch.cumsum(self.weights, 0)[:-1]  # the last component has all above
        k = torch.searchsorted(edges, noise.uniform(edges.new_empty(1, n))[0], right=True)
        z = noise.prior((1, n, self.dim))[0].to(self.means.device)
        node = None if t is None else self.sde.at(t, z)
        alpha, sigma = (1.0, 0.0) if node is None else (node.alpha, node.sigma)
        x = z * torch.sqrt(alpha**2 * self.variances[k] + sigma**2)
        if self.axes is not None:
            for j in range(len(self.weights)):  # axes[k] would be n matrices
                x[k == j] = x[k == j] @ self.axes[j].T
        return (x + alpha * self.means[k]).reshape(n, *self.shape)

    def _expectation(
        self,
        x: Tensor,
        alpha: Coefficient,
        sigma: Coefficient,
        c_x0: Coefficient,
        c_eps: Coefficient,
    ) -> Tensor:
        """Σ_k r_k (c_x0 m_k + (c_x0 α Σ_k + c_eps σ) (α² Σ_k + σ² I)⁻¹ (x − α m_k))."""
        log_terms, gaps, variances = self._components(x, alpha, sigma)
        r = torch.softmax(log_terms, dim=0)[..., None]
        gain = (c_x0 * alpha * self.variances[:, None] + c_eps * sigma) / variances
        return (r * (c_x0 * self.means[:, None] + self._unrotated(gain * gaps))).sum(0)

    def _components(
        self, x: Tensor, alpha: Coefficient, sigma: Coefficient
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log(w_k N_k(x)) of shape (K, B), Uᵀ(x − α m_k) of (K, B, D), and α² l + σ²."""
        variances = alpha**2 * self.variances[:, None] + sigma**2
        gaps = x - alpha * self.means[:, None]
        if self.axes is not None:
            gaps = gaps @ self.axes
        log_scales = torch.log(self.weights)[:, None] - 0.5 * torch.log(
            2 * math.pi * variances
        ).sum(-1)
        return log_scales - 0.5 * (gaps**2 / variances).sum(-1), gaps, variances

    def _unrotated(self, coordinates: Tensor) -> Tensor:
        """U c for coordinates c of shape (K, B, D)."""
        return coordinates if self.axes is None else coordinates @ self.axes.mT

    def _axes(self) -> Tensor:
        return torch.eye(self.dim).to(self.means)[None] if self.axes is None else self.axes


class FiniteData(_ExactScore):
    """The exact score of the empirical distribution of a data set: the ideal denoiser.

        E[x_0 | x_t = x] = Σ_i x_i softmax_i(−|x − α x_i|²/(2σ²))

    It is what a network of unlimited capacity learns from the data set by denoising score
    matching (Karras et al. 2022, arXiv:2206.00364, section 2); its samples are the data.
    An evaluation costs O(B n D), with temporaries of at most 64 MiB and one of shape (B, n).

    Attributes:
        data: The data set flattened, shape (n, D), float64.
    """

    @torch.inference_mode(False)  # no derivative could pass through tensors made in that mode
    def __init__(self, sde: SDE, x: Tensor) -> None:
        """Keep the data.

        Args:
            sde: The forward process.
            x: Data, shape (n, *D), n ≥ 1.

        Raises:
            ValueError: If the data are empty or not finite.
        """
        data = _finite("x", x)
        if data.ndim == 0 or data.numel() == 0:
            raise ValueError(f"x must have shape (n, *D), n ≥ 1, got {tuple(data.shape)}")
        super().__init__(sde, data.shape[1:])
        self.register_buffer("data", data.reshape(data.shape[0], self.dim))

    def _expectation(
        self,
        x: Tensor,
        alpha: Coefficient,
        sigma: Coefficient,
        c_x0: Coefficient,
        c_eps: Coefficient,
    ) -> Tensor:
        """c_x0 x̂ + c_eps (x − α x̂)/σ with x̂ = E[x_0 | x_t = x]."""
        distances = self._squared_distances(x / alpha)
        ratio = alpha / sigma
        r = torch.softmax(-0.5 * ratio**2 * distances, dim=1)
        x0 = r @ self.data
        return c_x0 * x0 + c_eps * (x - alpha * x0) / sigma

    def _squared_distances(self, x: Tensor) -> Tensor:
        """|x − x_i|² for x of shape (B, D), shape (B, n).

        They are computed from differences, because |x|² − 2 x·x_i + |x_i|² loses digits where σ is
        small.
        """
        size = max(1, _CHUNK // max(1, x.numel()))
        parts = [((x[:, None] - part) ** 2).sum(-1) for part in self.data.split(size)]
        return torch.cat(parts, dim=1)


def _row(value: Coefficient) -> Coefficient:
    """A node's entry for x of shape (B, D): numbers as they are, (B, 1, ..., 1) as (B, 1)."""
    return value.reshape(-1, 1) if isinstance(value, Tensor) else value


def _finite(name: str, value: Tensor | Sequence) -> Tensor:
    """A float64 copy of an argument, or raise ValueError."""
    # Without this dtype, Python numbers would first become float32.
    out = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    if not bool(torch.isfinite(out).all()):
        raise ValueError(f"{name} must be finite")
    return out


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
