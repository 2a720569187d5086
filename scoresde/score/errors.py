"""The squared errors of a model at noisy data."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..sde import Node
from .base import ScoreModel
from .combining import cast

__all__ = ["squared_errors"]


def squared_errors(
    model: ScoreModel, quantity: Literal["eps", "velocity"], x0: Tensor, t: Node, eps: Tensor
) -> tuple[Tensor, Tensor | None]:
    """(ε̂ − ε)², or (û − u)² of u = α′ x_0 + σ′ ε, at x_t = α x_0 + σ ε; and a learned variance.

    Args:
        model: Score model.
        quantity: Whose error.
        x0: Data, shape (B, *D).
        t: Times, a node of (B, 1, ..., 1) tensors.
        eps: Standard normal noise like x0.

    Returns:
        The squares of each element, like x0, and the share w of a learned variance, or None.
    """
    x_t = cast(t.alpha, x0) * x0 + cast(t.sigma, x0) * eps
    predicted, share = model.with_share(quantity, x_t, t)
    truth = eps
    if quantity == "velocity":
        truth = cast(t.alpha_rate, x0) * x0 + cast(t.sigma_rate, x0) * eps
    return (predicted - truth).square(), share
