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
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._condition import Condition
from ..data import DataSpec
from ..fingerprint import fingerprint
from ..names.samplers import sampler_label
from ..output.figures import save_grid
from ..output.files import save_arrays
from ..output.manifest import Origin, Source
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..samplers import Samples, sample
from ..samplers.choice import DEFAULT_NFE
from ..samplers.recommended import Choice
from ..score import NetworkScore
from .compiling import compile_network
from .conditions import condition_arrays, requested_condition
from .request import StoredModel, versions
from .sample_request import SampleRequest, check_dtype, choose_settings, from_file

__all__ = ["draw_samples"]

SAMPLES_FILE, GRID_FILE = "samples.npz", "grid.png"
GRID_AT_MOST = 256  # images in the picture; the arrays hold all samples


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
    check_dtype(request)
    chosen = choose_settings(request, stored)
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
            rows = min(request.batch, request.n)
            compile_network(model, rows, stored.spec.shape, request.torch_dtype, y)
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
    fixed = adaptive or request.steps is not None or from_file(request)
    return {
        "sampler": request.sampler or sampler_label(chosen.sampler),
        "grid": None if adaptive else request.grid or chosen.grid,
        "nfe": DEFAULT_NFE if request.nfe is None and not fixed else request.nfe,
    }


def _left_open(request: SampleRequest) -> list[str]:
    """Which of sampler and grid the request leaves to the recommendation."""
    return [key for key in ("sampler", "grid") if getattr(request, key) is None]


def _origin(
    request: SampleRequest, stored: StoredModel, ts: Tensor, named: dict[str, Any]
) -> Origin:
    """Everything that determines the samples; for a grid file its times count, not its name."""
    sources, settings = {"checkpoint": stored.source}, named | {"t_min": float(ts[-1])}
    if not from_file(request):
        return request.origin("sample", sources, **settings)
    sources["grid"] = Source(request.grid, fingerprint(ts))
    return request.origin("sample", sources, shown=("grid",), **settings)


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
