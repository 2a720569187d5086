"""The length of the average against the quality of the model, for `scoresde ema`.

- summary.json: the request, one row per relative width, and one for the run's own EMA
- table.txt: the same rows as text
- sweep.png: quality against relative width
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._condition import bound_rows, take_rows
from .._files import atomic_write
from .._tensor import check_choice, check_integer, finite_or_raise
from ..data import Dataset, load_dataset
from ..ema.posthoc import DOUBTFUL
from ..likelihood import Dequantized, log_likelihood
from ..output.progress import OnProgress, advise_on_memory, silent
from ..output.result_folder import SUMMARY, ResultFolder
from ..plain import check_unique
from ..samplers import sample
from ..score import NetworkScore
from ..score.units import in_model_scale
from ..tasks.averages import RunAverages
from ..tasks.conditions import conditions_like
from ..tasks.held_out import choose_rows, load_held_out
from ..tasks.held_out_loss import held_out_losses
from ..tasks.request import HeldOutRequest, StoredModel, data_source, versions
from ..tasks.sweeps import SWEEP
from .ema_report import save_sweep, sweep_table
from .quality import Quality

__all__ = ["BY", "SweepRequest", "sweep_averages"]

BY = ("loss", "bits", "mmd")
WIDTHS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.25)
TABLE = "table.txt"


@dataclass(frozen=True)
class SweepRequest(HeldOutRequest):
    """The relative widths to compare, and what they are compared by.

    Args:
        by: "loss": the training loss on held-out data. "bits": −log p of held-out data per
            dimension, bits/dim or, for continuous data, nats/dim. "mmd": MMD² between samples and
            the training data.
        sigma_rel: Relative widths; None for those between 0.01 and 0.25 whose fit has a residual of
            at most 0.1.
        step: A step with a snapshot; None for the last one.
        draws: Times per datum of the loss.
    """

    n: int = 256
    by: str = "loss"
    sigma_rel: tuple[float, ...] | None = None
    step: int | None = None
    draws: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("--by:", self.by, BY)
        check_integer("--draws:", self.draws, minimum=1)
        check_unique("--sigma-rel:", self.sigma_rel or ())


@dataclass(frozen=True)
class _Measured:
    """A quality, with its value for each datum if it is a mean over the same data."""

    value: float
    std_error: float
    each: Tensor | None = None

    @classmethod
    def mean(cls, each: Tensor) -> _Measured:
        finite_or_raise(each, "the quality of a datum")
        error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
        return cls(float(each.mean()), error, each)


def sweep_averages(
    request: SweepRequest,
    averages: RunAverages,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Measure averages of several relative widths and the run's own EMA, and write the table.

    All of them see the same data, times and noise, so that their differences are more certain than
    their values. The run's own EMA is measured only if its checkpoint is of the same step.

    Args:
        request: The request.
        averages: The run.
        out: Folder for the results; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after each average.

    Returns:
        The content of summary.json.

    Raises:
        FileNotFoundError: If the data are not on this machine.
        ValueError: If a width cannot be made from the snapshots, the data do not suit the model, or
            the folder holds other results.
        RuntimeError: If a number is not finite or memory runs out.
    """
    averages.stored.refuse_latents("the comparison of averages (--save writes one)", "RUN")
    widths = request.sigma_rel or _default_widths(averages)
    fits = {width: averages.fit(width).residual for width in widths}
    stored = averages.stored
    least = replace(request, n=1) if request.by == "mmd" else request  # n samples, not n data
    data = load_held_out(stored, least)
    train = _training_data(request, stored) if request.by == "mmd" else None
    sources = {"checkpoint": stored.source, "snapshots": averages.source, "data": data_source(data)}
    if train is not None:
        sources["training data"] = data_source(train)
    origin = request.origin("ema", sources, sigma_rel=widths, step=averages.step)
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    with results.write((TABLE, SWEEP, SUMMARY)) as output:
        began = time.monotonic()
        measure = _measurement(request, stored, data, train)
        found = _measure_all(request, averages, widths, measure, on_progress)
        summary = _summary(request, averages, found, fits)
        summary |= {"seconds": round(time.monotonic() - began, 3), "versions": versions()}
        with atomic_write(output.work / TABLE, "w") as file:
            file.write(sweep_table(summary))
        save_sweep(output.work / SWEEP, summary)
        output.finish(summary)
    return summary


def _measure_all(
    request: SweepRequest,
    averages: RunAverages,
    widths: Sequence[float],
    measure: Callable[[NetworkScore], _Measured],
    on_progress: OnProgress,
) -> dict[float | None, _Measured]:
    """The quality of each width, and under None that of the run's own EMA if it is of this step."""
    found: dict[float | None, _Measured] = {}
    wanted = [*widths, None] if averages.at_end else [*widths]
    for done, width in enumerate(wanted, 1):
        stored = averages.stored if width is None else averages.model(width)
        with advise_on_memory(request.batch, stored.spec.shape, "--batch"):
            found[width] = measure(in_model_scale(stored.build(request.device, request.dtype)))
        on_progress(done, len(wanted), "EMA" if width is None else f"σ_rel {width:g}")
    return found


def _default_widths(averages: RunAverages) -> tuple[float, ...]:
    """The usual widths, without those that the snapshots do not give well."""
    kept = []
    for width in WIDTHS:
        try:
            if averages.fit(width).residual <= DOUBTFUL:
                kept.append(width)
        except ValueError:
            continue
    return tuple(kept)


def _training_data(request: SweepRequest, stored: StoredModel) -> Dataset:
    if stored.data_source is None:
        raise ValueError("--by: mmd needs the training data, which are not known")
    source = stored.data_source.below(request.data_root)
    labels, classes = bool(stored.condition), stored.spec.class_names
    return load_dataset(source, labels=labels, classes=classes).in_units_of(stored.spec).scaled


def _measurement(
    request: SweepRequest, stored: StoredModel, data: Dataset, train: Dataset | None
) -> Callable[[NetworkScore], _Measured]:
    """The function that measures one model."""
    common = {"seed": request.seed, "batch": request.batch}
    if train is not None:
        quality = Quality.build(train, data.scaled, request.n, ("mmd2",))
        y = None
        if stored.condition:
            y = conditions_like(train.given_for(stored.condition).labels, train.spec, request.n)

        def mmd(model: NetworkScore) -> _Measured:
            shape = (request.n, *stored.spec.shape)
            x = sample(model, shape=shape, y=y, device=request.device, **common).x
            found = quality.measure(x)["mmd2"]
            return _Measured(found.value, found.std_error)

        return mmd
    chosen = _chosen(data, request)
    if request.by == "loss":
        arguments = {"draws": request.draws, "device": request.device, **common}
        objective = stored.config.objective
        return lambda m: _Measured.mean(held_out_losses(m, chosen, objective, **arguments))
    spec = stored.spec.in_model_scale

    def bits(model: NetworkScore) -> _Measured:
        k = chosen.x.to(request.device)
        method = Dequantized(spec, dtype=request.torch_dtype)
        found = log_likelihood(model, k, method, y=chosen.labels, **common)
        each = -found.log_prob.double().cpu() / spec.nats_per_unit
        return _Measured.mean(each)

    return bits


def _chosen(data: Dataset, request: SweepRequest) -> Dataset:
    """The data that the seed chooses."""
    rows = torch.from_numpy(choose_rows(data, request.n, request.seed))
    labels = data.labels
    if labels is not None:
        labels = take_rows(bound_rows(labels, len(data), "cpu"), rows)
    return replace(data, x=data.x[rows], labels=labels).scaled


def _summary(
    request: SweepRequest,
    averages: RunAverages,
    found: dict[float | None, _Measured],
    fits: dict[float, float],
) -> dict[str, Any]:
    """The rows with the difference of each to the run's own EMA, or without it to the best."""
    widths = [width for width in found if width is not None]
    best = min(widths, key=lambda width: found[width].value)
    reference = None if None in found else best
    rows = []
    for width, measured in found.items():
        change, error = _difference(measured, found[reference])
        row = {"sigma_rel": width, "value": measured.value, "std_error": measured.std_error}
        row |= {"difference": change, "difference_error": error, "residual": fits.get(width)}
        same = width == reference
        rows.append(
            {k: None if same and k.startswith("diff") else _plain(v) for k, v in row.items()}
        )
    units = {"loss": "loss", "bits": averages.stored.spec.unit, "mmd": "MMD²"}
    train = averages.stored.config.train
    return {
        "by": request.by,
        "unit": units[request.by],
        "n": request.n,
        "step": averages.step,
        "ema_decay": None if train is None else train.ema_decay,
        "reference": reference,
        "best": best,
        "rows": rows,
    }


def _plain(value: float | None) -> float | None:
    """NaN as None, which JSON can hold."""
    return None if value is None or math.isnan(value) else value


def _difference(a: _Measured, b: _Measured) -> tuple[float, float]:
    """a − b with its standard error, NaN if it is unknown; paired if both know their data."""
    if a.each is None or b.each is None:
        return a.value - b.value, math.nan
    paired = _Measured.mean(a.each - b.each)
    return paired.value, paired.std_error
