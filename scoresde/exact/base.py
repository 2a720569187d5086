"""The base class of exact score models."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .._condition import ConditionSpec
from ..score import ScoreModel, Time
from ..sde import SDE, Node

__all__ = ["ExactScore", "Factor", "as_row", "finite_tensor", "flat"]

# A factor for flattened points of shape (B, D): a number, or numbers of shape (B, 1).
Factor = float | Tensor


class ExactScore(ScoreModel):
    """Every quantity as E[a x_0 + b ε | x_t = x], so that none is computed from another."""

    condition = ConditionSpec()

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

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """E[α′ x_0 + σ′ ε | x_t = x], exact; one forward evaluation is counted."""
        node = self.sde.at(t, x)
        return self._mean(x, node, node.alpha_rate, node.sigma_rate)

    @property
    def t_most(self) -> float:
        """1: every quantity is exact at all times."""
        return 1.0

    @abstractmethod
    def least_error(self, x: Tensor, t: Time) -> Tensor:
        """E[|ε − ε̂|² | x_t = x] = tr Cov(ε | x_t = x) of the exact ε̂; not counted as NFE.

        Its mean over x_t is the irreducible error of denoising, D − σ² E|∇ log p_t(x_t)|².

        Args:
            x: Points, shape (B, *D).
            t: A number, a tensor of shape () or (B,), or a node.

        Returns:
            Shape (B,), in the dtype of x.
        """

    def _mean(self, x: Tensor, node: Node, a: Factor, b: Factor) -> Tensor:
        """E[a x_0 + b ε | x_t = x] like x, counted."""
        rows = self._rows(x)
        self.nfe.add_forward(node.t)
        alpha, sigma, a, b = map(as_row, (node.alpha, node.sigma, a, b))
        return self._expectation(rows, alpha, sigma, a, b).reshape(x.shape).to(x.dtype)

    @abstractmethod
    def _expectation(self, x: Tensor, alpha: Factor, sigma: Factor, a: Factor, b: Factor) -> Tensor:
        """E[a x_0 + b ε | x_t = x] for float64 x of shape (B, D), like x."""

    def _rows(self, x: Tensor) -> Tensor:
        """The points x as float64 of shape (B, D), or raise."""
        if x.ndim == 0 or tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(["B", *map(str, self.shape)])
            raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
        return x.reshape(x.shape[0], self.dim).to(torch.float64)


def as_row(value: Factor) -> Factor:
    """A node's entry for x of shape (B, D): numbers as they are, (B, 1, ..., 1) as (B, 1)."""
    return value.reshape(-1, 1) if isinstance(value, Tensor) else value


def flat(value: Factor) -> Factor:
    """A node's entry for numbers of shape (B,): numbers as they are, (B, 1, ..., 1) as (B,)."""
    return value.reshape(-1) if isinstance(value, Tensor) else value


def finite_tensor(name: str, value: Tensor | Sequence) -> Tensor:
    """A float64 copy of an argument, or raise ValueError."""
    # Without this dtype, Python numbers would first become float32.
    out = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    if not bool(torch.isfinite(out).all()):
        raise ValueError(f"{name} must be finite")
    return out
