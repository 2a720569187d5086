"""What a checkpoint's latent codes say, in a folder: what `scoresde latent` calls.

- latents.npz: data, codes, decoded data, paths, samples with their log-density
- round_trip.png, interpolation.png and samples.png, for images and points in the plane
- summary.json: what was asked, and what came of it
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, DataSpec
from ..likelihood import (
    ExactTrace,
    Hutchinson,
    Interpolation,
    Ode,
    RoundTrip,
    ScoredSamples,
    dequantize,
    interpolate,
    round_trip,
    sample_with_log_prob,
)
from ..likelihood.rules import EXACT_UP_TO
from ..noise import SampleNoise
from ..score import ScoreModel
from ..study import likelihood_figures as figures
from ..study.files import save_arrays
from ..study.result_folder import SUMMARY, ResultFolder
from ..study.running import OnProgress, advise_on_memory, check_space
from .held_out import choose_rows, load_held_out
from .request import HeldOutRequest, StoredModel, data_source, versions

__all__ = ["LatentRequest", "explore_latents"]

SHOWN = 64  # samples in the picture; the arrays hold all
PICTURES = ("round_trip.png", "interpolation.png", "samples.png")
FILES = ("latents.npz", *PICTURES, SUMMARY)


@dataclass(frozen=True)
class LatentRequest(HeldOutRequest):
    """Which data to encode and how, and how many samples to draw.

    At least 2 data are chosen at random by the seed. Paths lead from the first to the second, from
    the third to the fourth and so on.

    Args:
        steps: Points of a path, at least 2.
        samples: Number of samples with their log-density.
        probes: Probes of Hutchinson's trace for the samples above 16 dimensions.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        t_min: Time at which the data are put in; None as in `encode`.
    """

    n: int = 8
    steps: int = 8
    samples: int = 16
    probes: int = 2
    rtol: float = 1e-4
    atol: float = 1e-4
    t_min: float | None = None

    @property
    def method(self) -> Ode:
        """The solver of every part, without the trace of the samples."""
        return Ode(rtol=self.rtol, atol=self.atol, t_min=self.t_min)


@dataclass(frozen=True)
class _Found:
    """All that was computed; `samples` is None if none were asked for."""

    there: RoundTrip
    codes: Tensor  # in units of the prior's deviation
    paths: Interpolation
    samples: ScoredSamples | None


def explore_latents(
    request: LatentRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Encode data and decode them, walk between them, draw samples; write all to a folder.

    Earlier results stay until these are complete. Quantized data are dequantized uniformly, as in
    training: the centres of the cells have codes that the prior hardly ever draws.

    Args:
        request: What to do.
        out: The folder; results of the same request in it are not computed again.
        overwrite: Replace results of another request.
        on_progress: Told of every part.

    Returns:
        The summary: errors of round trip and paths, counted evaluations, seconds, files.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; says how to get them.
        RuntimeError: If a solve fails or memory runs out.
    """
    stored = StoredModel.read(request.checkpoint)
    spec, dims = stored.spec, stored.dims
    stored.check_first_time(request.t_min)
    stored.check_flow(request.rtol, request.atol, request.dtype)
    check_space("--samples", request.samples, dims, out)
    if request.samples and dims > EXACT_UP_TO:
        at_once = min(request.batch, request.samples)
        check_space("--probes", request.probes, at_once * dims, out)
    data = load_held_out(stored, request)
    check_space("--n", request.n, max(1, request.steps // 2) * dims, out)  # the paths
    origin = request.origin("latent", {"checkpoint": stored.source, "data": data_source(data)})
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    with results.write(FILES) as output:
        began = time.monotonic()
        rows = choose_rows(data, request.n, request.seed)
        found = _compute(request, stored, data, rows, on_progress)
        summary = _summary(request, spec, data, found, time.monotonic() - began)
        _write(output.work, spec, data, rows, found)
        output.finish(summary)
    return summary


def _compute(
    request: LatentRequest,
    stored: StoredModel,
    data: Dataset,
    rows: np.ndarray,
    on_progress: OnProgress | None,
) -> _Found:
    """Round trips, then paths, then samples."""

    def tell(done: int, next_: str) -> None:
        if on_progress is not None:
            on_progress(done, 3, next_)

    model, spec = stored.build(request.device, request.dtype), stored.spec
    x = _points(request, spec, data, rows)
    y = None if data.labels is None else data.labels[rows].to(request.device)
    pairs = len(x) // 2 * 2  # without the last of an odd number
    with advise_on_memory(request.batch, spec.shape, "--batch"):
        tell(0, "round trip")
        method, batch = request.method, request.batch
        there = round_trip(model, x, method, y=y, batch=batch)
        tell(1, "paths")
        starts = None if y is None else y[:pairs:2]
        ends = x[:pairs:2], x[1:pairs:2]
        paths = interpolate(model, *ends, request.steps, method, y=starts, batch=batch)
        tell(2, "samples")
        samples = _draw(request, model, spec, y is not None) if request.samples else None
        tell(3, "")
    return _Found(there, there.latent / model.sde.prior_std, paths, samples)


def _points(request: LatentRequest, spec: DataSpec, data: Dataset, rows: np.ndarray) -> Tensor:
    """The chosen data at the model's scale."""
    x = data.x[rows].to(request.device)
    if spec.levels is None:
        return x.to(request.torch_dtype)
    return dequantize(x, spec, SampleNoise(request.seed, range(len(x))), request.torch_dtype)


def _draw(
    request: LatentRequest, model: ScoreModel, spec: DataSpec, conditional: bool
) -> ScoredSamples:
    """The samples, of all classes in turn if the model is conditional."""
    exact = math.prod(spec.shape) <= EXACT_UP_TO
    y = torch.arange(request.samples) % spec.classes if conditional else None
    trace = ExactTrace() if exact else Hutchinson(probes=request.probes)
    return sample_with_log_prob(
        model,
        (request.samples, *spec.shape),
        replace(request.method, trace=trace),
        seed=request.seed,
        y=y,
        batch=request.batch,
        device=request.device,
        dtype=request.torch_dtype,
    )


def _values(samples: ScoredSamples, spec: DataSpec) -> Tensor:
    """−log p per dimension in `_unit`, shape (N,)."""
    dims = math.prod(spec.shape)
    if spec.levels is None:
        return -samples.log_prob.cpu() / dims
    return samples.bits_per_dim(spec).cpu()


def _unit(spec: DataSpec) -> str:
    return "nats/dim" if spec.levels is None else "bits/dim"


def _summary(
    request: LatentRequest, spec: DataSpec, data: Dataset, found: _Found, seconds: float
) -> dict[str, Any]:
    there, paths = found.there, found.paths
    return {
        "checkpoint": request.checkpoint,
        "data": data.name,
        "split": data.split,
        "of": len(data),
        "dims": math.prod(spec.shape),
        "span": spec.span,
        "unit": _unit(spec),
        "t_min": there.t_min,
        **{name: getattr(request, name) for name in ("n", "rtol", "atol", "seed")},
        "round_trip": {
            "error": float(there.error.max()),
            "rms": float(there.rms.square().mean().sqrt()),
            "latent_rms": float(found.codes.square().mean().sqrt()),
            "nfe": there.nfe,
        },
        "paths": {
            "n": len(paths.x),
            "steps": len(paths.fractions),
            "error": float(paths.error.max()),
            "nfe": paths.nfe,
        },
        "samples": found.samples and _summary_of_samples(found.samples, spec),
        "files": ["latents.npz", *(_pictures(found) if figures.can_show(spec) else [])],
        "seconds": round(seconds, 3),
        "versions": versions(),
    }


def _summary_of_samples(samples: ScoredSamples, spec: DataSpec) -> dict[str, Any]:
    values, n = _values(samples, spec), len(samples.x)
    return {
        "n": n,
        "mean": float(values.mean()),
        "std_error": float(values.std()) / math.sqrt(n) if n > 1 else None,
        "nfe": samples.nfe,
        "nfe_derivative": samples.nfe_derivative,
    }


def _pictures(found: _Found) -> list[str]:
    return list(PICTURES if found.samples is not None else PICTURES[:-1])


def _write(out: Path, spec: DataSpec, data: Dataset, rows: np.ndarray, found: _Found) -> None:
    """The arrays, and pictures of what has one."""
    there, paths, samples = found.there, found.paths, found.samples
    tensors = {
        **{name: getattr(there, name) for name in ("x", "latent", "decoded", "error")},
        **{f"path_{name}": getattr(paths, name) for name in ("x", "latent", "error")},
    }
    if data.labels is not None:
        tensors["labels"] = data.labels[rows]
    if samples is not None:
        names = {"x": "x", "x_init": "latent", "log_prob": "log_prob", "std_error": "std_error"}
        tensors |= {f"sample_{name}": getattr(samples, field) for name, field in names.items()}
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    save_arrays(out / "latents.npz", rows=rows, **arrays)
    if not figures.can_show(spec):
        return
    figures.round_trip(out / "round_trip.png", there.x, found.codes, there.decoded, spec)
    figures.interpolation(out / "interpolation.png", paths.x, spec)
    if samples is not None:
        shown, values = samples.x[:SHOWN].cpu(), _values(samples, spec)[:SHOWN]
        figures.sorted_by_value(out / "samples.png", shown, values, spec)
