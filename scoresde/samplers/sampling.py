"""`sample`: draw from a score model with any sampler on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec
from .._deferred import check_finite, checked_at_end
from .._sets import points_of
from .._tensor import check_integer, check_type
from ..batches import batches
from ..evaluation import count_nfe, evaluating, own_context
from ..grid import check_grid, check_on_ladder
from ..ivp import Counts
from ..noise import Noise
from ..score import ScoreModel
from ..score.sets import check_padding, only_present
from ..score.units import to_units
from .arguments import (
    DEFAULT_SEED,
    check_x_init,
    place_of_state,
    shape_of_result,
    sizes_of_sets,
)
from .base import OnStep, Sampler
from .choice import check_start, choose
from .differentiated import check_differentiable, prepared

__all__ = ["Samples", "sample"]


@dataclass(frozen=True)
class Samples:
    """Result of `sample`.

    Attributes:
        x: Samples in the units of the data, shape (n, *D); those of a model of latents are decoded.
        scaled: The same samples at the model's scale; x itself unless the data have a transform
            (`DataSpec.transform`). Of a model of latents these are the latents.
        x_init: The states, at the model's scale, from which the samples started, shape (n, *D).
        nfe: Network evaluations per sample, counted; the largest if batches differ.
        ts: The time grid, shape (N + 1,).
        seed: The seed; None if noise was given.
        sampler: The sampler.
        grid: Name of the recommended grid with its parameters; None if `ts` was given, and for a
            sampler that chooses its own steps.
        denoise: Whether the samples were brought to σ = 0.
        counts: Status, accepted and rejected steps, and evaluations (without the final denoising)
            of each sample, shape (n,) each, from an adaptive sampler; otherwise None.
        start_std: s of N(0, s² I), from which the samples started at ts[0]; None if `x_init` was
            given.
        y: The condition of the samples; None without one.
        condition: What y is, if the model says it.
        effective: Least effective number of particles of each sample, shape (n,), float64; None
            unless the sampler makes a sample of several particles.
    """

    x: Tensor
    scaled: Tensor
    x_init: Tensor
    nfe: int
    ts: Tensor
    seed: int | None
    sampler: Sampler
    grid: str | None
    denoise: bool
    counts: Counts | None = None
    start_std: float | None = None
    y: Condition | None = None
    condition: ConditionSpec | None = None
    effective: Tensor | None = None

    @property
    def sets(self) -> list[Tensor] | None:
        """The points of each set, shapes (n_i, F); None if the samples are no padded sets."""
        sizes = None if self.condition is None else self.condition.size(self.y)
        return None if sizes is None else points_of(self.x, sizes)


@own_context()
def sample(
    model: ScoreModel,
    sampler: Sampler | None = None,
    ts: Tensor | Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
    *,
    n: int | None = None,
    nfe: int | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition = None,
    x_init: Tensor | None = None,
    batch: int | None = None,
    denoise: bool = True,
    max_nfe: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    on_step: OnStep | None = None,
    grad: bool = False,
) -> Samples:
    """Draw samples: start from the prior (or `x_init`) at ts[0] and go down to ts[-1].

    `sample(model)` draws 16 samples with 20 evaluations each, in the way that is recommended for
    this number of evaluations. The result says which sampler and times were used.

    Sample i depends on (seed, i) alone. It does not depend on the other samples, the batch size,
    `n`, or contexts around the call such as `torch.autocast`. Several threads may sample from one
    model.

    Args:
        model: Score model.
        sampler: The sampler; None for the recommended one.
        ts: Time grid, N + 1 decreasing times in a tensor, array or list; see `scoresde.grid`. None
            for the recommended one with as many steps as `nfe` allows.
        shape: Shape of the result, (n, *D); None if `x_init` or the model tells it.
        n: Number of samples; None for that of `shape`, of `x_init`, of `y`, or 16.
        nfe: Evaluations per sample that decide the number of steps, the final denoising included;
            None for 20. Not together with `ts`, or for a sampler that chooses its own steps.
        seed: Integer in [0, 2^64); one stream per sample is made from it. None for 0.
        noise: A source of randomness instead of `seed`; then `batch` must be None.
        y: The condition, which a conditional model needs: class labels or other tensors with one
            entry per sample, or one entry for all. Sets of points for which none is given have
            sizes with the shares of the training data, if the model's data say them.
        x_init: States at ts[0], at the model's scale, shape (n, *D), instead of draws from
            N(0, s² I), where s is `sde.start_std(ts[0])`: the prior's standard deviation at t = 1.
            The recommended times begin at 1; if α(1) = 0, only for a sampler and a model that are
            regular there, and otherwise at λ = −6, `sde.t_regular`.
        batch: Number of samples to run at a time; None = all at once.
        denoise: Finish at σ = 0 by E[x_0 | x] at ts[-1], which is one more evaluation, or by the
            sampler's own last step (`AngularAdams` with `to_data`). It removes the noise of
            standard deviation σ(ts[-1]) that samples of p_t at t = ts[-1] contain.
        max_nfe: Largest number of evaluations per sample; one more raises RuntimeError.
        device: Where to run; None for the device of the model's tensors, or the CPU. Another device
            than the model's is refused.
        dtype: Dtype of the state, float32 or float64; None for float64 if the parameters of the
            model are float64, or if it has none and `x_init` is float64, and float32 otherwise.
        on_step: Called after each step with (steps done, time reached, state of the batch).
        grad: Whether the samples `x` are differentiable: with respect to `x_init`, the condition
            `y` and the weights of the model, those of them that require gradients. The numbers are
            the same as without. The noise is a constant, and so are the steps that an adaptive
            sampler chooses. The backward pass computes each evaluation again
            (`model.nfe.repeated`), so that the memory grows by one state for each evaluation, not
            by the activations of the network. It is faster if weights whose gradient is not wanted
            do not require one. Only first derivatives exist.

    Returns:
        The samples with their counted NFE.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: On an argument out of range, or arguments that contradict one another; if the
            shape is not known; if `x_init` is None and the grid starts where x depends on the data;
            if the grid starts where α = 0, and the sampler or the model divides by it;
            for a model with discrete labels, if the grid ends below the time of the first label;
            for rounded labels, if the sampler uses times outside the grid or the grid has times
            outside the ladder; for `grad`, if nothing requires gradients.
        RuntimeError: If the network's output does not have the shape of x, if this output or a
            sample is not finite, or if `max_nfe` is exceeded; for `grad`, if the model or the
            sampler is not differentiable.
    """
    check_type("model", model, ScoreModel)
    check_type("grad", grad, bool)
    if sampler is not None:
        check_type("sampler", sampler, Sampler)
        if sampler.reaches_data and not denoise:
            raise ValueError(f"denoise must be True for a sampler that ends at σ = 0, {sampler!r}")
        _check_allowed(model, sampler)
    check_x_init(x_init)
    shape = shape_of_result(model, shape, n, x_init, y)
    device, dtype = place_of_state(model, x_init, device, dtype)
    y = sizes_of_sets(model, shape[0], seed) if y is None and model.y is None else y
    chosen = choose(model, sampler, None if ts is None else check_grid(ts), nfe, denoise, shape[1:])
    sampler, ts, denoise = chosen.sampler, chosen.ts, chosen.denoise
    _check_times(model, sampler, ts)
    if seed is None and noise is None:
        seed = DEFAULT_SEED
    max_nfe = None if max_nfe is None else check_integer("max_nfe", max_nfe, minimum=0)
    std = model.sde.start_std(float(ts[0])) if x_init is None else None
    with torch.set_grad_enabled(grad):
        parts = batches(model, shape[0], device, seed=seed, noise=noise, y=y, batch=batch)
    starts, ends = (torch.empty(shape, device=device, dtype=dtype) for _ in range(2))
    counts, effective, nfe = [], [], 0
    for part in parts if shape[0] > 0 else []:
        if x_init is None:
            starts[part.rows] = part.noise.prior((part.n, *shape[1:]), device) * std
        else:
            starts[part.rows] = x_init[part.rows]
            check_padding(part.model, starts[part.rows], "x_init")
        with torch.set_grad_enabled(grad):
            run = prepared(part, starts[part.rows], x_init, ts, on_step, grad)
            counting = count_nfe(part.model, limit=max_nfe)
            with evaluating(part.model), counting as counted, checked_at_end():
                end = sampler.run(run.model, run.start, ts, part.noise, run.on_step)
                x = end.state
                if denoise and not sampler.reaches_data:
                    x = run.model.x0(x, model.sde.nodes(ts[-1:])[0])
                check_finite(x, lambda: f"samples at t={float(ts[-1]):.6g}")
            if grad:
                check_differentiable(sampler, x)
            ends[part.rows] = only_present(part.model, x)
        counts += [] if end.counts is None else [end.counts]
        effective += [] if end.effective is None else [end.effective]
        nfe = max(nfe, counted.forward)
    with torch.set_grad_enabled(grad):
        x = to_units(model, ends, y, batch)
    return Samples(
        x=x,
        scaled=ends,
        x_init=starts,
        nfe=nfe,
        ts=ts,
        seed=None if seed is None else int(seed),
        sampler=sampler,
        grid=chosen.grid,
        denoise=denoise,
        counts=Counts.cat(counts) if counts else None,
        start_std=std,
        y=model.labelled(y, shape[0], device).y,
        condition=model.condition,
        effective=torch.cat(effective) if effective else None,
    )


def _check_allowed(model: ScoreModel, sampler: Sampler) -> None:
    """Raise if the sampler evaluates the model where it is not defined."""
    reason = sampler.refusal(model.snapped, model.learned_variance)
    if reason is not None:
        raise ValueError(f"{type(sampler).__name__} cannot run: {reason}")


def _check_times(model: ScoreModel, sampler: Sampler, ts: Tensor) -> None:
    """Raise unless model and sampler are defined at every time of the grid."""
    model.sde.nodes(ts)  # refuses a time at which σ = 0
    check_start(model, sampler, float(ts[0]))
    if model.snapped:
        check_on_ladder(model.sde, ts)
    model.check_last(float(ts[-1]))
