"""Transforms of bounded data to the whole line: `Log` and `Logit`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Transform

__all__ = ["Log", "Logit"]


@dataclass(frozen=True)
class Log(Transform):
    """z = log x, for positive data.

    log |∂z/∂x| = −log x

    Args:
        columns: See `Transform`.
        axis: See `Transform`.
    """

    @property
    def domain(self) -> str:
        """Above 0."""
        return "must be above 0"

    def _forward(self, x: Tensor) -> Tensor:
        return x.log()

    def _inverse(self, z: Tensor) -> Tensor:
        return z.exp()

    def _log_slope(self, x: Tensor) -> Tensor:
        return -x.log()

    def _outside(self, x: Tensor) -> Tensor:
        return ~(x > 0)


@dataclass(frozen=True)
class Logit(Transform):
    """z = log (x − low) − log (high − x), for data between two bounds.

    log |∂z/∂x| = log (high − low) − log (x − low) − log (high − x)

    Args:
        low: Lower bound of each transformed feature; one number for all, or one for each.
        high: Upper bound, above `low`.
        columns: See `Transform`.
        axis: See `Transform`.

    Raises:
        TypeError: If a bound is no number.
        ValueError: If a lower bound is not below its upper bound, or as for `Transform`.
    """

    low: float | tuple[float, ...] = 0.0
    high: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (self.low, self.high))
        if not bool((low < high).all()):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    @property
    def domain(self) -> str:
        """Between the bounds, without them."""
        return f"must be between {self.low} and {self.high}, without these bounds,"

    def _forward(self, x: Tensor) -> Tensor:
        low, high = self._number("low", x), self._number("high", x)
        return (x - low).log() - (high - x).log()

    def _inverse(self, z: Tensor) -> Tensor:
        low, high = self._number("low", z), self._number("high", z)
        # From the nearer bound: low + span · sigmoid(z) would round values close to high.
        below, above = (high - low) * torch.sigmoid(z), (high - low) * torch.sigmoid(-z)
        return torch.where(z < 0, low + below, high - above)

    def _log_slope(self, x: Tensor) -> Tensor:
        low, high = self._number("low", x), self._number("high", x)
        return (high - low).log() - (x - low).log() - (high - x).log()

    def _outside(self, x: Tensor) -> Tensor:
        return ~((x > self._number("low", x)) & (x < self._number("high", x)))
