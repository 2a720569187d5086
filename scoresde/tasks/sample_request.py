"""The request of `scoresde sample`, and the sampler and times that it leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..fingerprint import file_fingerprint
from ..grid import snapped, uniform
from ..ivp import FLOAT32_TOLERANCE
from ..names.grids import GridFile, NamedGrid, parse_grid
from ..names.samplers import parse_sampler
from ..output.manifest import Origin, Source
from ..samplers import Sampler
from ..samplers.choice import (
    DEFAULT_NFE,
    DEFAULT_T_MIN,
    check_start,
    choose,
    most_steps,
    recommended_grid,
    start_time,
)
from ..samplers.recommended import Choice, recommended_for_calls
from ..samplers.steps import Grid, on_ladder
from .given import GivenModel
from .request import Request

__all__ = ["SampleRequest", "check_dtype", "choose_settings", "from_file"]


@dataclass(frozen=True)
class SampleRequest(Request):
    """The number of samples, the sampler and the grid.

    Without sampler, grid, steps and t_min, the samples are those of `sample` in Python.

    Args:
        sampler: As `parse_sampler` reads it; None for the recommended one.
        grid: As `parse_grid` reads it; None for the recommended one. A grid from a file has its own
            number of steps.
        steps: Intervals of the grid; None for as many as `nfe` allows.
        nfe: Number of evaluations that decides the steps, the final denoising included; None for
            20.
        t_min: Last time. None: that of the grid, or 1e-3 for a grid without one (or the time of the
            first discrete label, if later).
        denoise: Finish with E[x_0 | x].
        label: Name or number of the class of all samples; None for all classes in turn.
        condition: A file with the vector or array of the samples, one row or n rows, or with
            all kinds of condition; see `requested_condition`.
        compiled: Compile the network.
        guidance: As `parse_guidance` reads it; None for no guidance.
    """

    batch: int = 256
    sampler: str | None = None
    grid: str | None = None
    steps: int | None = None
    nfe: int | None = None
    t_min: float | None = None
    denoise: bool = True
    label: str | int | None = None
    condition: str | None = None
    compiled: bool = False
    guidance: str | None = None

    places = (*Request.places, "guidance")  # its numbers and checkpoints are compared

    def origin(
        self, command: str, sources: Mapping[str, Source], shown: Sequence[str] = (), **changed: Any
    ) -> Origin:
        """The origin of the samples; of the file of conditions the content counts."""
        if self.condition is not None:
            file = Source(self.condition, file_fingerprint(self.condition))
            sources, shown = {**sources, "condition": file}, (*shown, "condition")
        return super().origin(command, sources, shown, **changed)


def from_file(request: SampleRequest) -> bool:
    """Whether the grid is a file."""
    return request.grid is not None and isinstance(parse_grid(request.grid), GridFile)


def _sampler(request: SampleRequest, stored: GivenModel) -> Sampler:
    """The sampler, or an error if it cannot run on this checkpoint in this dtype."""
    sampler = parse_sampler(request.sampler)
    reason = sampler.refusal(stored.snapped, stored.learned_variance)
    if reason is not None:
        raise ValueError(f"--sampler: {request.sampler} cannot run: {reason}")
    if sampler.adaptive:
        name = request.sampler.split(":")[0]
        own = f"is of no use, {name} chooses its own steps; set rtol and atol"
        _refuse(request, ("steps", "nfe"), f" {own}, as in --sampler {name}:rtol=1e-4")
        if request.dtype != "float64" and sampler.rtol < FLOAT32_TOLERANCE:
            raise ValueError(
                f"--sampler: {request.sampler}, but rtol must be at least {FLOAT32_TOLERANCE:g} in "
                f"float32, got {sampler.rtol:g}; use --dtype float64 for more"
            )
    return sampler


def check_dtype(request: SampleRequest) -> None:
    """Raise if the GPU cannot compute in the dtype of the request."""
    on_gpu = torch.device(request.device).type == "cuda"
    if request.dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ValueError(f"--dtype: bfloat16 is not for {request.device}, use float32")


def choose_settings(request: SampleRequest, stored: GivenModel) -> Choice:
    """Sampler and times: what the request says, and what is recommended where it says nothing."""
    sampler = None if request.sampler is None else _sampler(request, stored)
    if stored.distilled is not None:
        return _for_student(request, stored, sampler)
    grid = None if request.grid is None else parse_grid(request.grid)
    if isinstance(grid, GridFile):
        ts = _times_of_file(request, stored, grid)
        chosen = choose(stored, sampler, ts, None, request.denoise)
        try:
            check_start(stored, chosen.sampler, float(ts[0]))
        except ValueError as error:
            raise ValueError(f"--grid: {request.grid}: {error}") from error
        return replace(chosen, grid=request.grid)
    if request.nfe is not None and request.steps is not None:
        raise ValueError(f"--nfe: {request.nfe}, and --steps {request.steps}: give one of them")
    t_min = _last_time(request, stored, grid)
    if sampler is not None and sampler.adaptive:
        t_min = stored.last_time(t_min, DEFAULT_T_MIN)
        ts = uniform(stored.sde, 1, t_min, start_time(stored, sampler))
        return Choice(sampler, ts, request.denoise, None)
    try:
        if grid is None and t_min is None and request.steps is None:
            return choose(stored, sampler, None, request.nfe, request.denoise)
        return _completed(request, stored, sampler, grid, t_min)
    except ValueError as error:
        if not str(error).startswith("nfe "):
            raise
        reason = str(error).removeprefix("nfe ").rpartition(", got ")[0]
        raise ValueError(f"--nfe: {request.nfe or DEFAULT_NFE}, but it {reason}") from error


def _for_student(request: SampleRequest, stored: GivenModel, sampler: Sampler | None) -> Choice:
    """Sampler and times of a student, of which only the number of steps is left to the request."""
    own = f" is of no use, {stored.name} is {stored.distilled.in_words} and has its own times"
    _refuse(request, ("grid", "t_min"), own)
    try:
        return choose(stored, sampler, None, request.steps or request.nfe, request.denoise)
    except ValueError as error:
        reason = str(error).removeprefix("sampler ")
        raise ValueError(f"--sampler: {request.sampler}, but it {reason}") from error


def _completed(
    request: SampleRequest,
    stored: GivenModel,
    sampler: Sampler | None,
    grid: NamedGrid | None,
    t_min: float | None,
) -> Choice:
    """The recommendation, with the grid, steps or last time that the request gives."""
    nfe = request.nfe or DEFAULT_NFE
    calls = max(nfe // stored.evaluations, 1)
    budget = request.steps + 1 if request.steps else calls + (not request.denoise)
    t_max = start_time(stored, sampler)
    best = recommended_for_calls(stored, budget, t_max=t_max)
    sampler = sampler or best.sampler
    times: Grid = recommended_grid(stored, sampler=sampler)
    if grid is not None or t_min is not None:
        grid = replace(grid or parse_grid(best.grid), t_min=t_min, t_max=t_max)
        times = on_ladder(grid) if stored.snapped else grid
    steps = request.steps or most_steps(stored, sampler, times, nfe, request.denoise, t_min)
    name = recommended_for_calls(stored, steps + 1).grid if grid is None else str(grid)
    return Choice(sampler, times(stored.sde, steps, t_min), request.denoise, name)


def _last_time(request: SampleRequest, stored: GivenModel, grid: NamedGrid | None) -> float | None:
    """The last time that the request gives; None if it leaves the choice to the recommendation."""
    own = None if grid is None else grid.t_min
    if own is not None and request.t_min not in (None, own):
        raise ValueError(
            f"--t-min: {request.t_min:g}, but --grid {request.grid} has its own; leave one out"
        )
    asked = request.t_min if own is None else own
    stored.check_first_time(asked, "--t-min" if own is None else "--grid")
    return asked if grid is None else stored.last_time(asked, DEFAULT_T_MIN)


def _times_of_file(request: SampleRequest, stored: GivenModel, grid: GridFile) -> Tensor:
    """The times of a grid file, on the ladder if the checkpoint's labels are rounded."""
    ts = grid.times(stored.sde)
    own = f", but {grid.path} has its own"
    _refuse(request, ("steps", "nfe"), f"{own} {grid.steps} steps; leave it out")
    _refuse(request, ("t_min",), f"{own} end t = {float(ts[-1]):g}; leave it out")
    return snapped(stored.sde, ts) if stored.snapped else ts


def _refuse(request: SampleRequest, names: tuple[str, ...], reason: str) -> None:
    """Raise ValueError if one of these options was given."""
    for name in names:
        value = getattr(request, name)
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')}: {value}{reason}")
