"""Pictures of a comparison: metrics against evaluations or seconds, and scatter plots."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from torch import Tensor

from .._text import printable
from ..data import DataSpec
from ..metrics import Estimate
from ..output.figures import COLOURS, line_style, new_figure, png_bytes
from .findings import Findings
from .labels import RECOMMENDED
from .metric_table import METRICS
from .records import CellResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["curves", "scatter"]

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))

AXES = {
    "nfe": "network evaluations per sample (NFE)",
    "seconds": "seconds for all samples of a cell",
}


def curves(findings: Findings, metric: str, x: str) -> bytes:
    """A PNG of a metric with error bars and its floor, against evaluations or seconds.

    The floor of a quality metric is its value for real data. The floor of the paired error is the
    error of the reference solution.

    Args:
        findings: The comparison.
        metric: Name of the metric.
        x: "nfe" or "seconds".
    """
    rows = math.ceil((len(findings.samplers) + len(findings.settings["grids"])) / 2)
    figure = new_figure(5.2, 3.5 + 0.17 * rows)  # with room for the legend
    axes = figure.subplots()
    estimates = _draw(axes, findings, metric, x)
    floor, label = findings.floor.get(metric), "real data"
    if metric == "paired_rmse" and findings.reference is not None:
        floor, label = findings.reference["error"], "bound on the reference's own error"
    if floor is not None:
        axes.axhline(floor.value, color="0.6", lw=2, label=label, zorder=0)
        if metric != "paired_rmse":
            axes.axhspan(*_span(floor), color="0.5", alpha=0.18, lw=0, zorder=0)
        estimates = [*estimates, floor]
    _scale(axes, estimates)
    axes.set(xscale="log", xlabel=AXES[x], ylabel=_label(findings, metric))
    return _finish(figure, axes)


def scatter(x: Tensor, spec: DataSpec) -> bytes:
    """A PNG of points in the plane, shape (n, 2), over the range of the data."""
    figure = new_figure(1.7, 1.7)
    axes = figure.subplots()
    axes.plot(x[:, 0], x[:, 1], ".", color=COLOURS[0], ms=2, alpha=0.5, mew=0)
    axes.set(xlim=(spec.low, spec.high), ylim=(spec.low, spec.high), aspect="equal")
    axes.set(xticks=[], yticks=[])
    return png_bytes(figure, dpi=150)


def _draw(axes: Axes, findings: Findings, metric: str, x: str) -> list[Estimate]:
    """Draw one line per sampler and grid, with a legend entry per sampler and per grid.

    Returns:
        All drawn estimates.
    """
    grids, drawn = findings.settings["grids"], []
    for i, sampler in enumerate(findings.samplers):
        label = _literal(sampler).replace(":", ":\n", 1)
        for grid in ("",) if sampler == RECOMMENDED else ("", *grids):
            cells = _series(findings, sampler, grid, metric, x)
            if not cells:
                continue
            estimates = [cell.metrics[metric] for cell in cells]
            axes.errorbar(
                [getattr(cell, x) for cell in cells],
                [estimate.value for estimate in estimates],
                [_bar(estimate) for estimate in estimates],
                label=label,
                ls=DASHES[grids.index(grid) % len(DASHES)] if grid else "-",
                **line_style(i),
                **{"lw": 1.1, "ms": 4.5, "mec": "white", "mew": 0.5},
                **{"elinewidth": 0.8, "capsize": 1.5},
            )
            label, drawn = "_", [*drawn, *estimates]
    if len(grids) > 1:
        for grid, dashes in zip(grids, DASHES, strict=False):
            axes.plot([], [], color="0.3", ls=dashes, label=f"grid {_literal(grid)}")
    return drawn


def _series(findings: Findings, sampler: str, grid: str, metric: str, x: str) -> list[CellResult]:
    cells = [
        cell
        for cell in findings.done
        if metric in cell.metrics
        and cell.sampler == sampler
        and (cell.grid == grid or sampler == RECOMMENDED)  # whose grid depends on the budget
    ]
    return sorted(cells, key=lambda cell: getattr(cell, x))


def _label(findings: Findings, metric: str) -> str:
    if metric in ("mmd2", "frechet"):
        return f"{METRICS[metric].title}, {_literal(findings.quality['features'].split('@')[0])}"
    return METRICS[metric].title


def _literal(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return printable(text).replace("$", r"\$")


def _bar(estimate: Estimate) -> float:
    return estimate.std_error if math.isfinite(estimate.std_error) else 0.0


def _span(estimate: Estimate) -> tuple[float, float]:
    return estimate.value - _bar(estimate), estimate.value + _bar(estimate)


def _scale(axes: Axes, estimates: list[Estimate]) -> None:
    """Make the y axis logarithmic; linear near 0 if an error bar reaches 0, as for MMD²."""
    if all(_span(estimate)[0] > 0 for estimate in estimates):
        axes.set_yscale("log")
        return
    width = statistics.median(_bar(estimate) for estimate in estimates) or 1e-3
    # A power of ten: otherwise the ticks on either side of the border overlap.
    border = 10 ** math.ceil(math.log10(2 * width))
    if max(_span(estimate)[1] for estimate in estimates) > border:
        axes.set_yscale("symlog", linthresh=border)


def _finish(figure: Figure, axes: Axes) -> bytes:
    axes.grid(alpha=0.3, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
        axis.label.set_size(9.5)
    axes.tick_params(labelsize=8.5, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return png_bytes(figure, dpi=200)


def _plain_ticks(axis: Axis) -> None:
    """Write 5, 10, 20 rather than powers of ten, on a log axis over less than three decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high / low < 1000:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
