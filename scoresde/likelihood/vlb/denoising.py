"""Weighted squared denoising errors with their standard error: the terms of a variational bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..._tensor import expand
from ...noise import Noise
from ...score import ScoreModel
from ...score.sets import numbers_of_sets, only_present, present_rows
from ...sde import Node
from ...sde.reverse import gaussian_kl, learned_std
from ..trace.jacobian import flat_rows
from ..trace.rules import error_of_mean

__all__ = [
    "DecoderNode",
    "Denoising",
    "Draw",
    "LearnedNode",
    "Residual",
    "WeightedNode",
    "mean_and_variance",
    "squared_norm",
]

# Weight of the newest term in the running mean of |ε − ε̂|²/D.
NEWEST = 0.5


class Residual(NamedTuple):
    """ε − ε̂(x_t, t), float64 of shape (B, *D); its square and |ε|² − D, each (B,).

    `share` is w of a learned variance, like `difference`; None for a model without one. `present`
    says which numbers of padded sets exist, shape (B, D); None if all do.
    """

    difference: Tensor
    square: Tensor
    excess: Tensor
    share: Tensor | None
    present: Tensor | None = None

    def total(self, terms: Tensor) -> Tensor:
        """The sum of terms like `difference` over the numbers that exist, shape (B,)."""
        rows = flat_rows(terms)
        return (rows if self.present is None else rows * self.present).sum(1)


class Draw(Protocol):
    """A time, and what is computed from the denoising error at this time.

    For one time per sample `node` holds (B, 1, ..., 1) tensors, and numbers are (B,) tensors.
    """

    node: Node

    def value(self, residual: Residual, slope: Tensor) -> Tensor:
        """A term of the bound, less `slope` times a control variate of mean 0, nats, (B,)."""


class WeightedNode(NamedTuple):
    """The `Draw` whose value is weight · |ε − ε̂(x_t, t)|²."""

    node: Node
    weight: Tensor | float

    def value(self, residual: Residual, slope: Tensor) -> Tensor:
        """weight (|ε − ε̂|² − slope (|ε|² − D))."""
        return self.weight * (residual.square - slope * residual.excess)


class LearnedNode(NamedTuple):
    """The `Draw` whose value is the KL of a step with a learned variance v.

        count · Σ KL(N(μ̃, β̃) ‖ N(μ, v)),   (μ̃ − μ)² = κ² (ε − ε̂)²

    The control variate has the weight κ²/2β, because v depends on the noise. Where the control
    variate matters, ε̂ → 0, the best v is β.
    """

    node: Node
    gain: Tensor | float
    std: Tensor | float
    posterior: Tensor | float
    ratio: Tensor | float
    count: Tensor | float = 1.0

    def value(self, residual: Residual, slope: Tensor) -> Tensor:
        """The KL divergence, summed over the elements of each sample."""
        x = residual.difference
        gain, std, posterior, ratio = (_expanded(v, x) for v in self[1:5])
        variance = learned_std(std, ratio, residual.share).square()
        terms = gaussian_kl((gain * x).square(), posterior, variance)
        weight = 0.5 * (self.gain / self.std) ** 2
        return self.count * (residual.total(terms) - slope * weight * residual.excess)


class DecoderNode(NamedTuple):
    """The `Draw` whose value is −log N(x_0; x̂_0, s²) for x_0 − x̂_0 = gain (ε̂ − ε).

    Attributes:
        node: The last time.
        gain: σ/α there.
        std: s from the share of a learned variance: a number, or one for each element.
    """

    node: Node
    gain: float
    std: Callable[[Tensor | float | None], Tensor | float]

    def value(self, residual: Residual, slope: Tensor) -> Tensor:
        """The negative log-density; the control variate's s is that of the share 1."""
        x = residual.difference
        s = torch.as_tensor(self.std(residual.share), dtype=x.dtype, device=x.device)
        terms = 0.5 * (self.gain * x / s).square() + torch.log(s)
        constant = residual.total(torch.full_like(x, 0.5 * math.log(2 * math.pi)))
        weight = 0.5 * (self.gain / self.std(1.0)) ** 2
        return residual.total(terms) + constant - slope * weight * residual.excess


def _expanded(value: Tensor | float, x: Tensor) -> Tensor | float:
    """A number as it is, or one number per sample so that it broadcasts against x."""
    return expand(value, x) if isinstance(value, Tensor) else value


class Denoising:
    """Estimates terms such as E[weight · |ε − ε̂(x_t, t)|²] for the data x_0 of one batch.

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
        sizes = numbers_of_sets(model, x0)
        self.dims = math.prod(x0.shape[1:]) if sizes is None else sizes
        self.present = present_rows(model, x0)
        self.slope = x0.new_zeros(len(x0))

    def residual(self, node: Node) -> Residual:
        """ε − ε̂(x_t, t) at fresh noise; one evaluation of the model, none for an empty batch."""
        eps = self.noise.fresh(self.x0)
        x = (node.alpha * self.x0 + node.sigma * eps).to(self.dtype)
        predicted, share = self.model.with_share("eps", x, node) if len(x) else (x, x)
        difference = only_present(self.model, eps - predicted.to(torch.float64))
        share = None if share is None else share.to(torch.float64)
        excess = squared_norm(eps) - self.dims
        return Residual(difference, squared_norm(difference), excess, share, self.present)

    @property
    def numbers(self) -> float:
        """How many numbers the data of the batch have, the sum of D."""
        return float(torch.as_tensor(self.dims).expand(len(self.x0)).sum())

    def constants(self, per_dimension: Sequence[float]) -> Tensor:
        """D times each number, shape (M,), or (B, M) for sets, whose dimensions differ."""
        numbers = self.slope.new_tensor(per_dimension)
        return (
            self.dims[:, None] * numbers if isinstance(self.dims, Tensor) else self.dims * numbers
        )

    def term(self, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """The mean of independent draws, and the square of its standard error, each (B,)."""
        values, squares = [], []
        for draw in draws:
            residual = self.residual(draw.node)
            squares.append(residual.square)
            values.append(draw.value(residual, self.slope))
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
