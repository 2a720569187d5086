"""Sums of squared denoising errors with their standard error: what every variational bound is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node
from .trace import error_of_mean

__all__ = ["Denoising", "Draw", "Residual"]

# Of the running mean of |ε − ε̂|²/D: how much of it the newest term makes up.
NEWEST = 0.5


class Draw(NamedTuple):
    """One random term  weight · |ε − ε̂(x_t, t)|²  of a sum.

    For a time per sample `node` holds (B, 1, ..., 1) tensors and `weight` is a (B,) tensor.
    """

    node: Node
    weight: Tensor | float


class Residual(NamedTuple):
    """ε − ε̂(x_t, t), float64 of shape (B, *D); its square and |ε|² − D, each (B,)."""

    difference: Tensor
    square: Tensor
    excess: Tensor


class Denoising:
    """Estimates  Σ_m E[weight_m |ε − ε̂(x_t, t)|²]  for the data x_0 of one batch.

    Every term is the mean of `draws` independent (t, ε), and its squared error is estimated from
    their spread; errors of different terms are uncorrelated, so their squares add up.

    Where the noise is far below the data's structure, ε̂ → 0 and |ε − ε̂|² differs from |ε|² by
    little, while the mean of |ε|² is known. So c (|ε|² − D) is subtracted, with c the running mean
    of |ε − ε̂|²/D over the *earlier* terms: it does not depend on the noise of its own term, hence
    neither the estimate nor the variance of the draws around it becomes biased. Terms should come
    in the order of time, from noise to data, for c to follow them.

    Args:
        model: Score model, labels bound.
        x0: Data, shape (B, *D), float64.
        noise: Source of ε and of the times; used as often as there are draws.
        draws: At least 1; with a single one the standard error is NaN, for it cannot tell.
        dtype: Dtype of x_t that the model sees.
    """

    def __init__(
        self, model: ScoreModel, x0: Tensor, noise: Noise, draws: int, dtype: torch.dtype
    ) -> None:
        self.model, self.x0, self.noise = model, x0, noise
        self.draws, self.dtype = draws, dtype
        self.dims = math.prod(x0.shape[1:])
        self.slope = x0.new_zeros(x0.shape[0])

    def uniform(self) -> Tensor:
        """U[0, 1) per sample, shape (B,), float64, from the samples' own streams."""
        return self.noise.times(self.x0)

    def residual(self, node: Node) -> Residual:
        """ε − ε̂(x_t, t) at freshly drawn noise; one evaluation of the model."""
        eps = self.noise.fresh(self.x0)
        x = (node.alpha * self.x0 + node.sigma * eps).to(self.dtype)
        difference = eps - self.model.eps(x, node).to(torch.float64)
        return Residual(difference, _squares(difference), _squares(eps) - self.dims)

    def add(self, draw: Callable[[], Draw]) -> tuple[Tensor, Tensor]:
        """One term: its estimate and the square of its standard error, each (B,).

        Args:
            draw: Gives an independent (t, weight) at every call.
        """
        values, errors = [], []
        for _ in range(self.draws):
            node, weight = draw()
            residual = self.residual(node)
            errors.append(residual.square)
            values.append(weight * (errors[-1] - self.slope * residual.excess))
        newest = torch.stack(errors).mean(0) / self.dims
        self.slope = torch.lerp(self.slope, newest, NEWEST)
        return _mean(values)

    def mean(self, node: Node, value: Callable[[Residual], Tensor]) -> tuple[Tensor, Tensor]:
        """E of a function (B,) of the residual at one time, and its squared error, each (B,)."""
        return _mean([value(self.residual(node)) for _ in range(self.draws)])

    def total(self, draws: Iterable[Callable[[], Draw]]) -> tuple[Tensor, Tensor]:
        """The sum of the terms, and the square of its standard error, each (B,)."""
        value, variance = zip(*(self.add(draw) for draw in draws), strict=True)
        return torch.stack(value).sum(0), torch.stack(variance).sum(0)


def _squares(x: Tensor) -> Tensor:
    """|x|² of each sample, shape (B,)."""
    return x.reshape(x.shape[0], -1).square().sum(1)


def _mean(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    stacked = torch.stack(values)
    return stacked.mean(0), error_of_mean(stacked, dim=0).square()
