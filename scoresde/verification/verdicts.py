"""The results of `scoresde verify` as tables and a figure."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import atomic_write
from ..output.figures import line_style, new_figure, save_figure
from .trials import Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["missed_text", "save_errors_figure", "text_table", "write_csv"]

SAMPLER_WIDTH = 22
NAMED = 8  # largest number of rows in the error message


def text_table(rows: Sequence[Measurement]) -> str:
    """One row per claim, with the range of the observations over its settings.

    The table is at most 100 characters wide: long names of samplers take several lines, and notes
    follow below the table.

    Args:
        rows: Measured rows.
    """
    groups: dict[tuple, list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.sampler, row.expected, row.note), []).append(row)
    notes = list(dict.fromkeys(note for *_, note in groups if note))
    table = [["sampler", "of", "expected", "observed", "last two", "settings", "verdict"]]
    for (kind, sampler, _, note), group in groups.items():
        verdict = next((r.verdict for r in group if r.missed), group[0].verdict)
        where = f"{group[0].sde}/{group[0].grid}" if len(group) == 1 else str(len(group))
        first, *more = _folded(sampler)
        cells = [first, kind, _expected(group[0]), _range(r.observed for r in group)]
        cells += [_range(r.last for r in group), where]
        cells.append(f"{verdict} [{notes.index(note) + 1}]" if note else verdict)
        table.append(cells)
        table += [[f"  {text}", *[""] * (len(cells) - 1)] for text in more]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    return "\n".join([*lines, *(f"[{i}] {note}" for i, note in enumerate(notes, 1))])


def _folded(sampler: str) -> list[str]:
    """A sampler's text in parts of at most `SAMPLER_WIDTH` characters, split between parameters."""
    name, *parameters = sampler.split(":")
    parts = [name]
    for parameter in parameters:
        if len(parts[-1]) + len(parameter) < SAMPLER_WIDTH:
            parts[-1] += f":{parameter}"
        else:
            parts.append(f":{parameter}")
    return parts


def missed_text(rows: Iterable[Measurement]) -> str:
    """The rows that missed their claim, in one line; empty if there are none."""
    bad = [row for row in rows if row.missed]
    texts = [
        f"{row.sampler} ({row.kind}, {row.sde}/{row.grid}) observed {_number(row.observed)}, "
        f"expected {_expected(row)}"
        for row in bad
    ]
    more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return "; ".join(texts[:NAMED]) + more


def write_csv(path: Path, rows: Iterable[Measurement]) -> None:
    """Write all rows as CSV; entries of a list within a cell are separated by spaces."""
    columns = [field.name for field in fields(Measurement)]
    with atomic_write(path, "w") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for row in rows:
            values = asdict(row)
            for name in ("steps", "nfe", "errors"):
                values[name] = " ".join(map(repr, values[name]))
            table.writerow(values)


def save_errors_figure(path: Path, rows: Sequence[Measurement]) -> None:
    """Error against evaluations, a panel per expected order, a line per sampler, as PNG.

    For each sampler the first row of kind "ode" is drawn. A dashed line has the expected slope.

    Args:
        path: File to write; not written if there is nothing to draw.
        rows: Measured rows.
    """
    drawn: dict[str, Measurement] = {}
    for row in rows:
        if row.kind == "ode" and all(row.errors):
            drawn.setdefault(row.sampler, row)
    orders = sorted({row.expected for row in drawn.values()}, key=lambda o: (o is None, o))
    if not orders:
        return
    panels = [[row for row in drawn.values() if row.expected == order] for order in orders]
    legend = max(map(len, panels))
    figure = new_figure(3.9 * len(orders), 4.4 + 0.14 * legend)
    every = figure.subplots(1, len(orders), sharex=True, sharey=True, squeeze=False)[0]
    for axes, order, some in zip(every, orders, panels, strict=True):
        _panel(axes, order, some)
    every[0].set_ylabel("RMS distance to the exact end points")
    save_figure(path, figure, dpi=130)


def _panel(axes: Axes, order: float | None, rows: Sequence[Measurement]) -> None:
    for i, row in enumerate(rows):
        axes.plot(row.nfe, row.errors, label=row.sampler, lw=1, ms=3.5, mew=0, **line_style(i))
    title = "observed, none proven"
    if order is not None:
        title = f"order {order:g}"
        n = [min(row.nfe[0] for row in rows), max(row.nfe[-1] for row in rows)]
        # above all lines where they end
        top = 3 * max(row.errors[-1] * (row.nfe[-1] / n[1]) ** order for row in rows)
        axes.plot(n, [top * (n[1] / m) ** order for m in n], "--", color="0.4", lw=1)
        text, at = f"$\\mathrm{{NFE}}^{{-{order:g}}}$", (n[0], top * (n[1] / n[0]) ** order)
        axes.annotate(text, at, color="0.3", fontsize=8, va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations (NFE)", title=title)
    axes.grid(alpha=0.3, lw=0.5)
    axes.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _expected(row: Measurement) -> str:
    if row.expected is None:
        return "-"
    if row.kind == "tolerance":
        return f"≤ {row.expected:g} tol"
    return f"{row.expected:g} ± {row.band:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(values: Iterable[float | None]) -> str:
    """The least and the largest of some numbers."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, high = min(known), max(known)
    same = math.isclose(low, high, abs_tol=0.005)
    return _number(low) if same else f"{low:.2f} to {high:.2f}"
