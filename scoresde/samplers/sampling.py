"""`sample`: draw from a score model with any sampler on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_integer, check_shape, check_type, finite_or_raise
from ..batches import batches
from ..evaluation import count_nfe, evaluating, own_context
from ..grid import check_grid, check_on_ladder
from ..ivp import Counts
from ..noise import Noise
from ..score import ScoreModel
from .base import OnStep, Sampler

__all__ = ["Samples", "sample"]


@dataclass(frozen=True)
class Samples:
    """Result of `sample`.

    Attributes:
        x: Samples, shape (n, *D).
        x_init: The states from which the samples started, shape (n, *D).
        nfe: Network evaluations per sample, counted; the largest if batches differ.
        ts: The time grid, shape (N + 1,).
        seed: The seed; None if noise was given.
        counts: Status, accepted and rejected steps, and evaluations (without the final denoising)
            of each sample, shape (n,) each, from an adaptive sampler; otherwise None.
    """

    x: Tensor
    x_init: Tensor
    nfe: int
    ts: Tensor
    seed: int | None
    counts: Counts | None = None


@own_context()
def sample(
    model: ScoreModel,
    sampler: Sampler,
    ts: Tensor | Sequence[float],
    shape: Sequence[int],
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Tensor | None = None,
    x_init: Tensor | None = None,
    batch: int | None = None,
    denoise: bool = False,
    max_nfe: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: OnStep | None = None,
) -> Samples:
    """Draw samples: start from the prior (or `x_init`) at ts[0] and go down to ts[-1].

    Sample i depends on (seed, i) alone. It does not depend on the other samples, the batch size,
    `shape[0]`, or contexts around the call such as `torch.autocast`. Several threads may sample
    from one model.

    Args:
        model: Score model.
        sampler: The sampler.
        ts: Time grid, N + 1 decreasing times in a tensor, array or list; see `scoresde.grid`.
        shape: Shape of the result, (n, *D).
        seed: Integer in [0, 2^64); one stream per sample is made from it.
        noise: A source of randomness instead of `seed`; then `batch` must be None.
        y: Integer class labels, shape (n,), which a conditional model needs.
        x_init: States at ts[0], shape (n, *D), instead of draws from N(0, s² I), where s is
            `sde.start_std(ts[0])`: the prior's standard deviation at t = 1.
        batch: Number of samples to run at a time; None = all at once.
        denoise: Finish with E[x_0 | x] at ts[-1], which is one more evaluation. It removes the
            noise of standard deviation σ(ts[-1]) that samples of p_t at t = ts[-1] contain.
        max_nfe: Largest number of evaluations per sample; one more raises RuntimeError.
        device: Where to run.
        dtype: Floating dtype of the state.
        on_step: Called after each step with (steps done, time reached, state of the batch).

    Returns:
        The samples with their counted NFE.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: On an argument out of range; if `x_init` is None and the grid starts where x
            depends on the data; for a model with discrete labels, if the grid ends below the time
            of the first label; for rounded labels, if the sampler uses times outside the grid or
            the grid has times outside the ladder.
        RuntimeError: If the network's output does not have the shape of x, if this output or a
            sample is not finite, or if `max_nfe` is exceeded.
    """
    check_type("model", model, ScoreModel)
    check_type("sampler", sampler, Sampler)
    ts, shape = check_grid(ts), check_shape(shape)
    _check_state(x_init, shape, dtype)
    _check_times(model, sampler, ts)
    max_nfe = None if max_nfe is None else check_integer("max_nfe", max_nfe, minimum=0)
    std = model.sde.start_std(float(ts[0])) if x_init is None else None
    parts = batches(model, shape[0], device, seed=seed, noise=noise, y=y, batch=batch)
    starts, ends = (torch.empty(shape, device=device, dtype=dtype) for _ in range(2))
    counts, nfe = [], 0
    for part in parts if shape[0] > 0 else []:
        if x_init is None:
            starts[part.rows] = part.noise.prior((part.n, *shape[1:])) * std
        else:
            starts[part.rows] = x_init[part.rows]
        with evaluating(part.model), count_nfe(part.model, limit=max_nfe) as counted:
            end = sampler.run(part.model, starts[part.rows], ts, part.noise, on_step)
            x = end.state
            if denoise:
                x = part.model.x0(x, model.sde.nodes(ts[-1:])[0])
        ends[part.rows] = finite_or_raise(x, f"samples at t={float(ts[-1]):.6g}")
        counts += [] if end.counts is None else [end.counts]
        nfe = max(nfe, counted.forward)
    return Samples(
        x=ends,
        x_init=starts,
        nfe=nfe,
        ts=ts,
        seed=None if seed is None else int(seed),
        counts=Counts.cat(counts) if counts else None,
    )


def _check_state(x_init: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise unless `dtype` is allowed for the state and `x_init` is None or has the shape."""
    check_type("dtype", dtype, torch.dtype)
    if not dtype.is_floating_point or dtype.itemsize < 4:
        raise ValueError(f"dtype must be float32 or float64 (autocast the network), got {dtype}")
    if x_init is not None and not isinstance(x_init, Tensor):
        raise TypeError(f"x_init must be a tensor, got {type(x_init).__name__}")
    if x_init is not None and x_init.shape != shape:
        raise ValueError(f"x_init must have shape {shape}, got {tuple(x_init.shape)}")


def _check_times(model: ScoreModel, sampler: Sampler, ts: Tensor) -> None:
    """Raise unless the model is defined at every time at which the sampler evaluates it."""
    reason = sampler.refusal(model.snapped)
    if reason is not None:
        raise ValueError(f"{type(sampler).__name__} cannot run: {reason}")
    model.sde.nodes(ts)  # refuses a time at which σ = 0
    if model.snapped:
        check_on_ladder(model.sde, ts)
    model.check_last(float(ts[-1]))
