"""`scoresde.doctor`: whether a model means what it claims, measured on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..._condition import Condition, take_rows
from ..._tensor import check_integer, check_type, float64
from ..._text import reason_of
from ...data import Dataset, DataSpec
from ...evaluation import evaluating, own_context
from ...noise import SampleNoise, check_seed
from ...output.progress import OnProgress, silent
from ...score import ScoreModel
from ...score.units import in_model_scale
from ...tasks.held_out import choose_rows, to_points
from ...tasks.live import device_of, known_spec, name_of
from ...tasks.own_data import is_place, one_split
from .alternatives import SINE, levels_of_label
from .conduct import conduct
from .data_map import RANGES
from .embedding import exchanged
from .facts import facts
from .measure import Measured
from .points import Points, spaced
from .reading import Reading, Subject, reading_of
from .report import DoctorReport
from .search import search

__all__ = ["diagnose", "doctor"]

LEVELS = 8  # noise levels with equal ratios
SPAN = 0.02, 10.0  # their range in standard deviations of the data
LOW_LABELS = (1, 2, 4, 8)  # labels near the data, whose noise levels are added
LEAST_DATA = 8


def doctor(
    model: ScoreModel,
    data: Any,
    *,
    n: int = 64,
    y: Condition | None = None,
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
    seed: int = 0,
    batch: int = 64,
    on_progress: OnProgress = silent,
) -> DoctorReport:
    """Test on data whether a model means what it claims: SDE, target, label, scale, range, weights.

    The error of denoising is measured at several noise levels, on the same data with the same
    noise, under what the model claims and under about 75 other readings: another target, label,
    schedule or input scale, reversed time, a shifted label, a scaled σ, another range of the data
    or order of channels, other weights. If one is better beyond doubt, it is the likely mistake.
    `check` tests other things, the rules of the interface, and needs no data.

    Args:
        model: Any score model. Of a `NetworkScore` the network itself is tested. Of others the
            output is tested, as a function of x and t.
        data: Data like those of the training, better held out: the name of a data set, a path, a
            `Dataset`, or an array of shape (N, *D) of levels, or of numbers at the model's scale.
        n: Number of data, at least 8; the number there is, if it is smaller.
        y: Conditions of the data, N rows; None for those of the data set.
        weights: Further sets of weights of the network by name, such as the averaged ones.
        seed: Seed of all randomness, integer in [0, 2^64).
        batch: Data at a time.
        on_progress: Called with (number of comparisons, None, note) during the work.

    Returns:
        The report: `mistakes` in words, the numbers behind them, and text by `print`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the data do not suit the model, there are fewer than 8, or the model is
            guided.
        RuntimeError: If the model cannot be evaluated as it claims.
    """
    check_type("model", model, ScoreModel)
    if model.guided:
        raise ValueError(
            "model must predict the noise of data, which a guided one does not, got "
            f"{type(model).__name__}; give the model inside"
        )
    check_integer("n", n, minimum=LEAST_DATA)
    spec = known_spec(model)
    found = one_split("data", data, spec)
    if y is not None:
        found = replace(found, labels=y)
    elif model.condition is not None and not model.condition:
        found = replace(found, labels=None)
    elif is_place(data) and model.condition:
        found = found.given_for(model.condition)
    return diagnose(
        *(name_of(model), model, found),
        spec=_spec(spec, found),
        weights=weights,
        settings=(n, seed, batch),
        on_progress=on_progress,
    )


@own_context()
def diagnose(
    name: str,
    model: ScoreModel,
    data: Dataset,
    *,
    spec: DataSpec,
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
    settings: tuple[int, int, int] = (64, 0, 64),
    on_progress: OnProgress = silent,
) -> DoctorReport:
    """`doctor` on data that have been checked.

    Args:
        name: Name of the model.
        model: The model.
        data: The data.
        spec: What the model claims about the data.
        weights: As for `doctor`.
        settings: n, seed and batch.
        on_progress: As for `doctor`.
    """
    if data.spec.kind == "set":
        raise ValueError(
            f"data must not be sets of points for the doctor, whose noise has no padding, got "
            f"{data.name}; `scoresde check` tests a model of sets"
        )
    n, seed, batch = settings
    model, data, spec = in_model_scale(model), data.scaled, spec.in_model_scale
    subject = reading_of(model, weights)
    points = _points(subject, data, spec, (n, check_seed(seed), batch), device_of(model))
    subject = _with_exchanged(subject, points)
    measured = Measured(subject, points)
    count = iter(range(1, 10**9))
    with evaluating(subject.model):
        measured = _checked(measured, name)
        found = search(measured, lambda note: on_progress(next(count), None, note))
        levels = tuple(facts(measured, found.reading))
    notes = (*_about_levels(data, spec), *_ends(measured, found.reading))
    findings = conduct(model, measured, found.reading)
    return DoctorReport(name, data.name, len(points.x), found, levels, notes, findings)


def _with_exchanged(subject: Subject, points: Points) -> Subject:
    """The model with a further set of weights, for the other order of sine and cosine."""
    if not subject.is_network:
        return subject
    with evaluating(subject.model):
        weights = exchanged(subject, points)
    return (
        subject if weights is None else replace(subject, weights={**subject.weights, SINE: weights})
    )


def _about_levels(data: Dataset, spec: DataSpec) -> list[str]:
    """A note if the data have another number of levels than the model claims."""
    if data.spec.levels is None or data.spec.levels == spec.levels or spec.levels is None:
        return []
    return [
        f"the data have {data.spec.levels} levels, the model claims {spec.levels}: the lowest and "
        "the highest value are taken to be those of the claim"
    ]


def _spec(spec: DataSpec | None, data: Dataset) -> DataSpec:
    """What the model claims about the data; what the data say, if it claims nothing."""
    return data.spec if spec is None else spec


def _points(
    subject: Subject, data: Dataset, spec: DataSpec, settings: tuple[int, int, int], device: str
) -> Points:
    n, seed, batch = settings
    rows = choose_rows(data, min(n, len(data)), seed)
    if len(rows) < LEAST_DATA:
        raise ValueError(f"data must hold at least {LEAST_DATA} data, got {len(rows)}")
    chosen = data.x[rows]
    if spec.levels is None and data.spec.levels is not None:
        spec = data.spec
    claimed = _with_levels(spec, data.spec.levels) if data.spec.levels is not None else data.spec
    x = to_points(chosen, claimed, SampleNoise(seed, range(len(rows))), torch.float32).to(device)
    y = None if data.labels is None else take_rows(data.labels, torch.from_numpy(rows))
    if y is not None:
        y = subject.model.condition.checked(y, len(rows)) if subject.model.condition else y
    low, high = _range(x, claimed)
    return Points(x, y, _kappas(subject, x), low, high, seed, batch)


def _with_levels(spec: DataSpec, levels: int) -> DataSpec:
    """Data with the same lowest and highest value in another number of levels.

    The values of levels are the centres of their cells, low + (k + ½)(high − low)/levels.
    """
    if levels == spec.levels:
        return spec
    half = 0.5 * (spec.high - spec.low) / spec.levels
    low, high = spec.low + half, spec.high - half
    half = 0.5 * (high - low) / (levels - 1)
    return replace(spec, low=low - half, high=high + half, levels=levels)


def _range(x: Tensor, spec: DataSpec) -> tuple[float, float]:
    """The range of the data: the claimed one, or the usual one that floating data fill."""
    if spec.levels is not None:
        return spec.low, spec.high
    low, high = (float(v) for v in torch.aminmax(x))
    fits = ((a, b) for a, b in RANGES if a <= low and high <= b and high - low > 0.8 * (b - a))
    return next(fits, (spec.low, spec.high))


def _kappas(subject: Subject, x: Tensor) -> tuple[float, ...]:
    """The noise levels: equal ratios where noise and data have comparable sizes, and low labels."""
    claim = subject.claim
    low, high = subject.kappas(claim)
    std = float(x.double().std())
    if not std > 0:
        raise ValueError("data must not all be equal")
    inside = max(low, SPAN[0] * std), min(high, SPAN[1] * std)
    found = spaced(*(inside if inside[0] < 0.5 * inside[1] else (low, high)), LEVELS)
    levels = levels_of_label(claim)
    if levels:
        times = float64([(1 + i) / levels for i in LOW_LABELS if i + 1 < levels])
        found += [k for k in torch.exp(-claim.sde.lam(times)).tolist() if k >= low]
    return tuple(sorted(set(found)))


def _checked(measured: Measured, name: str) -> Measured:
    """The noise levels at which the claim can be evaluated; an error unless there are a few."""
    claim, kept = measured.subject.claim, []
    rows = slice(0, min(LEAST_DATA, len(measured.points.x)))
    for level, kappa in enumerate(measured.points.kappas):
        try:
            finite = bool(measured.predicted(claim, rows, level).isfinite().all())
        except Exception as error:  # code of the user
            finite, measured.failures[claim] = False, reason_of(error)
        kept += [kappa] if finite else []
    if len(kept) < 2:
        reason = measured.failures.get(claim, "it gives no finite numbers")
        raise RuntimeError(f"{name} cannot be evaluated as it claims: {reason}")
    return Measured(measured.subject, replace(measured.points, kappas=tuple(kept)))


def _ends(measured: Measured, reading: Reading) -> list[str]:
    """What happens at the last and the first noise level, in words."""
    points, sde = measured.points, reading.sde
    std = points.std * abs(reading.data.scale)
    last = sde.nodes([1.0])[0]
    left = last.alpha * std / last.sigma
    lines = [
        f"at t = 1 the signal is {left:.2g} of the noise (α std/σ), and the noise has the standard "
        f"deviation {last.sigma:.3g}, where sampling starts with {sde.prior_std:.3g}"
    ]
    if left > 0.1:
        lines.append("the data are not hidden at t = 1: samples that start from noise are biased")
    low = measured.subject.kappas(reading)[0]
    share = low / points.std
    lines.append(f"the least noise level is κ = {low:.3g}, {share:.2g} of the data's deviation")
    if share > 0.1:
        lines.append("noise remains at the end of sampling: the last denoising step is needed")
    return lines
