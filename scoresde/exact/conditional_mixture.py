"""ConditionalMixture: the exact score, density and samples of p(x | y) of a joint mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows
from .._tensor import check_integer
from ..noise import SampleNoise
from ..sde import SDE
from .base import finite_tensor
from .gaussian_mixture import GaussianMixture

__all__ = ["ConditionalMixture"]

_CLASS_STREAM = 2**64 - 2  # an index far outside any batch, and not that of the mixture's own draws


class ConditionalMixture(GaussianMixture):
    """The exact score, density and samples of p(x | y), where (x, y) has a known mixture density.

    The condition y is a vector v, a class c, or both. In component k they have the joint density

        w_k q_kc N((x, v); m_k, Σ_k),   m_k = (m_x, m_v),   Σ_k = (Σ_xx, Σ_xv; Σ_vx, Σ_vv)

    so that p(x | y) is a Gaussian mixture, whose weights and means depend on y:

        w_k(y) ∝ w_k q_kc N(v; m_v, Σ_vv)
        m_k(y) = m_x + Σ_xv Σ_vv⁻¹ (v − m_v),   Σ_k|y = Σ_xx − Σ_xv Σ_vv⁻¹ Σ_vx

    (Bishop 2006, Pattern Recognition and Machine Learning, eq. (2.81) and (2.82)). Bind a condition
    with `given`; every method of `GaussianMixture` then is about p(x | y).

    Attributes:
        joint: The mixture of (x, v), a `GaussianMixture` of shape (D + V,).
        marginal: The mixture of x alone, for samples without a condition.
        shares: q_kc, the probability of class c in component k, shape (K, C), or None.
    """

    needs_labels = True

    @torch.inference_mode(False)  # inference tensors could not be differentiated through
    def __init__(
        self,
        sde: SDE,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence,
        covs: Tensor | Sequence,
        vector: int = 0,
        shares: Tensor | Sequence | None = None,
    ) -> None:
        """Check the joint mixture and split it.

        Args:
            sde: The forward process of x.
            weights: w_k, positive, summing to 1, shape (K,).
            means: m_k of (x, v), shape (K, D + V).
            covs: Σ_k of (x, v), shape (K, D + V, D + V), (K, D + V) or (K,), as in
                `GaussianMixture`. Every Σ_vv must be positive definite.
            vector: V, the length of the vector at the end of (x, v); 0 without a vector.
            shares: q_kc, not negative, each row summing to 1, shape (K, C); None without classes.

        Raises:
            TypeError: If `vector` is not an integer.
            ValueError: If there is neither a vector nor classes, on a wrong shape or a value that
                is not finite, if a Σ_vv is singular, if a row of `shares` is not a distribution, or
                if a class has probability 0.
        """
        vector = check_integer("vector", vector, minimum=0)
        means = finite_tensor("means", means)
        if means.ndim != 2 or means.shape[1] <= vector:
            raise ValueError(f"means must have shape (K, D + {vector}), got {tuple(means.shape)}")
        if not vector and shares is None:
            raise ValueError("vector must be at least 1, or shares must be given, got neither")
        joint = GaussianMixture(sde, weights, means, covs)
        covs = _full(joint)
        dim = means.shape[1] - vector
        within, across, own = covs[:, :dim, :dim], covs[:, :dim, dim:], covs[:, dim:, dim:]
        root, failed = torch.linalg.cholesky_ex(own)
        if bool(failed.any()):
            raise ValueError("covs must give every component a positive definite Σ_vv")
        whitening = torch.linalg.solve_triangular(root, torch.eye(vector).to(root), upper=False)
        gains = across @ whitening.mT  # of the whitened vector
        super().__init__(sde, joint.weights, means[:, :dim], within - gains @ gains.mT)
        self.joint = joint
        self.marginal = GaussianMixture(sde, joint.weights, means[:, :dim], within)
        self.register_buffer("centres", means[:, dim:])
        self.register_buffer("whitening", whitening)
        self.register_buffer("gains", gains)
        self.register_buffer("shares", _checked_shares(shares, len(means)))
        classes = None if shares is None else self.shares.shape[1]
        self.condition = ConditionSpec(classes, vector or None)

    def without(self) -> GaussianMixture:
        """The mixture of x alone."""
        return self.marginal

    def conditional(self) -> GaussianMixture:
        """The mixture p(x | y) of the one bound condition, without components of weight 0.

        Raises:
            ValueError: If no condition is bound, or more than one.
        """
        if self._bound() != 1:
            raise ValueError(f"y must be one condition, got {self._bound()}")
        log_weights, means = self._terms(1)
        weights = log_weights[:, 0].exp()
        some = weights > 0
        return GaussianMixture(self.sde, weights[some], means[some, 0], _full(self)[some])

    def mean(self) -> Tensor:
        """Mean of x given each bound condition, shape (B, D), float64."""
        log_weights, means = self._terms(self._bound())
        return (log_weights.exp()[..., None] * means).sum(0)

    def cov(self) -> Tensor:
        """Covariance of x given each bound condition, shape (B, D, D), float64."""
        n = self._bound()
        log_weights, means = self._terms(n)
        weights, gaps = log_weights.exp().expand(-1, n), means - self.mean()
        within = torch.einsum("kb,kde->bde", weights, _full(self))
        return within + torch.einsum("kb,kbd,kbe->bde", weights, gaps, gaps)

    def sample_joint(self, n: int, *, seed: int) -> tuple[Tensor, Condition]:
        """Draw pairs (x, y) of the joint density, for training.

        Args:
            n: Number of pairs, at least 0.
            seed: Integer in [0, 2^64).

        Returns:
            x of shape (n, D), float64, and y, a condition of this model.

        Raises:
            ValueError: If there are classes and a Σ_k is singular, so that (x, v) has no density.
        """
        pairs = self.joint.sample(n, seed=seed)
        parts = {"vector": pairs[:, self.dim :]} if self.condition.vector else {}
        if self.shares is not None:
            parts = {"class": self._classes_of(pairs, seed), **parts}
        y = parts if len(parts) > 1 else next(iter(parts.values()))
        return pairs[:, : self.dim], y

    def _classes_of(self, pairs: Tensor, seed: int) -> Tensor:
        """Draw c from P(c | x, v) = Σ_k r_k(x, v) q_kc, with r_k the share of component k."""
        if bool((self.joint.variances <= 0).any()):
            raise ValueError("covs must be positive definite to draw classes")
        log_terms, *_ = self.joint._components(pairs, 1.0, 0.0)
        edges = (torch.softmax(log_terms, dim=0).T @ self.shares).cumsum(1)[:, :-1]
        noise = SampleNoise(seed, [_CLASS_STREAM])
        return (noise.uniform(edges.new_empty(1, len(pairs)))[0][:, None] >= edges).sum(1)

    def _bound(self) -> int:
        """How many conditions are bound."""
        self._check_label()
        first = next(iter(self.y.values())) if isinstance(self.y, dict) else self.y
        return len(first)

    def _terms(self, n: int) -> tuple[Tensor, Tensor]:
        """log w_k(y) of shape (K, n), and m_k(y) of shape (K, n, D), for the bound conditions."""
        self._check_label()
        parts = self.condition.parts(bound_rows(self.y, n, self.means.device), n)
        log_weights, means = torch.log(self.weights)[:, None], self.means[:, None]
        if "class" in parts:
            log_weights = log_weights + torch.log(self.shares)[:, parts["class"]]
        if "vector" in parts:
            gaps = parts["vector"].to(self.means) - self.centres[:, None]
            white = gaps @ self.whitening.mT
            scales = self.whitening.diagonal(dim1=1, dim2=2).log().sum(1)  # log det of Σ_vv^-½
            log_weights = log_weights + scales[:, None] - 0.5 * (white**2).sum(-1)
            means = means + white @ self.gains.mT
        return torch.log_softmax(log_weights, dim=0), means


def _full(mixture: GaussianMixture) -> Tensor:
    """Covariances of the components, shape (K, D, D)."""
    if mixture.axes is None:
        return torch.diag_embed(mixture.variances)
    return mixture.axes @ (mixture.variances[..., None] * mixture.axes.mT)


def _checked_shares(shares: Tensor | Sequence | None, n: int) -> Tensor | None:
    if shares is None:
        return None
    shares = finite_tensor("shares", shares)
    if shares.ndim != 2 or len(shares) != n or shares.shape[1] < 1:
        raise ValueError(f"shares must have shape ({n}, C), got {tuple(shares.shape)}")
    sums = shares.sum(1)
    if bool((shares < 0).any()) or bool(((sums - 1).abs() > 1e-6).any()):
        raise ValueError("shares must not be negative, and each row must sum to 1")
    if bool((shares.sum(0) == 0).any()):
        raise ValueError("shares must give every class a positive probability in some component")
    return shares / sums[:, None]
