"""Weighted squared denoising errors with their standard error: the terms of a variational bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...noise import Noise
from ...score import ScoreModel
from ...sde import Node
from ..trace.jacobian import flat_rows
from ..trace.rules import error_of_mean

__all__ = ["Denoising", "Residual", "WeightedNode", "mean_and_variance", "squared_norm"]

# Weight of the newest term in the running mean of |ε − ε̂|²/D.
NEWEST = 0.5


class WeightedNode(NamedTuple):
    """The time at which |ε − ε̂(x_t, t)|² is evaluated, and its weight.

    For one time per sample `node` holds (B, 1, ..., 1) tensors and `weight` is a (B,) tensor.
    """

    node: Node
    weight: Tensor | float


class Residual(NamedTuple):
    """ε − ε̂(x_t, t), float64 of shape (B, *D); its square and |ε|² − D, each (B,)."""

    difference: Tensor
    square: Tensor
    excess: Tensor


class Denoising:
    """Estimates E[weight · |ε − ε̂(x_t, t)|²] for the data x_0 of one batch, term by term.

    A term is the mean of independent draws of (t, ε). Its squared error is estimated from their
    spread. Errors of different terms are uncorrelated, so their squares add up.

    Where the noise is much smaller than the structure of the data, ε̂ → 0, and |ε − ε̂|² differs
    little from |ε|², whose mean D is known. So c (|ε|² − D) is subtracted as a control variate.
    Here c is the running mean of |ε − ε̂|²/D over the *earlier* terms. It does not depend on the
    noise of its own term, so that neither the estimate nor its squared error becomes biased. The
    terms should come in the order of time, from noise to data, because c changes slowly then.

    Args:
        model: Score model, labels bound.
        x0: Data, shape (B, *D), float64.
        noise: Source of ε.
        dtype: Dtype of x_t that the model sees.
    """

    def __init__(self, model: ScoreModel, x0: Tensor, noise: Noise, dtype: torch.dtype) -> None:
        self.model, self.x0, self.noise, self.dtype = model, x0, noise, dtype
        self.dims = math.prod(x0.shape[1:])
        self.slope = x0.new_zeros(len(x0))

    def residual(self, node: Node) -> Residual:
        """ε − ε̂(x_t, t) at fresh noise; one evaluation of the model, none for an empty batch."""
        eps = self.noise.fresh(self.x0)
        x = (node.alpha * self.x0 + node.sigma * eps).to(self.dtype)
        predicted = self.model.eps(x, node) if len(x) else x
        difference = eps - predicted.to(torch.float64)
        return Residual(difference, squared_norm(difference), squared_norm(eps) - self.dims)

    def term(self, draws: Sequence[WeightedNode]) -> tuple[Tensor, Tensor]:
        """The mean of independent draws, and the square of its standard error, each (B,)."""
        values, squares = [], []
        for node, weight in draws:
            _, square, excess = self.residual(node)
            squares.append(square)
            values.append(weight * (square - self.slope * excess))
        newest = torch.stack(squares).mean(0) / self.dims
        self.slope = torch.lerp(self.slope, newest, NEWEST)
        return mean_and_variance(values)


def squared_norm(x: Tensor) -> Tensor:
    """|x|² of each sample, shape (B,)."""
    return flat_rows(x).square().sum(1)


def mean_and_variance(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean of independent values, each (B,), and the square of its standard error."""
    stacked = torch.stack(list(values))
    return stacked.mean(0), error_of_mean(stacked, dim=0).square()
