"""Strong errors: how far a sampler ends from the path that the same Brownian motion leads to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._tensor import check_integer
from ..noise import BrownianNoise
from ..samplers import Sampler, sample
from ..score import ScoreModel

__all__ = ["strong_errors"]

Grid = Callable[..., Tensor]


def strong_errors(
    model: ScoreModel,
    sampler: Sampler,
    grid: Grid,
    steps: Sequence[int],
    shape: Sequence[int],
    *,
    reference: Sampler | None = None,
    reference_steps: int | None = None,
    t_min: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """√E|x_N − x_ref|² at t_min for each number of steps N, all from one x_T and one path W.

    A sampler whose noise is additive can reach strong order 1 and no more from the increments of
    W between its grid times: in a step of length h a drift coefficient A leaves A ∫ (W_u − W_t) du
    unknown: of variance A² h³/12 where the increment is known, and N of them, independent, add
    up to an error of order h. The reference's own error is of that order too, so that with k
    times the steps it spoils an error by its k-th part at most.

    Args:
        model: Score model.
        sampler: The sampler; for a deterministic one the errors are those of the ODE.
        grid: A grid function of `scoresde.grid`.
        steps: Numbers of steps.
        shape: (paths, *D).
        reference: The sampler that gives x_ref, with the noise η of `sampler`; None = `sampler`.
        reference_steps: Its number of steps; None = 16 times the largest of `steps`.
        t_min: Last time.
        seed: Integer in [0, 2^64).

    Returns:
        One error per number of steps, root mean square over the paths of the Euclidean distance.

    Raises:
        ValueError: If `steps` is empty or `reference_steps` is not larger than each of them.
    """
    if not steps:
        raise ValueError("steps must hold at least one number, got none")
    if reference_steps is None:
        reference_steps = 16 * max(steps)
    check_integer("reference_steps", reference_steps, minimum=max(steps) + 1)
    finest = grid(model.sde, reference_steps, t_min)
    # cells of at most 1/1024 of the shortest step: deeper ones would only cost time
    depth = min(52, math.ceil(10 - math.log2(float(-finest.diff().max()))))

    def end(solver: Sampler, ts: Tensor) -> Tensor:
        noise = BrownianNoise(seed, depth=depth)
        return sample(model, solver, ts, shape, noise=noise, dtype=torch.float64).x

    exact = end(reference or sampler, finest)
    gaps = [end(sampler, grid(model.sde, n, t_min)) - exact for n in steps]
    return [math.sqrt(float(gap.flatten(1).square().sum(1).mean())) for gap in gaps]
