"""The curves of a training run from the lines of its log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .figures import COLOURS, new_figure, save_figure

__all__ = ["LeastLoss", "save_curves"]

# One colour for each part of the training of which the error by noise level is drawn.
STAGES = (COLOURS[3], COLOURS[7], COLOURS[0])


@dataclass(frozen=True)
class LeastLoss:
    """The irreducible loss: that of the exact score of the data.

    Attributes:
        of: What it is the loss of, for the legend.
        loss: The weighted loss per dimension.
        std_error: Its standard error.
        error_by_t: Unweighted error |ε̂ − ε|²/D in equal bins of t, NaN for an empty bin.
    """

    of: str
    loss: float
    std_error: float
    error_by_t: Tensor


def save_curves(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    clip: float | None = None,
    least: LeastLoss | None = None,
) -> None:
    """Draw loss, error by noise level, gradient norm and learning rate against step.

    Validations are drawn where the lines have them.

    Args:
        path: PNG file to write.
        rows: Lines of `log.jsonl`, at least one.
        clip: Largest gradient norm that is not scaled down; None to leave it out.
        least: The irreducible loss, if it is known.
    """
    checked = [row for row in rows if row.get("validation")]
    bits = [row for row in checked if row["validation"].get("nll") is not None]
    figure = new_figure(12, 11.5 if bits else 7.8)
    axes = [*figure.subplots(3 if bits else 2, 2).flat]
    _loss(axes[0], rows, checked, least)
    _by_time(axes[1], rows, checked, least)
    _line(axes[2], rows, "grad_norm", "gradient norm before clipping", yscale="log")
    if clip is not None:
        axes[2].axhline(clip, color="k", ls="--", lw=0.8, label=f"clip = {clip:g}")
        axes[2].legend(fontsize=8)
    _line(axes[3], rows, "learning_rate", "learning rate")
    if bits:
        _likelihood(axes[4], bits)
        _line(axes[5], rows, "images_per_second", "data per second")
    for axis in axes:
        axis.grid(alpha=0.3)
    for axis in (axes[0], *axes[2:]):
        axis.set_xlim(0, 1.03 * rows[-1]["step"])
    save_figure(path, figure)


def _loss(axis: Any, rows: Sequence, checked: Sequence, least: LeastLoss | None) -> None:
    steps, losses = _column(rows, "loss")
    axis.plot(steps, losses, color=COLOURS[0], lw=0.8, alpha=0.35)
    axis.plot(steps, _smoothed(losses), color=COLOURS[0], label="training, running mean")
    if checked:
        found = [row["validation"] for row in checked]
        at = [row["step"] for row in checked]
        _validation(axis, at, found, "loss", "std_error", "held-out data")
        training = [_number(v.get("training_loss")) for v in found]
        axis.plot(at, training, "x--", color=COLOURS[2], label="training data, the same weights")
        _best(axis, at, found)
    if least is not None:
        text = f"irreducible, {least.of}: {least.loss:.4g} ± {least.std_error:.1g}"
        axis.axhline(least.loss, color="k", ls="--", lw=0.9, label=text)
    low, high = axis.get_ylim()
    scale = "log" if high > 5 * low > 0 else "linear"
    axis.set(xlabel="step", ylabel="weighted loss per dimension", yscale=scale)
    axis.legend(fontsize=8)


def _best(axis: Any, at: Sequence[int], found: Sequence[Mapping[str, Any]]) -> None:
    """Mark the step of the smallest loss on held-out data, whose weights the run keeps."""
    losses = [(v["loss"], step) for v, step in zip(found, at, strict=True) if v["loss"] is not None]
    if losses:
        step = min(losses)[1]
        text = f"smallest loss on held-out data, step {step}"
        axis.axvline(step, color=COLOURS[1], ls=":", lw=1.2, label=text)


def _by_time(axis: Any, rows: Sequence, checked: Sequence, least: LeastLoss | None) -> None:
    """The errors in the bins of t: means over the first, middle and last lines of the log."""
    errors = torch.tensor([[_number(e) for e in row["error_by_t"]] for row in rows])
    middles = (torch.arange(errors.shape[1]) + 0.5) / errors.shape[1]
    count = min(len(STAGES), len(rows))
    parts = torch.arange(len(rows)).tensor_split(count)
    for part, colour in zip(parts, STAGES[-count:], strict=True):
        first, last = rows[part[0] - 1]["step"] if part[0] else 0, rows[part[-1]]["step"]
        label = f"training, steps {first + 1}–{last}"
        axis.plot(middles, errors[part].nanmean(0), ".-", color=colour, label=label)
    if checked:
        held = [_number(e) for e in checked[-1]["validation"]["error_by_t"]]
        axis.plot(middles, held, "s", ms=4, color=COLOURS[1], label="held-out data, last")
    if least is not None:
        text = f"irreducible, {least.of}"
        axis.plot(middles, least.error_by_t, "k--", lw=0.9, label=text)
    axis.set(xlabel="noise level, time t", ylabel="error |ε̂ − ε|²/D", yscale="log")
    axis.legend(fontsize=8)


def _line(axis: Any, rows: Sequence, key: str, name: str, **settings: Any) -> None:
    axis.plot(*_column(rows, key), color=COLOURS[0], lw=1)
    axis.set(xlabel="step", ylabel=name, **settings)


def _likelihood(axis: Any, rows: Sequence) -> None:
    found = [row["validation"] for row in rows]
    at = [row["step"] for row in rows]
    _validation(axis, at, found, "nll", "nll_std_error", "held-out data")
    axis.set(xlabel="step", ylabel=f"negative log-likelihood, {found[-1].get('unit', '')}")


def _validation(axis: Any, at: Sequence, found: Sequence, key: str, error: str, name: str) -> None:
    """Values of the validations with their standard errors."""
    values, errors = ([_number(v.get(k)) for v in found] for k in (key, error))
    style = {"fmt": "o-", "ms": 4, "capsize": 2, "color": COLOURS[1]}
    axis.errorbar(at, values, errors, label=f"{name} ± one standard error", **style)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], Tensor]:
    """Steps and values; NaN for a line without a number."""
    values = torch.tensor([_number(row.get(key)) for row in rows], dtype=torch.float64)
    return [row["step"] for row in rows], values


def _smoothed(values: Tensor) -> Tensor:
    """Mean over a window of a twentieth of all lines around each line; NaN is left out."""
    half = len(values) // 40
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return torch.stack([window.nanmean() for window in windows])


def _number(value: float | None) -> float:
    return math.nan if value is None else value
