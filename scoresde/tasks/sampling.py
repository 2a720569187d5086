"""Draw samples from a checkpoint and write them to a folder, for `scoresde sample`.

- samples.npz: x, levels of quantized data, labels of conditional models, ts, nfe, seed, spec (the
  checkpoint's `DataSpec` as JSON); `load_dataset` reads this file as data
- grid.png, for images
- summary.json: the request and its result
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition
from ..data import DataSpec
from ..fingerprint import file_fingerprint, fingerprint
from ..grid import snapped, uniform
from ..ivp import FLOAT32_TOLERANCE
from ..names.grids import GridFile, NamedGrid, parse_grid
from ..names.samplers import parse_sampler, sampler_label
from ..output.figures import save_grid
from ..output.files import save_arrays
from ..output.manifest import Origin, Source
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..samplers import Sampler, Samples, sample
from ..samplers.choice import (
    DEFAULT_NFE,
    DEFAULT_T_MIN,
    Choice,
    choose,
    most_steps,
    recommended_grid,
)
from ..samplers.recommended import recommended
from ..samplers.steps import Grid, on_ladder
from ..score import NetworkScore
from .conditions import condition_arrays, requested_condition
from .request import Request, StoredModel, versions

__all__ = ["SampleRequest", "draw_samples"]

SAMPLES_FILE, GRID_FILE = "samples.npz", "grid.png"
GRID_AT_MOST = 256  # images in the picture; the arrays hold all samples


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

    def origin(
        self, command: str, sources: Mapping[str, Source], shown: Sequence[str] = (), **changed: Any
    ) -> Origin:
        """The origin of the samples; of the file of conditions the content counts."""
        if self.condition is not None:
            file = Source(self.condition, file_fingerprint(self.condition))
            sources, shown = {**sources, "condition": file}, (*shown, "condition")
        return super().origin(command, sources, shown, **changed)


def draw_samples(
    request: SampleRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Draw samples and write them to a folder; earlier results stay until the new are complete.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after every step.

    Returns:
        The summary: counted NFE, seconds, files and the request.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        RuntimeError: If sampling fails or memory runs out.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    _check_dtype(request)
    chosen = _chosen(request, stored)
    sampler, ts = chosen.sampler, chosen.ts
    named = _named(request, chosen)
    check_space("--n", request.n, stored.spec.dims, out)
    y = _labels(request, stored)
    results = ResultFolder.open(out, _origin(request, stored, ts, named), overwrite)
    if results.finished:
        return results.read()
    with results.write((SAMPLES_FILE, GRID_FILE, SUMMARY)) as output:
        model = stored.build(request.device, request.dtype)
        if request.compiled:
            model.net.compile()
        began = time.monotonic()
        samples = _run(request, model, chosen, (request.n, *stored.spec.shape), y, on_progress)
        seconds = time.monotonic() - began
        summary = {
            "checkpoint": request.checkpoint,
            "sampler": named["sampler"],
            "grid": named["grid"],
            "recommended": [] if sampler.adaptive else _left_open(request),
            "steps": None if sampler.adaptive else len(ts) - 1,
            "snapped": stored.snapped,
            "t_min": float(ts[-1]),
            "denoise": chosen.denoise,
            **{key: getattr(request, key) for key in ("n", "seed")},
            "nfe": samples.nfe,
            "nfe_per_sample": _spread(samples),
            "seconds": round(seconds, 3),
            "versions": versions(),
            "files": _write(output.work, samples, stored.spec, y),
        }
        output.finish(summary)
    return summary


def _named(request: SampleRequest, chosen: Choice) -> dict[str, Any]:
    """Sampler, grid and budget in words, as the request gives them or as they were chosen."""
    adaptive = chosen.sampler.adaptive
    fixed = adaptive or request.steps is not None or _from_file(request)
    return {
        "sampler": request.sampler or sampler_label(chosen.sampler),
        "grid": None if adaptive else request.grid or chosen.grid,
        "nfe": DEFAULT_NFE if request.nfe is None and not fixed else request.nfe,
    }


def _left_open(request: SampleRequest) -> list[str]:
    """Which of sampler and grid the request leaves to the recommendation."""
    return [key for key in ("sampler", "grid") if getattr(request, key) is None]


def _from_file(request: SampleRequest) -> bool:
    """Whether the grid is a file."""
    return request.grid is not None and isinstance(parse_grid(request.grid), GridFile)


def _origin(
    request: SampleRequest, stored: StoredModel, ts: Tensor, named: dict[str, Any]
) -> Origin:
    """Everything that determines the samples; for a grid file its times count, not its name."""
    sources, settings = {"checkpoint": stored.source}, named | {"t_min": float(ts[-1])}
    if not _from_file(request):
        return request.origin("sample", sources, **settings)
    sources["grid"] = Source(request.grid, fingerprint(ts))
    return request.origin("sample", sources, shown=("grid",), **settings)


def _sampler(request: SampleRequest, stored: StoredModel) -> Sampler:
    """The sampler, or an error if it cannot run on this checkpoint in this dtype."""
    sampler = parse_sampler(request.sampler)
    reason = sampler.refusal(stored.snapped)
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


def _check_dtype(request: SampleRequest) -> None:
    """Raise if the GPU cannot compute in the dtype of the request."""
    on_gpu = torch.device(request.device).type == "cuda"
    if request.dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ValueError(f"--dtype: bfloat16 is not for {request.device}, use float32")


def _chosen(request: SampleRequest, stored: StoredModel) -> Choice:
    """Sampler and times: what the request says, and what is recommended where it says nothing."""
    sampler = None if request.sampler is None else _sampler(request, stored)
    grid = None if request.grid is None else parse_grid(request.grid)
    if isinstance(grid, GridFile):
        ts = _times_of_file(request, stored, grid)
        return replace(choose(stored, sampler, ts, None, request.denoise), grid=request.grid)
    if request.nfe is not None and request.steps is not None:
        raise ValueError(f"--nfe: {request.nfe}, and --steps {request.steps}: give one of them")
    t_min = _last_time(request, stored, grid)
    if sampler is not None and sampler.adaptive:
        t_min = stored.last_time(t_min, DEFAULT_T_MIN)
        return Choice(sampler, uniform(stored.sde, 1, t_min), request.denoise, None)
    try:
        if grid is None and t_min is None and request.steps is None:
            return choose(stored, sampler, None, request.nfe, request.denoise)
        return _completed(request, stored, sampler, grid, t_min)
    except ValueError as error:
        if not str(error).startswith("nfe "):
            raise
        reason = str(error).removeprefix("nfe ").rpartition(", got ")[0]
        raise ValueError(f"--nfe: {request.nfe or DEFAULT_NFE}, but it {reason}") from error


def _completed(
    request: SampleRequest,
    stored: StoredModel,
    sampler: Sampler | None,
    grid: NamedGrid | None,
    t_min: float | None,
) -> Choice:
    """The recommendation, with the grid, steps or last time that the request gives."""
    nfe = request.nfe or DEFAULT_NFE
    budget = request.steps + 1 if request.steps else nfe + (not request.denoise)
    best = recommended(stored, budget)
    sampler = sampler or best.sampler
    times: Grid = recommended_grid(stored)
    if grid is not None or t_min is not None:
        grid = replace(grid or parse_grid(best.grid), t_min=t_min)
        times = on_ladder(grid) if stored.snapped else grid
    steps = request.steps or most_steps(stored.sde, sampler, times, nfe, request.denoise, t_min)
    name = recommended(stored, steps + 1).grid if grid is None else str(grid)
    return Choice(sampler, times(stored.sde, steps, t_min), request.denoise, name)


def _last_time(request: SampleRequest, stored: StoredModel, grid: NamedGrid | None) -> float | None:
    """The last time that the request gives; None if it leaves the choice to the recommendation."""
    own = None if grid is None else grid.t_min
    if own is not None and request.t_min not in (None, own):
        raise ValueError(
            f"--t-min: {request.t_min:g}, but --grid {request.grid} has its own; leave one out"
        )
    asked = request.t_min if own is None else own
    stored.check_first_time(asked, "--t-min" if own is None else "--grid")
    return asked if grid is None else stored.last_time(asked, DEFAULT_T_MIN)


def _times_of_file(request: SampleRequest, stored: StoredModel, grid: GridFile) -> Tensor:
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


def _labels(request: SampleRequest, stored: StoredModel) -> Condition | None:
    """The condition of each sample; None for an unconditional model."""
    return requested_condition(stored, request.n, request.label, request.condition)


def _run(
    request: SampleRequest,
    model: NetworkScore,
    chosen: Choice,
    shape: tuple[int, ...],
    y: Condition | None,
    on_progress: OnProgress,
) -> Samples:
    """Draw all samples, batch by batch."""
    batch = min(request.batch, request.n)
    done = itertools.count(1)  # number of steps, over all batches
    total = None if chosen.sampler.adaptive else (len(chosen.ts) - 1) * math.ceil(request.n / batch)
    with advise_on_memory(batch, shape[1:], "--batch"):
        return sample(
            model,
            chosen.sampler,
            chosen.ts,
            shape,
            seed=request.seed,
            y=y,
            batch=batch,
            denoise=chosen.denoise,
            device=request.device,
            dtype=request.torch_dtype,
            on_step=lambda step, t, x: on_progress(next(done), total, f"t = {t:.3g}"),
        )


def _spread(result: Samples) -> list[int] | None:
    """Least and largest NFE per sample if they differ, otherwise None."""
    if result.counts is None or len(result.counts.evaluations) == 0:
        return None
    least, most = map(int, result.counts.evaluations.aminmax())
    return None if least == most else [least, most]


def _write(out: Path, result: Samples, spec: DataSpec, y: Condition | None) -> list[str]:
    """Write the arrays, and a picture of images.

    Returns:
        The names of the files.
    """
    x = result.x.cpu()
    arrays = {
        "x": x.numpy(),
        "ts": result.ts.numpy(),
        "nfe": np.array(result.nfe),
        "seed": np.array(result.seed, dtype=np.uint64),
        "spec": np.array(json.dumps(spec.to_dict())),  # so that the file can be used as data
    }
    if spec.levels is not None:
        arrays["levels"] = spec.to_levels(x).numpy()
    arrays |= condition_arrays(y)
    if result.counts is not None:
        arrays |= {f"sample_{key}": v.numpy() for key, v in vars(result.counts).items()}
    save_arrays(out / SAMPLES_FILE, **arrays)
    if not spec.is_image:
        return [SAMPLES_FILE]
    save_grid(out / GRID_FILE, x[:GRID_AT_MOST], spec)
    return [SAMPLES_FILE, GRID_FILE]
