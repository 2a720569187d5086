"""Likelihoods of data under a checkpoint, in a folder: what `scoresde likelihood` calls.

- per_image.csv and per_image.npz: one row per image
- settings.json, what was asked; summary.json, the mean, its uncertainty and the protocol
"""

from __future__ import annotations

import csv
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from .._files import atomic_write
from ..checkpoint import RawCheckpoint, read_checkpoint
from ..config import Config, build, checkpoint_path, config_of
from ..data import Dataset, DataSpec
from ..likelihood import discrete_log_likelihood, log_likelihood
from ..likelihood.flow import FLOAT32_TOLERANCE
from ..likelihood.ode import EXACT_LIMIT, EXACT_UP_TO
from ..noise import SampleNoise
from ..score import ScoreModel
from ..study.outputs import (
    SUMMARY,
    check_output,
    open_output,
    read_summary,
    save_arrays,
    write_json,
)
from ..study.running import OnProgress, advise_on_memory

__all__ = ["ScoreRequest", "score_data"]


@dataclass(frozen=True)
class ScoreRequest:
    """Which data to score, and how.

    Args:
        checkpoint: File, or name of a shipped checkpoint.
        data: Name of a data set or a path; None for the test split of the training data.
        split: "train" or "test"; None for "test", and for all of a file given by `data`.
        data_root: Folder to look for a named data set in first.
        levels: Number of levels of a file's data.
        n: Number of data, chosen at random by the seed.
        trace: "auto", "exact" or "hutchinson"; see `log_likelihood`.
        probes: Probes of Hutchinson's estimate.
        draws: Dequantizations of each datum.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        t_min: First time.
        batch: Data solved at a time.
        seed: Integer in [0, 2^64), for the choice, dequantization and probes.
        device: Where to run.
        dtype: "float32" or "float64", of data and network.
        force: Allow an exact trace above 4096 dimensions.
    """

    checkpoint: str
    data: str | None = None
    split: str | None = None
    data_root: str | None = None
    levels: int | None = None
    n: int = 128
    trace: Literal["auto", "exact", "hutchinson"] = "auto"
    probes: int = 1
    draws: int = 1
    rtol: float = 1e-6
    atol: float = 1e-6
    t_min: float = 1e-5
    batch: int = 64
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    force: bool = False


class _Scores(NamedTuple):
    """Of some data: value and its standard error (per dimension), log p in nats, evaluations."""

    value: Tensor
    std_error: Tensor
    log_prob: Tensor
    nfe: Tensor


def score_data(
    request: ScoreRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Score data and write the results to a folder, which is made when all has gone well.

    Quantized data are dequantized uniformly and scored in bits/dim, continuous ones in nats/dim.

    Args:
        request: What to score.
        out: The folder; results of the same request in it are not computed again.
        overwrite: Replace results of another request.
        on_progress: Told of every batch.

    Returns:
        The summary: mean, standard error, protocol, counted evaluations, seconds.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; says how to get them.
        RuntimeError: If a solve fails or memory runs out.
    """
    raw = read_checkpoint(checkpoint_path(request.checkpoint))
    config, spec = config_of(raw)
    if config.preconditioning.snapped:
        raise ValueError(
            f"--checkpoint: {request.checkpoint} has rounded labels, which are wrong between its "
            "discrete times; a likelihood asks at all times, with label = 'index'"
        )
    _check_cost(request, spec)
    data = _load(request, config, spec)
    settings = {"command": "likelihood", **asdict(request), "checkpoint": raw.sha256}
    check_output(out, settings, overwrite)
    done = None if overwrite else read_summary(out)
    if done is not None:
        return done
    rows = np.random.default_rng(request.seed).permutation(len(data))[: request.n]
    began = time.monotonic()
    scores = _score(request, _model(request, raw), spec, data, rows, on_progress)
    summary = _summary(request, spec, data, scores, rows) | {
        "seconds": round(time.monotonic() - began, 3),
        "versions": {"scoresde": __version__, "torch": torch.__version__},
    }
    open_output(out, settings, overwrite)
    _write(out, data, scores, rows)
    write_json(out / SUMMARY, summary)
    return summary


def _check_cost(request: ScoreRequest, spec: DataSpec) -> None:
    """Refuse what float32 cannot give, and what would take days."""
    for name in ("rtol", "atol"):
        value = getattr(request, name)
        if request.dtype != "float64" and value < FLOAT32_TOLERANCE:
            raise ValueError(
                f"--{name}: {value:g} is too small for float32, which needs at least "
                f"{FLOAT32_TOLERANCE:g}; use --dtype float64"
            )
    dims = math.prod(spec.shape)
    if request.trace == "exact" and dims > EXACT_LIMIT and not request.force:
        raise ValueError(
            f"--trace: exact costs {dims} derivative passes at each of about 100 evaluations, "
            f"allowed up to {EXACT_LIMIT} dimensions; use hutchinson, or --force if you can wait"
        )


def _load(request: ScoreRequest, config: Config, spec: DataSpec) -> Dataset:
    """The data, which must be what the checkpoint was trained for."""
    source = config.data
    if request.data is not None:
        source = type(source)(request.data)
    elif _is_array_file(source.name) and request.split is None:
        raise ValueError(
            f"--data: must be given, the checkpoint was trained on all of {source.name}; "
            "name a file of held-out data"
        )
    source = replace(
        source,
        root=request.data_root or source.root,
        levels=request.levels or source.levels,
    )
    whole = request.data is not None and _is_array_file(source.name)
    data = source.load(request.split or ("train" if whole else "test"))
    data = replace(data, split="all") if whole else data
    _check_data(request, config, spec, data)
    return data if config.net.get("classes") is not None else replace(data, labels=None)


def _is_array_file(name: str) -> bool:
    return name.endswith((".npy", ".npz")) and Path(name).is_file()


def _check_data(request: ScoreRequest, config: Config, spec: DataSpec, data: Dataset) -> None:
    if data.spec.shape != spec.shape:
        raise ValueError(
            f"--data: {data.name} has shape {data.spec.shape}, the checkpoint is for {spec.shape}"
        )
    if spec.levels is not None and data.spec.levels is None:
        raise ValueError(
            f"--levels: must be given for {data.name}, which holds floats: bits/dim are of "
            f"quantized data; the checkpoint is for {spec.levels} levels"
        )
    if data.spec.levels != spec.levels:
        trained = "continuous data" if spec.levels is None else f"{spec.levels} levels"
        raise ValueError(
            f"--levels: {data.spec.levels} of {data.name}, but the checkpoint is for {trained}"
        )
    if spec.levels is None and request.draws != 1:
        raise ValueError(f"--draws: {request.draws}, but continuous data are not dequantized")
    if config.net.get("classes") is not None and data.labels is None:
        raise ValueError(f"--data: {data.name} has no labels, the checkpoint needs them")
    if request.n > len(data):
        raise ValueError(
            f"--n: {request.n} is more than the {len(data)} of {data.name} ({data.split})"
        )


def _model(request: ScoreRequest, raw: RawCheckpoint) -> ScoreModel:
    model = build(raw, request.device).model
    return model.double() if request.dtype == "float64" else model


def _score(
    request: ScoreRequest,
    model: ScoreModel,
    spec: DataSpec,
    data: Dataset,
    rows: np.ndarray,
    on_progress: OnProgress | None,
) -> _Scores:
    """The scores of some rows of the data, batch by batch."""
    parts: list[_Scores] = []
    if on_progress is not None:
        on_progress(0, len(rows), "")
    for begin in range(0, len(rows), request.batch):
        chosen = rows[begin : begin + request.batch]
        x = data.x[chosen].to(request.device)
        y = None if data.labels is None else data.labels[chosen].to(request.device)
        noise = SampleNoise(request.seed, range(begin, begin + len(chosen)))
        with advise_on_memory(len(chosen), spec.shape, "--batch"):
            parts.append(_score_batch(request, model, spec, x, y, noise))
        if on_progress is not None:
            mean = float(torch.cat([part.value for part in parts]).mean())
            on_progress(begin + len(chosen), len(rows), f"{mean:.3f} {_unit(spec)}")
    return _Scores(*(torch.cat(columns).cpu() for columns in zip(*parts, strict=True)))


def _score_batch(
    request: ScoreRequest,
    model: ScoreModel,
    spec: DataSpec,
    x: Tensor,
    y: Tensor | None,
    noise: SampleNoise,
) -> _Scores:
    dims = math.prod(spec.shape)
    dtype = torch.float64 if request.dtype == "float64" else torch.float32
    names = ("t_min", "rtol", "atol", "trace", "probes", "force")
    protocol = {name: getattr(request, name) for name in names} | {"y": y, "noise": noise}
    if spec.levels is None:
        result = log_likelihood(model, x.to(dtype), **protocol)
        log_prob, value, error = result.log_prob, -result.log_prob / dims, result.std_error / dims
    else:
        result = discrete_log_likelihood(
            model, x, spec, draws=request.draws, dtype=dtype, **protocol
        )
        log_prob, value, error = result.log_prob.mean(0), result.bits_per_dim, result.std_error
    return _Scores(value, error, log_prob, torch.full((len(x),), result.nfe))


def _unit(spec: DataSpec) -> str:
    return "nats/dim" if spec.levels is None else "bits/dim"


def _summary(
    request: ScoreRequest, spec: DataSpec, data: Dataset, scores: _Scores, rows: np.ndarray
) -> dict[str, Any]:
    n, dims = len(rows), math.prod(spec.shape)
    exact = request.trace == "exact" or (request.trace == "auto" and dims <= EXACT_UP_TO)
    density = None
    if data.log_prob is not None:
        density = -float(data.log_prob(data.x[rows].double()).mean()) / dims
    return {
        "checkpoint": request.checkpoint,
        "data": data.name,
        "split": data.split,
        "n": n,
        "of": len(data),
        "dims": dims,
        "levels": spec.levels,
        "unit": _unit(spec),
        "mean": float(scores.value.mean()),
        "std_error": float(scores.value.std()) / math.sqrt(n) if n > 1 else None,
        "true_density": density,
        "nfe": int(scores.nfe.max()),
        "trace": "exact" if exact else "hutchinson",
        **{k: getattr(request, k) for k in ("probes", "draws", "t_min", "rtol", "atol", "seed")},
    }


def _write(out: Path, data: Dataset, scores: _Scores, rows: np.ndarray) -> None:
    """One row per datum, as CSV and as arrays."""
    value = _unit(data.spec).replace("/", "_per_")
    columns = {"row": rows}
    if data.labels is not None:
        columns["label"] = data.labels[rows].numpy()
    columns |= {
        value: scores.value.numpy(),
        "std_error": scores.std_error.numpy(),
        "log_prob": scores.log_prob.numpy(),
        "nfe": scores.nfe.numpy(),
    }
    save_arrays(out / "per_image.npz", **columns)
    with atomic_write(out / "per_image.csv", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
