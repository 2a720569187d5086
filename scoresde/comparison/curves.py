"""Figures of a comparison: a metric against evaluations or seconds, and scatter plots.

Each figure exists as PDF, as SVG, and as the SVG within report.html. This last one takes its
colours from the style of the page, which has a light and a dark scheme.
"""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup
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

__all__ = ["AXES", "LABELLED", "Curve", "Drawn", "curves", "pareto", "scatter", "series"]

AXES = {
    "nfe": "network evaluations per sample (NFE)",
    "seconds": "seconds for all samples of a cell",
}
LABELLED = 8  # largest number of lines with a colour and a name
FAINT = "#b0b0b0"  # of the lines without
LONGEST = 24  # characters of a line of a label
POINT = "#4477aa"  # of a scatter plot, on a light and on a dark page
FILES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same bytes on every run


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


class Drawn(NamedTuple):
    """A figure in its three forms.

    Attributes:
        svg: Content of an SVG file.
        pdf: Content of a PDF file.
    """

    svg: bytes
    pdf: bytes

    @property
    def inline(self) -> Markup:
        """The SVG element for a page, whose colours are variables of the page's style."""
        text = self.svg.decode("utf-8")
        text = text[text.index("<svg") :].replace("<svg ", '<svg aria-hidden="true" ', 1)
        for i, colour in enumerate(COLOURS):
            text = text.replace(colour.lower(), f"var(--line-{i})")
        # The variables of ink and paper come last: black is also the colour of a line.
        return Markup(text.replace("#ffffff", "var(--paper)"))


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
    shown = [_line(axes, curve, metric, x, i < LABELLED) for i, curve in enumerate(lines)]
    estimates = [cell.metrics[metric] for curve in lines for cell in curve.cells]
    floor, label = findings.floor.get(metric), "real data"
    if metric == "paired_rmse" and findings.reference is not None:
        floor, label = findings.reference["error"], "error of the reference"
    if floor is not None:
        axes.axhspan(*_span(floor), color="#888888", alpha=0.25, lw=0, zorder=0)
        axes.axhline(floor.value, color="#888888", lw=1, zorder=0)
        estimates = [*estimates, floor]
    _scale(axes, estimates)
    axes.set(xscale="log", xlabel=AXES[x], ylabel=_axis_label(findings, metric))
    _style(axes)
    names = [(curve.name, end, colour) for curve, (end, colour) in zip(lines, shown, strict=True)]
    if floor is not None:
        names.insert(0, (label, (axes.get_xlim()[1], floor.value), "#888888"))
    _name_lines(figure, axes, names[: LABELLED + (floor is not None)])
    return _save(figure, f"{metric}-{x}")


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


def _line(
    axes: Axes, curve: Curve, metric: str, x: str, named: bool
) -> tuple[tuple[float, float], str]:
    """Draw a line, grey if it has no name; return its last point and its colour."""
    xs = [getattr(cell, x) for cell in curve.cells]
    estimates = [cell.metrics[metric] for cell in curve.cells]
    values = [estimate.value for estimate in estimates]
    if not named:
        axes.plot(xs, values, color=FAINT, lw=0.8, marker=".", ms=3, zorder=1)
        return (xs[-1], values[-1]), FAINT
    below = [max(value - _span(e)[0], 0.0) for value, e in zip(values, estimates, strict=True)]
    above = [max(_span(e)[1] - value, 0.0) for value, e in zip(values, estimates, strict=True)]
    style = line_style(curve.number) | {"lw": 1.3, "ms": 4.5, "mec": "#ffffff", "mew": 0.5}
    axes.errorbar(xs, values, [below, above], elinewidth=0.8, capsize=1.5, **style)
    return (xs[-1], values[-1]), style["color"]


def _name_lines(
    figure: Figure, axes: Axes, names: Sequence[tuple[str, tuple[float, float], str]]
) -> None:
    """Write the name of each line beside its end, in the same order, without overlap."""
    texts = ["\n".join(_broken(name)) for name, _, _ in names]
    ends = [axes.transAxes.inverted().transform(axes.transData.transform(p)) for _, p, _ in names]
    order = sorted(range(len(names)), key=lambda i: ends[i][1])
    height = 0.045  # of a line of text, as a part of the axes
    sizes = [height * (1 + texts[i].count("\n")) + 0.012 for i in order]
    wanted = [float(ends[i][1]) for i in order]
    for i, place in zip(order, _apart(wanted, sizes), strict=True):
        colour = names[i][2]
        axes.annotate(
            texts[i],
            xy=(float(ends[i][0]), float(ends[i][1])),
            xycoords="axes fraction",
            xytext=(1.07, place),
            textcoords="axes fraction",
            **{"va": "center", "ha": "left", "fontsize": 8, "linespacing": 1.0},
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.9, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def _apart(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Centres of blocks near the wanted ones, in the same order, that do not overlap."""
    places: list[float] = []
    for i, (centre, size) in enumerate(zip(wanted, sizes, strict=True)):
        least = places[-1] + (sizes[i - 1] + size) / 2 if places else size / 2
        places.append(max(centre, least))
    top = 1.0
    for i in reversed(range(len(places))):  # back down, where they stand above the axes
        places[i] = min(places[i], top - sizes[i] / 2)
        top = places[i] - sizes[i] / 2
    return places


def _broken(name: str) -> list[str]:
    """A name on at most two lines, cut where it is longer than these."""
    text = _literal(name)
    head, colon, rest = text.partition(":")
    if len(text) <= LONGEST or not colon:
        return [_cut(text)]
    return [_cut(head + colon), _cut(rest)]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _axis_label(findings: Findings, metric: str) -> str:
    if metric in ("mmd2", "frechet") and findings.quality is not None:
        return f"{METRICS[metric].title}, {_literal(findings.quality['features'].split('@')[0])}"
    return METRICS[metric].title


def _literal(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return printable(text).replace("$", r"\$")


def _span(estimate: Estimate) -> tuple[float, float]:
    """The 95 % interval; the value alone if its error is not known."""
    low, high = estimate.interval()
    finite = math.isfinite(low) and math.isfinite(high)
    return (low, high) if finite else (estimate.value, estimate.value)


def _scale(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """Make the y axis logarithmic; linear near 0 if an interval reaches 0, as for MMD²."""
    spans = [_span(estimate) for estimate in estimates]
    if all(low > 0 for low, _ in spans):
        axes.set_yscale("log")
        return
    width = statistics.median((high - low) / 4 for low, high in spans) or 1e-3
    # A power of ten: otherwise the ticks on either side of the border overlap.
    border = 10 ** math.ceil(math.log10(2 * width))
    if max(high for _, high in spans) > border:
        axes.set_yscale("symlog", linthresh=border)


def _style(axes: Axes) -> None:
    axes.grid(color="#888888", alpha=0.3, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
        axis.label.set_size(9)
    axes.tick_params(labelsize=8.5, which="both")


def _save(figure: Figure, name: str) -> Drawn:
    """The figure as SVG and PDF; the texts of the SVG are text."""
    import matplotlib

    found = {}
    # The salt is the name, so that two figures of one page have no element of the same id.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        for kind, metadata in FILES.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata, transparent=True)
            found[kind] = buffer.getvalue()
    found["svg"] = re.sub(rb"<metadata>.*?</metadata>", b"", found["svg"], flags=re.DOTALL)
    return Drawn(**found)


def _plain_ticks(axis: Axis) -> None:
    """Write 5, 10, 20 rather than powers of ten, on a log axis over less than three decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high / low < 1000:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
