"""Figures of a comparison: a metric against evaluations or seconds, and scatter plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..data import DataSpec
from ..output.figures import COLOURS, line_style, new_figure, png_bytes
from .findings import Findings
from .labels import RECOMMENDED
from .metric_table import METRICS
from .plots import GREY, Drawn, Name, literal, name_lines, saved, scale, span, style
from .records import CellResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AXES", "LABELLED", "Curve", "curves", "pareto", "scatter", "series"]

AXES = {
    "nfe": "network evaluations per sample (NFE)",
    "seconds": "seconds for all samples of a cell",
}
LABELLED = 8  # largest number of lines with a colour and a name
FAINT = "#b0b0b0"  # of the lines without
POINT = "#4477aa"  # of a scatter plot, on a light and on a dark page


class Curve(NamedTuple):
    """The cells of one sampler on one grid, by increasing evaluations or seconds.

    Attributes:
        name: Sampler, and grid if there are several.
        cells: The cells.
        number: Number of the line among all, from which its colour follows in every figure.
    """

    name: str
    cells: list[CellResult]
    number: int


def curves(findings: Findings, metric: str, x: str) -> Drawn:
    """A metric with its 95 % intervals and its floor, against evaluations or seconds.

    At most eight lines have a colour and a name: those that reach the Pareto front first, then the
    recommended settings, then the others by their best value. The other lines are grey.

    The floor of a quality metric is its value for real data. The floor of the paired error is the
    error of the reference solution.

    Args:
        findings: The comparison.
        metric: Name of the metric.
        x: "nfe" or "seconds".
    """
    figure = new_figure(5.0, 3.5)
    axes = figure.subplots()
    lines = series(findings, metric, x)
    names = [_line(axes, curve, metric, x, i < LABELLED) for i, curve in enumerate(lines)]
    estimates = [cell.metrics[metric] for curve in lines for cell in curve.cells]
    floor, label = findings.floor.get(metric), "real data"
    if metric == "paired_rmse" and findings.reference is not None:
        floor, label = findings.reference["error"], "error of the reference"
    if floor is not None:
        axes.axhspan(*span(floor), color=GREY, alpha=0.25, lw=0, zorder=0)
        axes.axhline(floor.value, color=GREY, lw=1, zorder=0)
        estimates = [*estimates, floor]
    scale(axes, estimates)
    axes.set(xscale="log", xlabel=AXES[x], ylabel=_axis_label(findings, metric))
    style(axes)
    if floor is not None:
        names.insert(0, Name(label, (axes.get_xlim()[1], floor.value), {"color": GREY, "lw": 4}))
    name_lines(axes, [name for name in names if name is not None])
    return saved(figure, f"{metric}-{x}")


def series(findings: Findings, metric: str, x: str) -> list[Curve]:
    """The lines of a figure, the most important first."""
    found = []
    # The recommended settings come first, and so have the same colour in every comparison.
    for sampler in sorted(findings.samplers, key=lambda sampler: sampler != RECOMMENDED):
        own = [c for c in findings.done if c.sampler == sampler]
        # The grid of the recommended settings depends on the budget: it has a single line.
        for grid in dict.fromkeys("" if sampler == RECOMMENDED else cell.grid for cell in own):
            cells = [c for c in own if grid in ("", c.grid) and metric in c.metrics]
            name = (
                sampler
                if len(findings.settings["grids"]) < 2 or not grid
                else f"{sampler} · {grid}"
            )
            cells.sort(key=lambda cell: getattr(cell, x))
            found.append(Curve(name, cells, len(found)))
    found = [curve for curve in found if curve.cells]
    front = pareto([cell for curve in found for cell in curve.cells], metric, x)
    sign = METRICS[metric].sign

    def importance(curve: Curve) -> tuple[float, ...]:
        on_front = sum(any(c is other for other in front) for c in curve.cells)
        best = min(sign * cell.metrics[metric].value for cell in curve.cells)
        return -on_front, curve.name != RECOMMENDED, best

    return sorted(found, key=importance)


def pareto(cells: Sequence[CellResult], metric: str, x: str) -> list[CellResult]:
    """The cells of which no other has a value at least as good for at most the same cost."""
    sign, front = METRICS[metric].sign, []
    for cell in sorted(cells, key=lambda c: (getattr(c, x), sign * c.metrics[metric].value)):
        if not front or sign * cell.metrics[metric].value < sign * front[-1].metrics[metric].value:
            front.append(cell)
    return front


def scatter(x: Tensor, spec: DataSpec) -> bytes:
    """A PNG of points in the plane, shape (n, 2), over the range of the data."""
    figure = new_figure(1.7, 1.7)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.plot(x[:, 0], x[:, 1], ".", color=POINT, ms=3, alpha=0.7, mew=0)
    axes.set(xlim=(spec.low, spec.high), ylim=(spec.low, spec.high), aspect="equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#888888")
    return png_bytes(figure, dpi=150)


def _line(axes: Axes, curve: Curve, metric: str, x: str, named: bool) -> Name | None:
    """Draw a line, and return its name; a line without a name is grey."""
    xs = [getattr(cell, x) for cell in curve.cells]
    estimates = [cell.metrics[metric] for cell in curve.cells]
    values = [estimate.value for estimate in estimates]
    if not named:
        axes.plot(xs, values, color=FAINT, lw=0.8, marker=".", ms=3, zorder=1)
        return None
    below = [max(value - span(e)[0], 0.0) for value, e in zip(values, estimates, strict=True)]
    above = [max(span(e)[1] - value, 0.0) for value, e in zip(values, estimates, strict=True)]
    look = line_style(curve.number) | {"lw": 1.3, "ms": 4.5, "mec": "#ffffff", "mew": 0.5}
    look["ls"] = "-" if curve.number < len(COLOURS) else "--"  # colours come again
    axes.errorbar(xs, values, [below, above], elinewidth=0.8, capsize=1.5, **look)
    return Name(curve.name, (xs[-1], values[-1]), look)


def _axis_label(findings: Findings, metric: str) -> str:
    if metric in ("mmd2", "frechet") and findings.quality is not None:
        return f"{METRICS[metric].title}\n{literal(findings.quality['features'].split('@')[0])}"
    return METRICS[metric].title
