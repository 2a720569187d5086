"""Adams predictor–corrector on a given grid, with a curve through its points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["HermiteCurve", "adams_path"]


@dataclass(frozen=True)
class HermiteCurve:
    """A curve through N + 1 points with given slopes: on each interval the cubic that fits them.

    The curve has a continuous slope. The error of the interpolation between the points (cubic
    Hermite) is O(h⁴).

    Attributes:
        ts: Increasing times, shape (N + 1,), float64.
        points: Shape (N + 1, B, *D).
        slopes: Like `points`.
    """

    ts: Tensor
    points: Tensor
    slopes: Tensor

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Position and slope of each sample at its own time.

        Args:
            t: Times in [ts[0], ts[-1]], shape (B,).

        Returns:
            Position and slope, shape (B, *D) each.
        """
        i = (torch.searchsorted(self.ts, t.contiguous(), right=True) - 1).clamp(0, len(self.ts) - 2)
        rows = torch.arange(len(t), device=t.device)
        shape = (-1,) + (1,) * (self.points.ndim - 2)
        h = (self.ts[i + 1] - self.ts[i]).reshape(shape)
        u = (t - self.ts[i]).reshape(shape) / h
        first, last = self.points[i, rows], self.points[i + 1, rows]
        begin, end = h * self.slopes[i, rows], h * self.slopes[i + 1, rows]
        # position = first + u begin + u² (a + b u); the values at the last point give a and b
        gap = last - first
        a, b = 3 * gap - 2 * begin - end, begin + end - 2 * gap
        place = first + u * (begin + u * (a + u * b))
        return place, (begin + u * (2 * a + 3 * u * b)) / h


def adams_path(
    rate: Callable[[Tensor, int], Tensor], y: Tensor, ts: Sequence[float], order: int
) -> HermiteCurve:
    """Integrate dy/dt = rate along a grid, one evaluation per point.

    The polynomial through the last `order` slopes predicts the next point. The slope at this point
    corrects it and is used in later steps (Adams–Bashforth–Moulton in mode PEC; Hairer, Nørsett
    & Wanner, "Solving Ordinary Differential Equations I", section III.1). Early steps are of lower
    order: the first is the trapezoidal rule, with Euler's step as its predictor. No sample depends
    on another.

    Args:
        rate: Maps (y, i) to dy/dt at ts[i], like y.
        y: State at ts[0], shape (B, *D).
        ts: N + 1 ≥ 2 increasing times.
        order: Number of slopes in the predictor, at least 1.

    Returns:
        The curve through the points, with the slopes at them.
    """
    points, slopes = [y], [rate(y, 0)]
    for i in range(len(ts) - 1):
        known = list(range(i, max(i - order, -1), -1))
        predicted = _step(points[i], slopes, known, ts, i)
        slopes.append(rate(predicted, i + 1))
        points.append(_step(points[i], slopes, [i + 1, *known], ts, i))
    times = torch.tensor(ts, dtype=torch.float64, device=y.device)
    return HermiteCurve(times, torch.stack(points), torch.stack(slopes))


def _step(y: Tensor, slopes: list[Tensor], known: list[int], ts: Sequence[float], i: int) -> Tensor:
    """Y + ∫ of the polynomial through the known slopes, from ts[i] to ts[i + 1]."""
    h = ts[i + 1] - ts[i]
    weights = _integrals(np.array([(ts[j] - ts[i]) / h for j in known]))
    y = y.clone()
    for j, weight in zip(known, weights, strict=True):
        y.add_(slopes[j], alpha=h * weight)
    return y


def _integrals(knots: np.ndarray) -> list[float]:
    """∫_0^1 ℓ_j of the Lagrange polynomials through the knots."""
    powers = np.arange(len(knots))
    # Σ_j w_j knot_j^p = ∫ u^p du for every power that the polynomials hold
    return np.linalg.solve(knots[None] ** powers[:, None], 1 / (powers + 1)).tolist()
