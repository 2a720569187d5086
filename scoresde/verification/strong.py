"""Strong errors: the distance of a sampler's end points to the solution on the same path."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..noise import BrownianNoise
from ..samplers import Sampler, sample
from ..score import ScoreModel
from .orders import rms_distance

__all__ = ["strong_errors"]


def strong_errors(
    model: ScoreModel,
    sampler: Sampler,
    grids: Sequence[Tensor],
    finest: Tensor,
    shape: Sequence[int],
    *,
    reference: Sampler | None = None,
    seed: int = 0,
) -> list[float]:
    """√E|x_N − x_ref|² at t_min on each grid, all from one x_T and along one Brownian path W.

    For additive noise, a sampler that uses W only at its grid times has at most strong order 1.
    A step of length h with the drift coefficient A needs A ∫ (W_u − W_t) du. Given only the
    increment of W, this integral has variance A² h³/12. The errors of N steps are independent, so
    that their sum is of order h. The reference has an error of this order too: with k times as many
    steps, its error changes the result by at most 1/k of the result.

    Args:
        model: Score model.
        sampler: The sampler; for a deterministic one the errors are those of the ODE.
        grids: Time grids of one range.
        finest: Time grid of the reference, over the same range.
        shape: (paths, *D).
        reference: The sampler for x_ref, with the same noise η as `sampler`; None = `sampler`.
        seed: Integer in [0, 2^64).

    Returns:
        One error per grid, root mean square over the paths of the Euclidean distance.

    Raises:
        ValueError: If a grid does not have fewer steps than the finest.
    """
    most = max(map(len, grids)) - 1
    if len(finest) - 1 <= most:
        raise ValueError(
            f"finest must have more than the {most} steps of `grids`, got {len(finest) - 1}"
        )
    # cells of at most 1/1024 of the shortest step; a deeper tree would only cost time
    depth = min(52, math.ceil(10 - math.log2(float(-finest.diff().max()))))

    def end(solver: Sampler, ts: Tensor) -> Tensor:
        noise = BrownianNoise(seed, depth=depth)
        return sample(model, solver, ts, shape, noise=noise, dtype=torch.float64, denoise=False).x

    exact = end(reference or sampler, finest)
    return [rms_distance(end(sampler, ts), exact) for ts in grids]
