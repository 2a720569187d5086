"""Explore a checkpoint's latent codes and write the results to a folder, for `scoresde latent`.

The files are those of `latent_files`, and summary.json: the request and its result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, map_condition, take_rows
from ..data import Dataset, DataSpec
from ..likelihood import (
    ExactTrace,
    Hutchinson,
    Interpolation,
    Ode,
    ScoredInterpolation,
    ScoredSamples,
    decode,
    interpolate,
    interpolate_with_log_prob,
    round_trip,
    sample_with_log_prob,
)
from ..likelihood.trace.names import EXACT_UP_TO
from ..noise import SampleNoise
from ..output.manifest import Origin, Source
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..score.units import in_model_scale
from .conditions import conditions_like, requested_condition
from .held_out import choose_rows, load_held_out, to_points
from .latent_files import LATENTS_FILE, PICTURES, Explored, write_latents
from .request import HeldOutRequest, StoredModel, data_source, versions

__all__ = ["LatentRequest", "explore_latents"]


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
        path_density: Compute log p of every point of the paths.
        label: Name or number of a class, as which the codes of the data are decoded too; None for
            none.
    """

    n: int = 8
    steps: int = 8
    samples: int = 16
    probes: int = 2
    rtol: float = 1e-4
    atol: float = 1e-4
    t_min: float | None = None
    path_density: bool = False
    label: str | int | None = None

    def origin(
        self, command: str, sources: Mapping[str, Source], shown: Sequence[str] = (), **changed: Any
    ) -> Origin:
        """The origin of the results; what was not asked for is left out, as before it existed."""
        origin = super().origin(command, sources, shown, **changed)
        asked = {
            key: value
            for key, value in origin.settings.items()
            if (key, value) not in (("path_density", False), ("label", None))
        }
        return replace(origin, settings=asked)

    def method(self, dims: int) -> Ode:
        """The solver of all parts, and the trace of the samples, for data of D dimensions."""
        trace = ExactTrace() if dims <= EXACT_UP_TO else Hutchinson(probes=self.probes)
        return Ode(rtol=self.rtol, atol=self.atol, t_min=self.t_min, trace=trace)


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
    data, to = _checked_data(request, stored, out), _target(request, stored)
    origin = request.origin("latent", {"checkpoint": stored.source, "data": data_source(data)})
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    with results.write((LATENTS_FILE, *PICTURES, SUMMARY)) as output:
        began = time.monotonic()
        rows = choose_rows(data, request.n, request.seed)
        explored = _compute(request, stored, data, rows, to, on_progress)
        summary = {
            "checkpoint": request.checkpoint,
            "data": data.name,
            "split": data.split,
            "of": len(data),
            "dims": stored.spec.dims,
            "span": stored.spec.span,
            "unit": stored.spec.unit,
            "label": request.label,
            **{name: getattr(request, name) for name in ("n", "rtol", "atol", "seed")},
            **_results(explored, stored.spec),
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
            "files": write_latents(output.work, stored.spec, data, rows, explored),
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
    stored.check_score("latent codes")
    stored.check_first_time(request.t_min)
    stored.check_flow(request.rtol, request.atol, request.dtype)
    check_space("--samples", request.samples, dims, out)
    if request.samples and dims > EXACT_UP_TO:
        at_once = min(request.batch, request.samples)
        check_space("--probes", request.probes, at_once * dims, out)
    data = load_held_out(stored, request)
    check_space("--n", request.n, max(1, request.steps // 2) * dims, out)  # the paths
    return data


def _target(request: LatentRequest, stored: StoredModel) -> Condition | None:
    """The condition under which the codes are decoded once more."""
    if request.label is None:
        return None
    return requested_condition(stored, request.n, request.label)


def _compute(
    request: LatentRequest,
    stored: StoredModel,
    data: Dataset,
    rows: np.ndarray,
    to: Condition | None,
    on_progress: OnProgress,
) -> Explored:
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
        given = (model, *ends, request.steps, method)
        if request.path_density:
            with_density = {"seed": request.seed, "y": starts, "batch": batch}
            paths = interpolate_with_log_prob(*given, **with_density)
        else:
            paths = interpolate(*given, y=starts, batch=batch)
        explored = Explored(trip, trip.latent / model.sde.start_std(model.t_most), paths)
        if request.path_density:
            explored = replace(explored, path_values=_values(paths, spec))
        if to is not None:
            to = map_condition(lambda leaf: leaf.to(request.device), to)
            again = decode(model, trip.latent, method, y=to, batch=batch)
            explored = replace(explored, translated=again.x, label=str(request.label))
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


def _values(scored: ScoredSamples | ScoredInterpolation, spec: DataSpec) -> Tensor:
    """−log p per dimension in `spec.unit`, of the shape of log p."""
    if spec.levels is None:
        return -scored.log_prob.cpu() / spec.dims
    return scored.bits_per_dim(spec).cpu()


def _along(paths: Interpolation, spec: DataSpec) -> dict[str, Any]:
    """−log p per dimension at the ends of the paths and in their middle, if it was computed."""
    if not isinstance(paths, ScoredInterpolation):
        return {}
    values, middle = _values(paths, spec), paths.log_prob.shape[1] // 2
    error = float(paths.std_error.square().mean().sqrt()) / spec.nats_per_unit
    return {
        "at_ends": float(values[:, [0, -1]].mean()),
        "in_middle": float(values[:, middle].mean()),
        "std_error_of_one": None if math.isnan(error) else error,
        "nfe_derivative": paths.nfe_derivative,
    }


def _results(explored: Explored, spec: DataSpec) -> dict[str, Any]:
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
            **_along(paths, spec),
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
