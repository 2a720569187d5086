"""The figure of the doctor: errors by noise level, and the alternatives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...output.figures import COLOURS, new_figure, save_figure
from .report import DoctorReport
from .search import Tried

__all__ = ["save_doctor_figure"]

SHOWN = 12  # alternatives


def save_doctor_figure(path: Path, report: DoctorReport) -> None:
    """Draw the errors under the claim and the last reading, and the alternatives to the latter.

    Args:
        path: PNG file to write.
        report: What the doctor found.
    """
    figure = new_figure(13, 5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    _levels(left, report)
    _alternatives(right, report)
    figure.suptitle(_wrapped(f"{report.model}: {(*report.mistakes, 'no mistake found')[0]}", 100))
    save_figure(path, figure)


def _levels(axis: Any, report: DoctorReport) -> None:
    rows = report.levels
    kappas = [row.kappa for row in rows]
    axis.plot(kappas, [row.linear for row in rows], "--", color="0.5", label="best linear formula")
    if report.search.steps:
        claimed = [math.nan if row.claimed is None else row.claimed for row in rows]
        axis.plot(kappas, claimed, "s-", color=COLOURS[1], label="as claimed")
    errors = [report.search.limit * row.std_error for row in rows]
    label = "with the correction" if report.search.steps else "as claimed"
    style = {"fmt": "o-", "ms": 4, "capsize": 2, "color": COLOURS[0], "label": label}
    axis.errorbar(kappas, [row.error for row in rows], errors, **style)
    axis.set(xscale="log", yscale="log", xlabel="noise level κ of z = x0 + κ ε")
    axis.set(ylabel="error |ε̂ − ε|²/D")
    axis.set_title("error of denoising", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _alternatives(axis: Any, report: DoctorReport) -> None:
    """The gains of the nearest alternatives in standard errors; below −limit they are excluded."""
    limit = report.search.limit
    known = [tried for tried in report.search.tried if not tried.found.same]
    shown = sorted(known, key=lambda t: t.found.z)[-SHOWN:]
    for place, tried in enumerate(shown):
        axis.barh(place, _clipped(tried, limit), color=COLOURS[1 if tried.better(limit) else 0])
    axis.axvspan(-limit, limit, color="0.85", zorder=0)
    names = [_wrapped(tried.alternative.says, 52) for tried in shown]
    axis.set_yticks(range(len(shown)), names, fontsize=7)
    axis.set(xlabel="gain of the alternative, in standard errors (grey: too few data to tell)")
    present = "correction" if report.search.steps else "claim"
    meaning = "left of the grey: worse; right: better by less than the network's own error"
    axis.set_title(f"alternatives to the {present}\n({meaning})", fontsize=9)
    axis.axvline(0, color="k", lw=0.8)
    axis.grid(alpha=0.3, axis="x")


def _clipped(tried: Tried, limit: float) -> float:
    return max(-10 * limit, min(10 * limit, tried.found.z))


def _wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
