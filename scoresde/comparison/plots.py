"""How the figures of a comparison are drawn: scales, named lines, and the three forms of a figure.

Each figure exists as PDF, as SVG, and as the SVG within report.html. This last one takes its
colours from the style of the page, which has a light and a dark scheme.
"""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from .._text import printable
from ..metrics import Estimate
from ..output.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["GREY", "Drawn", "Name", "literal", "name_lines", "saved", "scale", "span", "style"]

GREY = "#888888"
LONGEST = 24  # characters of a line of a label
HEIGHT = 0.045  # of a line of text, as a part of the axes
NEAR = 0.85  # a line that ends right of this part of the axes is joined to its name
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
FILES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same bytes on every run


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


class Name(NamedTuple):
    """The name of a line in a figure.

    Attributes:
        text: The name.
        end: Last point of the line, in data coordinates.
        style: Colour, marker and dashes of the line, as arguments of matplotlib.
    """

    text: str
    end: tuple[float, float]
    style: dict[str, Any]


def name_lines(axes: Axes, names: Sequence[Name]) -> None:
    """Write the names of lines beside the axes, each after a piece of its line, without overlap.

    The names stand in the order of the ends of their lines. A line that ends near the right edge is
    joined to its name; a joint from farther left would cross other lines.
    """
    texts = ["\n".join(_broken(name.text)) for name in names]
    points = [axes.transData.transform(name.end) for name in names]
    ends = [axes.transAxes.inverted().transform(point) for point in points]
    order = sorted(range(len(names)), key=lambda i: ends[i][1])
    sizes = [HEIGHT * (1 + texts[i].count("\n")) + 0.012 for i in order]
    beside = {"transform": axes.transAxes, "clip_on": False}
    for i, place in zip(order, _apart([float(ends[i][1]) for i in order], sizes), strict=True):
        x, y = map(float, ends[i])
        if x > NEAR:
            colour = names[i].style["color"]
            axes.plot([x, 1.06], [y, place], color=colour, lw=0.7, alpha=0.7, zorder=1, **beside)
        axes.plot([1.06, 1.095, 1.13], [place] * 3, markevery=[1], **names[i].style, **beside)
        text = {"va": "center", "ha": "left", "fontsize": 8.5, "linespacing": 1.0}
        axes.text(1.15, place, texts[i], **text, **beside)


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
    text = literal(name)
    head, colon, rest = text.partition(":")
    if len(text) <= LONGEST or not colon:
        return [_cut(text)]
    return [_cut(head + colon), _cut(rest)]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def literal(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return printable(text).replace("$", r"\$")


def span(estimate: Estimate) -> tuple[float, float]:
    """The 95 % interval; the value alone if its error is not known."""
    low, high = estimate.interval()
    finite = math.isfinite(low) and math.isfinite(high)
    return (low, high) if finite else (estimate.value, estimate.value)


def scale(axes: Axes, estimates: Sequence[Estimate]) -> None:
    """Make the y axis logarithmic; linear near 0 if a value reaches 0, as of MMD².

    The axis shows all values and intervals. On a logarithmic axis an interval that reaches 0 goes
    down to the edge.
    """
    spans = [span(estimate) for estimate in estimates]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    least = min(estimate.value for estimate in estimates)
    if least > 0:
        axes.set_yscale("log")
        axes.set_ylim(max(low, least / 4) / 1.2, high * 1.2)
        return
    width = statistics.median((high - low) / 4 for low, high in spans) or 1e-3
    # A power of ten: otherwise the ticks on either side of the border overlap.
    border = 10 ** math.ceil(math.log10(2 * width))
    if high > border:
        axes.set_yscale("symlog", linthresh=border)
        axes.set_ylim(1.2 * low - 0.1 * border, 1.2 * high)


def style(axes: Axes) -> None:
    """The grid, and ticks and labels of one size."""
    axes.grid(color=GREY, alpha=0.3, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis)
        axis.label.set_size(9)
    axes.tick_params(labelsize=8.5, which="both")


def saved(figure: Figure, name: str) -> Drawn:
    """The figure as SVG and PDF; the texts of the SVG are text."""
    import matplotlib

    found = {}
    # The salt is the name, so that two figures of one page have no element of the same id.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        for kind, metadata in FILES.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata, transparent=True)
            found[kind] = buffer.getvalue()
            figure.set_layout_engine("none")  # the second form has the layout of the first
    found["svg"] = re.sub(rb"<metadata>.*?</metadata>", b"", found["svg"], flags=re.DOTALL)
    return Drawn(**found)


def _plain_ticks(axis: Axis) -> None:
    """Write 5, 10, 20 on a log axis over less than three decades, and powers of ten on others.

    The powers are plain text, because the layout of formulas takes most of the time of a figure.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() == "linear":
        return
    axis.set_minor_formatter(NullFormatter())
    if axis.get_scale() == "log" and high / low < 1000:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))


def _power(value: float) -> str:
    """A power of ten as text, or 0."""
    if value == 0:
        return "0"
    exponent = str(round(math.log10(abs(value))))
    return f"{'−' if value < 0 else ''}10{exponent.translate(RAISED)}"
