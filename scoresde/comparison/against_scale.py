"""Quality and diversity against the scale of guidance, for a comparison of several scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..names.guidance import parse_guidance
from ..output.figures import line_style, new_figure
from .metric_table import METRICS
from .plots import GREY, Drawn, Name, name_lines, saved, span, style
from .records import CellResult
from .seeds import SeedGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SHOWN", "scale_figure"]

# Two distances to the data, the two parts of quality, how good samples are and how many kinds there
# are, and how many are of the class that was asked for.
SHOWN = ("frechet", "mmd2", "precision", "recall", "as_asked")
MOST_COLUMNS = 3  # panels side by side
MOST_LINES = 8  # lines with colours that can be told apart


class _Line(NamedTuple):
    """The recommended settings within one budget, by increasing scale."""

    name: str
    points: list[tuple[float, CellResult]]


def scale_figure(
    groups: Sequence[SeedGroup], cases: Mapping[str, Mapping[str, Any]]
) -> Drawn | None:
    """Each metric against the scale w of the recommended settings, one line for each budget.

    Bars are 95 % intervals, the grey band is that of real data. Kinds of guidance and models have
    lines of their own.

    Args:
        groups: The cases; those of several seeds are joined.
        cases: What is special of each case, by name.

    Returns:
        The figure; None without metrics of the data, or if no line has two scales.
    """
    lines = [line for line in _lines(groups, cases) if len(line.points) > 1][:MOST_LINES]
    metrics = [m for m in SHOWN if any(m in cell.metrics for _, cell in _all(lines))]
    if not metrics:
        return None
    columns = min(MOST_COLUMNS if len(metrics) > 4 else 2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = new_figure(4.6 * columns, 2.6 * rows)
    every = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, metric in zip(every, metrics, strict=False):
        _panel(axes, metric, lines, groups[0])
    for axes in every[len(metrics) :]:
        axes.set_visible(False)
    return saved(figure, "guidance")


def _all(lines: Sequence[_Line]) -> list[tuple[float, CellResult]]:
    return [point for line in lines for point in line.points]


def _lines(groups: Sequence[SeedGroup], cases: Mapping[str, Mapping[str, Any]]) -> list[_Line]:
    """One line for each model, share of labels, kind of guidance and budget."""
    found: dict[tuple[str, ...], list[tuple[float, CellResult]]] = {}
    for group in groups:
        case = cases[group.cases[0]]
        guidance = parse_guidance(case["guidance"])
        first, _, kind = str(guidance).partition(":")
        if first == guidance.kind:  # kind:scale=w:key=value
            kind = ":".join([first, *kind.split(":")[1:]])
        for budget in group.findings.budgets:
            cell = group.findings.recommended(budget)
            if cell is not None and cell.metrics:
                key = (case["model"], case["labels"] or "", kind, f"NFE ≤ {budget}")
                found.setdefault(key, []).append((guidance.scale, cell))
    differing = [len({key[i] for key in found}) > 1 for i in range(4)]
    differing[-1] = True  # the budget is always named
    return [
        _Line(
            " ".join(part for part, shown in zip(key, differing, strict=True) if part and shown),
            sorted(points, key=lambda point: point[0]),
        )
        for key, points in found.items()
    ]


def _panel(axes: Axes, metric: str, lines: Sequence[_Line], group: SeedGroup) -> None:
    """One metric."""
    names = []
    for number, line in enumerate(lines):
        points = [(w, cell.metrics[metric]) for w, cell in line.points if metric in cell.metrics]
        if not points:
            continue
        xs, estimates = zip(*points, strict=True)
        values = [estimate.value for estimate in estimates]
        ends = [span(estimate) for estimate in estimates]
        below = [max(v - low, 0.0) for v, (low, _) in zip(values, ends, strict=True)]
        above = [max(high - v, 0.0) for v, (_, high) in zip(values, ends, strict=True)]
        look = line_style(number) | {"lw": 1.3, "ms": 4.5, "mec": "#ffffff", "mew": 0.5}
        axes.errorbar(xs, values, [below, above], elinewidth=0.8, capsize=1.5, **look)
        names.append(Name(line.name, (xs[-1], values[-1]), look))
    floor = group.findings.floor.get(metric)
    if floor is not None:
        axes.axhspan(*span(floor), color=GREY, alpha=0.25, lw=0, zorder=0)
        axes.axhline(floor.value, color=GREY, lw=1, zorder=0)
        names.insert(0, Name("real data", (axes.get_xlim()[1], floor.value), {"color": GREY}))
    axes.set(xlabel="scale w of guidance (1: none)", ylabel=METRICS[metric].title)
    style(axes)
    name_lines(axes, names)
