"""Which sampler and which times `sample` uses, if the caller leaves one of them open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from .._tensor import check_integer
from ..grid import LadderError, uniform
from ..score import ScoreModel
from ..score.base import refuse_where_alpha_is_0
from ..sde import SDE
from .base import Sampler
from .recommended import Choice, of_student, recommended_for_calls
from .steps import Grid, count_evaluations, largest_steps
from .students import check_student

__all__ = [
    "DEFAULT_NFE",
    "DEFAULT_T_MIN",
    "check_start",
    "choose",
    "most_steps",
    "recommended_grid",
    "start_time",
]

DEFAULT_NFE = 20
MOST_NFE = 100_000  # as on the command line: a grid takes about 500 bytes per step
DEFAULT_T_MIN = 1e-3  # of a sampler that chooses its own steps


def choose(
    model: ScoreModel,
    sampler: Sampler | None = None,
    ts: Tensor | None = None,
    nfe: int | None = None,
    denoise: bool = True,
    shape: Sequence[int] | None = None,
) -> Choice:
    """Complete a sampler, times or neither by what `recommended` says.

    Without times, the number of steps is the largest that costs at most `nfe` evaluations, and the
    grid is the one that is recommended for this number of steps. If the labels of the model are
    rounded, its discrete times may allow fewer steps.

    Args:
        model: The score model, or any object that says the same about itself; it is not evaluated.
        sampler: The sampler; None for the recommended one.
        ts: The time grid, shape (N + 1,); None for the recommended one.
        nfe: Evaluations per sample, at most 100,000, the final denoising included; None for 20. A
            guided model takes `model.evaluations` of them each time.
        denoise: Whether to finish with E[x_0 | x].
        shape: Shape of one sample without its batch axis; None for that of the model's data.

    Raises:
        TypeError: If `nfe` is not an integer.
        ValueError: If `nfe` is given with `ts` or for a sampler that chooses its own steps, or is
            too small for the sampler; the message names the least that is possible.
    """
    if model.distilled is not None:
        return _choose_for_student(model, sampler, ts, nfe)
    if ts is not None:
        if nfe is not None:
            raise ValueError(f"nfe must be None if ts is given, which has its own steps, got {nfe}")
        if sampler is None:
            sampler = replace(recommended_for_calls(model, len(ts), shape).sampler, to_data=denoise)
        return Choice(sampler, ts, denoise, None)
    if sampler is not None and sampler.adaptive:
        if nfe is not None:
            raise ValueError(
                f"nfe must be None for {type(sampler).__name__}, which chooses its own steps by "
                f"rtol and atol, got {nfe}"
            )
        t_min = max(DEFAULT_T_MIN, model.t_least)
        ts = uniform(model.sde, 1, t_min, start_time(model, sampler))
        return Choice(sampler, ts, denoise, None)
    nfe = DEFAULT_NFE if nfe is None else check_integer("nfe", nfe, minimum=1, maximum=MOST_NFE)
    if sampler is None:
        calls = _calls(model, nfe)
        # `recommended` counts the final denoising, so that one more step is free without it
        found = _fitting(model, calls, not denoise, shape)
        sampler = found.sampler if denoise else replace(found.sampler, to_data=False)
        return Choice(sampler, found.ts, denoise and found.denoise, found.grid)
    grid = recommended_grid(model, shape, sampler)
    steps = most_steps(model, sampler, grid, nfe, denoise)
    found = recommended_for_calls(model, steps + 1, shape, start_time(model, sampler))
    return Choice(sampler, found.ts, denoise, found.grid)


def _choose_for_student(
    model: ScoreModel, sampler: Sampler | None, ts: Tensor | None, nfe: int | None
) -> Choice:
    """As `choose`, for a student: what is given must be its own."""
    if nfe is not None:
        nfe = check_integer("nfe", nfe, minimum=1, maximum=MOST_NFE)
        if ts is not None:
            raise ValueError(f"nfe must be None if ts is given, which has its own steps, got {nfe}")
    found = of_student(model, nfe)
    sampler = sampler or found.sampler
    check_student(model.distilled, model.sde, sampler, ts)
    found = replace(found, sampler=sampler, denoise=sampler.reaches_data)
    return found if ts is None else replace(found, ts=ts, grid=None)


def _calls(model: ScoreModel, nfe: int) -> int:
    """How often the model may be evaluated.

    Raises:
        ValueError: If it cannot be evaluated once.
    """
    each = model.evaluations
    if nfe < each:
        raise ValueError(f"nfe must be at least {each}, for one call of this model, got {nfe}")
    return nfe // each


def _fitting(model: ScoreModel, nfe: int, free: bool, shape: Sequence[int] | None) -> Choice:
    """The recommendation for at most `nfe` calls, as many as the ladder of the model allows.

    Args:
        model: The score model.
        nfe: Largest number of evaluations of the model per sample.
        free: Whether one more step is possible.
        shape: Shape of one sample, or None.
    """
    for fewer in range(nfe, 1, -1):
        with suppress(LadderError):
            return recommended_for_calls(model, fewer + free, shape)
    return recommended_for_calls(model, 1 + free, shape)


def start_time(model: ScoreModel, sampler: Sampler | None) -> float:
    """The largest time at which the sampler may start: 1 unless α(1) = 0.

    If α(1) = 0, it is 1 for a sampler and a model that are regular there, and otherwise
    `sde.t_regular`.

    Args:
        model: The score model; only what it says about itself is used.
        sampler: The sampler; None for the recommended one.
    """
    regular = sampler is None or sampler.starts_in_noise
    return model.t_most if regular else model.sde.t_regular


def check_start(model: ScoreModel, sampler: Sampler, t: float) -> None:
    """Raise unless sampler and model may start at t.

    Args:
        model: The score model; only what it says about itself is used.
        sampler: The sampler.
        t: First time of a grid.

    Raises:
        ValueError: If α(t) = 0, and the sampler needs f, g or λ there, or x0 does not follow from
            the network's output.
    """
    sampler.check_start(model.sde, t)
    if t > model.t_most:
        refuse_where_alpha_is_0(model.sde, t, model.t_most)


def recommended_grid(
    model: ScoreModel, shape: Sequence[int] | None = None, sampler: Sampler | None = None
) -> Grid:
    """The grid that is recommended for each number of steps, as a function of (sde, steps)."""
    t_max = start_time(model, sampler)

    def times(sde: SDE, steps: int, t_min: float | None = None) -> Tensor:
        return recommended_for_calls(model, steps + 1, shape, t_max).ts

    return times


def most_steps(
    model: ScoreModel,
    sampler: Sampler,
    grid: Callable[..., Tensor],
    nfe: int,
    denoise: bool,
    t_min: float | None = None,
) -> int:
    """The largest number of steps that cost at most `nfe` evaluations.

    Args:
        model: The score model; only what it says about itself is used.
        sampler: A sampler that takes the steps of a grid.
        grid: Called with (sde, steps, t_min).
        nfe: Evaluations per sample, those of `denoise` included.
        denoise: Whether a final denoising is one of them.
        t_min: Last time; None for that of the grid.

    Raises:
        ValueError: If one step costs more.
    """
    unused = not denoise  # `largest_steps` counts the final denoising always
    sde, each = model.sde, model.evaluations
    steps = largest_steps(sde, sampler, grid, nfe // each + unused, t_min)
    if steps == 0:
        least = each * (count_evaluations(sde, sampler, grid(sde, 1, t_min)) - unused)
        what = "one step and the final denoising" if denoise else "one step"
        raise ValueError(f"nfe must be at least {least}, for {what} of this sampler, got {nfe}")
    return steps
