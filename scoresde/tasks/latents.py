"""Explore a checkpoint's latent codes and write the results to a folder, for `scoresde latent`.

- latents.npz: data, codes, decoded data, paths, samples with their log-density, in units
- round_trip.png, interpolation.png and samples.png, for images and points in the plane
- summary.json: the request and its result
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

from .._condition import map_condition, take_rows
from ..data import Dataset, DataSpec
from ..likelihood import (
    ExactTrace,
    Hutchinson,
    Interpolation,
    Ode,
    RoundTrip,
    ScoredSamples,
    interpolate,
    round_trip,
    sample_with_log_prob,
)
from ..likelihood.trace.names import EXACT_UP_TO
from ..noise import SampleNoise
from ..output import pictures as figures
from ..output.files import save_arrays
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..output.tiles import can_show
from ..score.units import in_model_scale
from .conditions import condition_arrays, conditions_like
from .held_out import choose_rows, load_held_out, to_points
from .request import HeldOutRequest, StoredModel, data_source, versions

__all__ = ["LatentRequest", "explore_latents"]

SAMPLES_SHOWN = 64  # samples in the picture; the arrays hold all samples
LATENTS_FILE = "latents.npz"
PICTURES = ("round_trip.png", "interpolation.png", "samples.png")


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
        t_min: Start time of the data; None as in `encode`.
    """

    n: int = 8
    steps: int = 8
    samples: int = 16
    probes: int = 2
    rtol: float = 1e-4
    atol: float = 1e-4
    t_min: float | None = None

    def method(self, dims: int) -> Ode:
        """The solver of all parts, and the trace of the samples, for data of D dimensions."""
        trace = ExactTrace() if dims <= EXACT_UP_TO else Hutchinson(probes=self.probes)
        return Ode(rtol=self.rtol, atol=self.atol, t_min=self.t_min, trace=trace)


@dataclass(frozen=True)
class _Explored:
    """Round trips, paths and samples of one request.

    Attributes:
        trip: Data, codes and decoded data.
        codes: The codes in units of the prior's standard deviation.
        paths: Paths between data.
        samples: Samples with their log-density; None if no samples were requested.
        values: −log p of the samples per dimension in `DataSpec.unit`, at the model's scale, shape
            (n,), or None.
    """

    trip: RoundTrip
    codes: Tensor
    paths: Interpolation
    samples: ScoredSamples | None = None
    values: Tensor | None = None


def explore_latents(
    request: LatentRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Encode and decode data, interpolate between them, draw samples; write all to a folder.

    Earlier results stay until the new results are complete. Quantized data are dequantized
    uniformly, as in training: the centres of the cells have codes that the prior hardly ever draws.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called before every part and at the end.

    Returns:
        The summary: errors of round trip and paths, counted evaluations, seconds, files.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
        RuntimeError: If a solve fails or memory runs out.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    data = _checked_data(request, stored, out)
    origin = request.origin("latent", {"checkpoint": stored.source, "data": data_source(data)})
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    with results.write((LATENTS_FILE, *PICTURES, SUMMARY)) as output:
        began = time.monotonic()
        rows = choose_rows(data, request.n, request.seed)
        explored = _compute(request, stored, data, rows, on_progress)
        summary = {
            "checkpoint": request.checkpoint,
            "data": data.name,
            "split": data.split,
            "of": len(data),
            "dims": stored.spec.dims,
            "span": stored.spec.span,
            "unit": stored.spec.unit,
            **{name: getattr(request, name) for name in ("n", "rtol", "atol", "seed")},
            **_results(explored),
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
            "files": _write(output.work, stored.spec, data, rows, explored),
        }
        output.finish(summary)
    return summary


def _checked_data(request: LatentRequest, stored: StoredModel, out: Path) -> Dataset:
    """The held-out data, after all checks that need no network."""
    dims = stored.spec.dims
    stored.refuse_latents("scoresde latent")
    if stored.spec.kind == "set":
        raise ValueError(
            f"--checkpoint: {stored.name} is of sets, and there is no path between sets of "
            "different size; scoresde.encode and scoresde.decode give their latent codes"
        )
    stored.check_first_time(request.t_min)
    stored.check_flow(request.rtol, request.atol, request.dtype)
    check_space("--samples", request.samples, dims, out)
    if request.samples and dims > EXACT_UP_TO:
        at_once = min(request.batch, request.samples)
        check_space("--probes", request.probes, at_once * dims, out)
    data = load_held_out(stored, request)
    check_space("--n", request.n, max(1, request.steps // 2) * dims, out)  # the paths
    return data


def _compute(
    request: LatentRequest,
    stored: StoredModel,
    data: Dataset,
    rows: np.ndarray,
    on_progress: OnProgress,
) -> _Explored:
    """Compute round trips, then paths, then samples, all at the model's scale."""
    model, spec = in_model_scale(stored.build(request.device, request.dtype)), stored.spec
    method, batch = request.method(spec.dims), request.batch
    noise = SampleNoise(request.seed, range(len(rows)))
    chosen = data.taken(torch.from_numpy(rows)).scaled.x
    x = to_points(chosen.to(request.device), spec, noise, request.torch_dtype)
    y = None
    if data.labels is not None:
        y = take_rows(data.labels, torch.from_numpy(rows))
        y = map_condition(lambda leaf: leaf.to(request.device), y)
    firsts = slice(0, len(x) // 2 * 2, 2)  # without the last datum if their number is odd
    with advise_on_memory(batch, spec.shape, "--batch"):
        on_progress(0, 3, "round trip")
        trip = round_trip(model, x, method, y=y, batch=batch)
        on_progress(1, 3, "paths")
        ends = x[firsts], x[1::2]
        starts = None if y is None else take_rows(y, firsts)
        paths = interpolate(model, *ends, request.steps, method, y=starts, batch=batch)
        explored = _Explored(trip, trip.latent / model.sde.start_std(model.t_most), paths)
        on_progress(2, 3, "samples")
        if request.samples:
            n = request.samples
            samples = sample_with_log_prob(
                model,
                (n, *spec.shape),
                method,
                seed=request.seed,
                y=None if y is None else conditions_like(data.labels, data.spec, n),
                batch=batch,
                device=request.device,
                dtype=request.torch_dtype,
            )
            explored = replace(explored, samples=samples, values=_values(samples, spec))
        on_progress(3, 3, "")
    return explored


def _values(samples: ScoredSamples, spec: DataSpec) -> Tensor:
    """−log p per dimension in `spec.unit`, shape (n,)."""
    if spec.levels is None:
        return -samples.log_prob.cpu() / spec.dims
    return samples.bits_per_dim(spec).cpu()


def _results(explored: _Explored) -> dict[str, Any]:
    """Errors, sizes and costs."""
    trip, paths, samples, values = explored.trip, explored.paths, explored.samples, explored.values
    results: dict[str, Any] = {
        "t_min": trip.t_min,
        "round_trip": {
            "error": float(trip.error.max()),
            "rms": float(trip.rms.square().mean().sqrt()),
            "latent_rms": float(explored.codes.square().mean().sqrt()),
            "nfe": trip.nfe,
        },
        "paths": {
            "n": len(paths.x),
            "steps": len(paths.fractions),
            "error": float(paths.error.max()),
            "nfe": paths.nfe,
        },
        "samples": None,
    }
    if samples is not None:
        n = len(values)
        results["samples"] = {
            "n": n,
            "mean": float(values.mean()),
            "std_error": float(values.std()) / math.sqrt(n) if n > 1 else None,
            "nfe": samples.nfe,
            "nfe_derivative": samples.nfe_derivative,
        }
    return results


def _in_units(tensors: dict[str, Tensor], spec: DataSpec) -> dict[str, Tensor]:
    """The arrays with data and log p in the user's units; codes and errors stay as they are."""
    found = dict(tensors)
    for name in ("x", "decoded", "path_x", "sample_x"):
        if name in tensors:
            z = tensors[name].reshape(-1, *spec.shape)
            found[name] = spec.to_units(z).reshape(tensors[name].shape)
    if "sample_x" in tensors:
        x = spec.to_units(tensors["sample_x"].double())
        found["sample_log_prob"] = tensors["sample_log_prob"] + spec.log_det(x)
    return found


def _write(
    out: Path, spec: DataSpec, data: Dataset, rows: np.ndarray, explored: _Explored
) -> list[str]:
    """Write the arrays, and pictures if the data can be drawn.

    Returns:
        The names of the files.
    """
    trip, paths, samples = explored.trip, explored.paths, explored.samples
    tensors = {name: getattr(trip, name) for name in ("x", "latent", "decoded", "error")}
    tensors |= {f"path_{name}": getattr(paths, name) for name in ("x", "latent", "error")}
    if samples is not None:
        tensors |= {
            "sample_x": samples.x,
            "sample_x_init": samples.latent,
            "sample_log_prob": samples.log_prob,
            "sample_std_error": samples.std_error,
        }
    if spec.transform is not None:
        tensors = _in_units(tensors, spec)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    if data.labels is not None:
        y = take_rows(data.labels, torch.from_numpy(rows))
        arrays |= condition_arrays(y, data.spec.condition)
    save_arrays(out / LATENTS_FILE, rows=rows, **arrays)
    if not can_show(spec):
        return [LATENTS_FILE]
    pictures = [out / name for name in PICTURES]
    figures.round_trip(pictures[0], trip.x, explored.codes, trip.decoded, spec)
    figures.interpolation(pictures[1], paths.x, spec)
    if samples is None:
        return [LATENTS_FILE, *PICTURES[:-1]]
    figures.sorted_by_value(
        pictures[2], samples.x[:SAMPLES_SHOWN].cpu(), explored.values[:SAMPLES_SHOWN], spec
    )
    return [LATENTS_FILE, *PICTURES]
