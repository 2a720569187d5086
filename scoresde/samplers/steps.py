"""Evaluations of a sampler, the steps that a budget allows, and whether a sampler draws noise.

The sampler runs on a model that costs nothing, the exact score of N(0, 1). Nothing is computed from
a formula: formulas go wrong for correctors, last steps and solvers with several stages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .._identity import is_foreign
from .._tensor import float64
from ..evaluation import count_nfe, own_context
from ..exact import GaussianMixture
from ..exact.base import Factor
from ..grid import LadderError, snapped, uniform
from ..noise import SampleNoise
from ..score import ScoreModel, Time
from ..score.preconditioning import Quantity
from ..sde import SDE
from .base import Sampler

__all__ = ["Grid", "count_evaluations", "draws_noise", "largest_steps", "on_ladder"]

REMEMBERED = 4096  # counts of a process that are kept, each of some 100 bytes

Grid = Callable[..., Tensor]  # called with (sde, steps, t_min), like the functions of `grid`


def _free_model(sde: SDE) -> ScoreModel:
    """The exact score model of N(0, 1), which costs nothing."""
    return _Free(sde, [1.0], [[0.0]], [1.0])


class _Free(GaussianMixture):
    """N(0, 1) in its shortest form, and with a learned variance for samplers that need one."""

    def _expectation(self, x: Tensor, alpha: Factor, sigma: Factor, a: Factor, b: Factor) -> Tensor:
        """E[a x_0 + b ε | x_t = x] = (a α + b σ)/(α² + σ²) x."""
        return (a * alpha + b * sigma) / (alpha**2 + sigma**2) * x

    def with_share(self, quantity: Quantity, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The quantity, and w = 1."""
        return getattr(self, quantity)(x, t), torch.ones_like(x)


def on_ladder(grid: Grid) -> Grid:
    """The given grid function, with its times moved to the ladder of a discrete model."""

    def snapping(sde: SDE, steps: int, t_min: float) -> Tensor:
        return snapped(sde, grid(sde, steps, t_min))

    return snapping


def count_evaluations(sde: SDE, sampler: Sampler, ts: Tensor, limit: int | None = None) -> int:
    """Evaluations per sample on this grid, the final denoising included, counted.

    Args:
        sde: The SDE.
        sampler: The sampler.
        ts: Time grid, shape (N + 1,).
        limit: Stop counting here; the result is then `limit` + 1.
    """
    return _remembered(_counted, sde, sampler, tuple(ts.tolist()), limit)


def draws_noise(sde: SDE, sampler: Sampler, t_min: float) -> bool:
    """Whether two seeds give two end points from one x_T."""
    return _remembered(_drawing, sde, sampler, t_min)


def _remembered(function: Callable[..., Any], sde: SDE, sampler: Sampler, *rest: Any) -> Any:
    """A cached function of an SDE and a sampler; of the user's own classes it is computed anew.

    A comparison of several seeds, models or last times asks for the same counts each time. Classes
    of this package are equal if they compute the same, which nothing says of others.
    """
    own = not is_foreign(sde) and not is_foreign(sampler)
    return (function if own else function.__wrapped__)(sde, sampler, *rest)


@lru_cache(maxsize=REMEMBERED)
def _counted(sde: SDE, sampler: Sampler, times: tuple[float, ...], limit: int | None) -> int:
    """`count_evaluations` on a grid of these times."""
    model, ts = sampler.counted_on(_free_model(sde)), float64(times)
    with count_nfe(model, limit) as counted:
        try:
            x = _end(model, sampler, ts, seed=0)
            if not sampler.reaches_data:
                model.x0(x, float(ts[-1]))
        except RuntimeError:
            if limit is None or counted.forward < limit:
                raise
            return limit + 1
    return counted.forward


@lru_cache(maxsize=REMEMBERED)
def _drawing(sde: SDE, sampler: Sampler, t_min: float) -> bool:
    """`draws_noise`."""
    model, ts = sampler.counted_on(_free_model(sde)), uniform(sde, 3, t_min)
    return not torch.equal(*(_end(model, sampler, ts, seed) for seed in (0, 1)))


@own_context()
def _end(model: ScoreModel, sampler: Sampler, ts: Tensor, seed: int) -> Tensor:
    """Where the sampler ends if it starts from one standard deviation of the prior."""
    start = torch.full((1, 1), model.sde.prior_std, dtype=torch.float32, device="cpu")
    return sampler.run(model, start, ts, SampleNoise(seed, range(1))).state


def largest_steps(sde: SDE, sampler: Sampler, grid: Grid, budget: int, t_min: float) -> int:
    """The largest N whose counted evaluations do not exceed the budget; 0 if there is none.

    Every step of a grid sampler costs at least one evaluation, so that N is at most the budget.
    The ladder of a discrete model may allow fewer.

    Args:
        sde: The SDE.
        sampler: The sampler.
        grid: The grid function.
        budget: Evaluations allowed per sample, the final denoising included.
        t_min: Last time of the grid.
    """

    def cost(steps: int) -> int:
        try:
            return count_evaluations(sde, sampler, grid(sde, steps, t_min), limit=budget)
        except LadderError:
            return budget + 1

    first, second = cost(1), cost(2)
    if first > budget:
        return 0
    # Nearly every cost is a + b N. Then two more counts show that this N is the largest.
    steps = 1 + (budget - first) // max(second - first, 1)
    if cost(steps) <= budget < cost(steps + 1):
        return steps
    return bisect_right(range(1, budget + 1), budget, key=cost)
