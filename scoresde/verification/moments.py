"""Exact moments of a sampler's output for Gaussian data: weak orders without Monte Carlo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..noise import Noise
from ..samplers import Sampler
from ..score import FunctionScore, ScoreModel

__all__ = ["output_moments"]


@torch.no_grad()
def output_moments(
    model: ScoreModel,
    sampler: Sampler,
    ts: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    denoise: bool = False,
) -> tuple[float, float]:
    """Mean and standard deviation of a sampler's output, exact to rounding.

    For one-dimensional Gaussian data every step is affine in x and in each of its draws,

        x = c + a x_T + Σ_k b_k z_k,     mean = c + a E[x_T],     variance = a² Var[x_T] + Σ_k b_k²

    A batch of unit impulses (first all 0, then x_T = 1, then one row per draw) gives c, a and all
    b_k in one run with about as many samples as there are draws.

    Args:
        model: Score model of Gaussian data of shape (1,), such as a `GaussianMixture` of one.
        sampler: A sampler on a grid whose steps do not depend on x; a predictor–corrector needs a
            step size that does not depend on the batch.
        ts: Time grid, shape (N + 1,).
        mean: Mean of x at ts[0].
        std: Standard deviation of x at ts[0], at least 0.
        denoise: Finish with E[x_0 | x] at ts[-1].

    Returns:
        (mean, standard deviation) of x at ts[-1].
    """
    counter = _Impulses()
    free = FunctionScore(model.sde, lambda x, t: x)
    sampler.run(free, torch.zeros(1, 1, dtype=torch.float64), ts, counter)
    x = torch.zeros(counter.draws + 2, 1, dtype=torch.float64)
    x[1] = 1.0
    x = sampler.run(model, x, ts, _Impulses()).state
    if denoise:
        x = model.x0(x, float(ts[-1]))
    offset, coefficients = x[0, 0], x[1:, 0] - x[0, 0]
    shift = mean * coefficients[0]
    coefficients[0] *= std
    return float(offset + shift), float(coefficients.square().sum().sqrt())


class _Impulses(Noise):
    """The k-th draw is 1 in row k + 2 and 0 in all other rows."""

    def __init__(self) -> None:
        self.draws = 0

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        z = torch.zeros(tuple(shape), dtype=torch.float64)
        if self.draws + 2 < shape[0]:
            z[self.draws + 2] = 1.0
        self.draws += 1
        return z
