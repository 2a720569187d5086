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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import DataSpec
from ..fingerprint import fingerprint
from ..grid import snapped
from ..ivp import FLOAT32_TOLERANCE
from ..names.grids import GridFile, parse_grid
from ..names.samplers import parse_sampler
from ..output.figures import save_grid
from ..output.files import save_arrays
from ..output.manifest import Origin, Source
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..samplers import Sampler, Samples, sample
from ..samplers.steps import largest_steps, on_ladder
from ..score import NetworkScore
from .class_labels import labels_in_turn
from .request import Request, StoredModel, versions

__all__ = ["SampleRequest", "draw_samples"]

DEFAULT_STEPS = 20
DEFAULT_T_MIN = 1e-3
SAMPLES_FILE, GRID_FILE = "samples.npz", "grid.png"
GRID_AT_MOST = 256  # images in the picture; the arrays hold all samples


@dataclass(frozen=True)
class SampleRequest(Request):
    """The number of samples, the sampler and the grid.

    Args:
        sampler: As `parse_sampler` reads it.
        grid: As `parse_grid` reads it. A grid from a file has its own number of steps.
        steps: Intervals of the grid; None for 20, or for as many as `nfe` allows.
        nfe: Number of evaluations that decides the steps, the final denoising included.
        t_min: Last time. None: that of a grid from a file, otherwise 1e-3 (or the time of the first
            discrete label, if later).
        denoise: Finish with E[x_0 | x].
        label: Class of all samples; None for all classes in turn. Only for conditional models.
        compiled: Compile the network.
    """

    batch: int = 256
    sampler: str = "dpmpp-2m"
    grid: str = "log_snr"
    steps: int | None = None
    nfe: int | None = None
    t_min: float | None = None
    denoise: bool = True
    label: int | None = None
    compiled: bool = False


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
    stored = StoredModel.read(request.checkpoint)
    sampler = _sampler(request, stored)
    ts = _times(request, stored, sampler)
    check_space("--n", request.n, stored.spec.dims, out)
    y = _labels(request, stored)
    results = ResultFolder.open(out, _origin(request, stored, ts), overwrite)
    if results.finished:
        return results.read()
    with results.write((SAMPLES_FILE, GRID_FILE, SUMMARY)) as output:
        model = stored.build(request.device, request.dtype)
        if request.compiled:
            model.net.compile()
        began = time.monotonic()
        samples = _run(request, model, sampler, ts, (request.n, *stored.spec.shape), y, on_progress)
        seconds = time.monotonic() - began
        summary = {
            "checkpoint": request.checkpoint,
            "sampler": request.sampler,
            "grid": None if sampler.adaptive else request.grid,
            "steps": None if sampler.adaptive else len(ts) - 1,
            "snapped": stored.snapped,
            "t_min": float(ts[-1]),
            **{key: getattr(request, key) for key in ("denoise", "n", "seed")},
            "nfe": samples.nfe,
            "nfe_per_sample": _spread(samples),
            "seconds": round(seconds, 3),
            "versions": versions(),
            "files": _write(output.work, samples, stored.spec, y),
        }
        output.finish(summary)
    return summary


def _origin(request: SampleRequest, stored: StoredModel, ts: Tensor) -> Origin:
    """Everything that determines the samples; for a grid file its times count, not its name."""
    sources, t_min = {"checkpoint": stored.source}, float(ts[-1])
    if not isinstance(parse_grid(request.grid), GridFile):
        return request.origin("sample", sources, t_min=t_min)
    sources["grid"] = Source(request.grid, fingerprint(ts))
    return request.origin("sample", sources, shown=("grid",), t_min=t_min)


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
    on_gpu = torch.device(request.device).type == "cuda"
    if request.dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ValueError(f"--dtype: bfloat16 is not for {request.device}, use float32")
    return sampler


def _times(request: SampleRequest, stored: StoredModel, sampler: Sampler) -> Tensor:
    """The time grid, on the ladder if the checkpoint's labels are rounded."""
    grid, sde, snap = parse_grid(request.grid), stored.config.sde, stored.snapped
    if isinstance(grid, GridFile):
        ts = grid.times(sde)
        own = f", but {grid.path} has its own"
        _refuse(request, ("steps", "nfe"), f"{own} {grid.steps} steps; leave it out")
        _refuse(request, ("t_min",), f"{own} end t = {float(ts[-1]):g}; leave it out")
        return snapped(sde, ts) if snap else ts
    grid = on_ladder(grid) if snap else grid
    t_min = stored.last_time(request.t_min, DEFAULT_T_MIN)
    if request.nfe is None:
        return grid(sde, request.steps or DEFAULT_STEPS, t_min)
    if request.steps is not None:
        raise ValueError(f"--nfe: {request.nfe}, and --steps {request.steps}: give one of them")
    # `largest_steps` always counts one evaluation for the final denoising, even without it.
    budget = request.nfe + (not request.denoise)
    steps = largest_steps(sde, sampler, grid, budget, t_min)
    if steps == 0:
        raise ValueError(f"--nfe: {request.nfe} is less than one step of {request.sampler} takes")
    return grid(sde, steps, t_min)


def _refuse(request: SampleRequest, names: tuple[str, ...], reason: str) -> None:
    """Raise ValueError if one of these options was given."""
    for name in names:
        value = getattr(request, name)
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')}: {value}{reason}")


def _labels(request: SampleRequest, stored: StoredModel) -> Tensor | None:
    """The label of each sample; None for an unconditional model."""
    classes = stored.classes
    if request.label is not None and (classes is None or request.label >= classes):
        allowed = "it has no classes" if classes is None else f"0 to {classes - 1}"
        raise ValueError(f"--label: {request.label} is no class of this checkpoint: {allowed}")
    if classes is None:
        return None
    if request.label is not None:
        return torch.full((request.n,), request.label)
    return labels_in_turn(classes, request.n)


def _run(
    request: SampleRequest,
    model: NetworkScore,
    sampler: Sampler,
    ts: Tensor,
    shape: tuple[int, ...],
    y: Tensor | None,
    on_progress: OnProgress,
) -> Samples:
    """Draw all samples, batch by batch."""
    batch = min(request.batch, request.n)
    done = itertools.count(1)  # number of steps, over all batches
    total = None if sampler.adaptive else (len(ts) - 1) * math.ceil(request.n / batch)
    with advise_on_memory(batch, shape[1:], "--batch"):
        return sample(
            model,
            sampler,
            ts,
            shape,
            seed=request.seed,
            y=y,
            batch=batch,
            denoise=request.denoise,
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


def _write(out: Path, result: Samples, spec: DataSpec, y: Tensor | None) -> list[str]:
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
    if y is not None:
        arrays["labels"] = y.numpy()
    if result.counts is not None:
        arrays |= {f"sample_{key}": v.numpy() for key, v in vars(result.counts).items()}
    save_arrays(out / SAMPLES_FILE, **arrays)
    if not spec.is_image:
        return [SAMPLES_FILE]
    save_grid(out / GRID_FILE, x[:GRID_AT_MOST], spec)
    return [SAMPLES_FILE, GRID_FILE]
