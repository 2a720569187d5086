"""FiniteData: the exact score of a finite data set."""

from __future__ import annotations

import torch
from torch import Tensor

from ..score import Time
from ..sde import SDE
from .base import ExactScore, Factor, as_row, finite_tensor, flat

__all__ = ["FiniteData"]

# Elements of the largest temporary of `FiniteData`: 2^23 float64 numbers are 64 MiB.
_LARGEST_TEMPORARY = 2**23


class FiniteData(ExactScore):
    """The exact score of the empirical distribution of a data set: the ideal denoiser.

        E[x_0 | x_t = x] = Σ_i x_i softmax_i(−|x − α x_i|²/(2σ²))

    A network of unlimited capacity learns this score from the data set by denoising score matching
    (Karras et al. 2022, arXiv:2206.00364, section 2). Its samples are the data themselves.
    An evaluation costs O(B n D), with temporaries of at most 64 MiB and one of shape (B, n).

    Attributes:
        points: The data set flattened, shape (n, D), float64.
    """

    @torch.inference_mode(False)  # inference tensors could not be differentiated through
    def __init__(self, sde: SDE, x: Tensor) -> None:
        """Keep the data.

        Args:
            sde: The forward process.
            x: Data, shape (n, *D), n ≥ 1.

        Raises:
            ValueError: If the data are empty or not finite.
        """
        data = finite_tensor("x", x)
        if data.ndim == 0 or data.numel() == 0:
            raise ValueError(f"x must have shape (n, *D), n ≥ 1, got {tuple(data.shape)}")
        super().__init__(sde, data.shape[1:])
        self.register_buffer("points", data.reshape(data.shape[0], self.dim))

    def least_error(self, x: Tensor, t: Time) -> Tensor:
        """(α/σ)² tr Cov(x_0 | x_t = x), see `ExactScore.least_error`."""
        node = self.sde.at(t, x)
        alpha, sigma = as_row(node.alpha), as_row(node.sigma)
        r = self._shares(self._rows(x), alpha, sigma)
        mean = r @ self.points
        variance = r @ self.points.square().sum(1) - mean.square().sum(1)
        return ((flat(node.alpha) / flat(node.sigma)) ** 2 * variance).clamp(min=0).to(x.dtype)

    def _expectation(self, x: Tensor, alpha: Factor, sigma: Factor, a: Factor, b: Factor) -> Tensor:
        """a x̂ + b (x − α x̂)/σ with x̂ = E[x_0 | x_t = x]."""
        x0 = self._shares(x, alpha, sigma) @ self.points
        return a * x0 + b * (x - alpha * x0) / sigma

    def _shares(self, x: Tensor, alpha: Factor, sigma: Factor) -> Tensor:
        """P(x_0 = x_i | x_t = x), shape (B, n)."""
        distances = self._squared_distances(x / _not_zero(alpha))
        return torch.softmax(-0.5 * (alpha / sigma) ** 2 * distances, dim=1)

    def _squared_distances(self, x: Tensor) -> Tensor:
        """|x − x_i|² for x of shape (B, D), shape (B, n).

        The distances are computed from differences, because |x|² − 2 x·x_i + |x_i|² loses digits
        where σ is small.
        """
        size = max(1, _LARGEST_TEMPORARY // max(1, x.numel()))
        parts = [((x[:, None] - part) ** 2).sum(-1) for part in self.points.split(size)]
        return torch.cat(parts, dim=1)


def _not_zero(alpha: Factor) -> Factor:
    """α, and 1 where it is 0: there x says nothing about the data, and its weight is 0."""
    if isinstance(alpha, Tensor):
        return torch.where(alpha == 0, 1.0, alpha)
    return 1.0 if alpha == 0 else alpha
