"""Clipped: a model whose predicted x_0 stays within the range of the data."""

from __future__ import annotations

from torch import Tensor

from .._tensor import check_number, check_type
from .base import ScoreModel, Time, cast, combine

__all__ = ["Clipped"]


class Clipped(ScoreModel):
    """A model with its prediction of x_0 clipped to [low, high], for sampling.

        ε̂ = ε + (α/σ) (x_0 − clip(x_0)),   x_0 = (x − σ ε)/α

    Every sampler can use it. The result is not the score of a density: where the clip acts, the
    field need not be a gradient. So `log_likelihood` takes the model inside and warns.

    Args:
        model: The model.
        low: Least number of the data at the model's scale.
        high: Greatest number.

    Raises:
        ValueError: If high is not above low.
    """

    def __init__(self, model: ScoreModel, low: float = -1.0, high: float = 1.0) -> None:
        check_type("model", model, ScoreModel)
        super().__init__(model.sde)
        check_number("low", low)
        if not check_number("high", high) > low:
            raise ValueError(f"high must be above low, got {high} and {low}")
        self.model, self.low, self.high = model, low, high
        self.data, self.condition, self.y = model.data, model.condition, model.y

    @property
    def needs_labels(self) -> bool:
        """Whether the model inside needs a condition."""
        return self.model.needs_labels

    @property
    def snapped(self) -> bool:
        """Whether the model inside is exact only at the times of its ladder."""
        return self.model.snapped

    @property
    def t_least(self) -> float:
        """Least time of the model inside."""
        return self.model.t_least

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """ε̂ of the clipped x_0."""
        node = self.sde.at(t, x)
        self.nfe.add_forward(node.t)
        eps = self.model.given(self.y).eps(x, node)
        x0 = combine(1 / node.alpha, x, -node.sigma / node.alpha, eps)
        excess = x0 - x0.clamp(self.low, self.high)
        return eps + cast(node.alpha / node.sigma, x) * excess
