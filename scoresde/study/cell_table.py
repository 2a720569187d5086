"""The table of all cells, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..metrics import Estimate
from .findings import TITLES, Findings, tied
from .records import Result
from .tables import DASH, label, number

__all__ = ["cell_table"]

CAPTION = (
    "Bold: the best of its group and all that are within two standard errors of it. NFE is "
    "counted, the final denoising included. Overhead is wall time over that of as many passes of "
    "the network alone."
)
NUMBER = ' class="n"'


def cell_table(findings: Findings) -> str:
    """Every measured cell, grouped by budget, the best quality first; real data last."""
    columns = [*findings.metrics(), *(["paired_rmse"] if findings.reference else [])]
    several = len(findings.settings["grids"]) > 1
    names = ["sampler", *(["grid"] if several else [])]
    head = [*names, "steps", "NFE", *(TITLES[c] for c in columns), "seconds", "overhead"]
    body = []
    for title, cells in _groups(findings, (*columns, "")[0]):
        body.append(_title(title, len(head)))
        best = {column: _least(cells, column) for column in columns}
        body += [_row(cell, columns, best, several) for cell in cells]
    body += _floor(findings, columns, len(names))
    top = "".join(
        f'<th scope="col"{"" if i < len(names) else NUMBER}>{escape(title)}</th>'
        for i, title in enumerate(head)
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<h2>All cells</h2>\n<div class="scroll">{table}</div>\n<p class="note">{CAPTION}</p>'


def _groups(findings: Findings, order: str) -> Iterable[tuple[str, list[Result]]]:
    """Measured cells by budget, ordered by the metric; then those of adaptive methods."""

    def rank(cell: Result) -> float:
        return cell.metrics[order].value if order in cell.metrics else cell.nfe

    for budget in findings.budgets:
        cells = [r for r in findings.done if r.nfe_asked == budget]
        if cells:
            yield f"NFE ≤ {budget}", sorted(cells, key=rank)
    adaptive = [r for r in findings.done if r.tolerance is not None]
    if adaptive:
        yield "Adaptive, one cell per tolerance", adaptive


def _least(cells: Sequence[Result], metric: str) -> Estimate | None:
    estimates = [cell.metrics[metric] for cell in cells if metric in cell.metrics]
    return min(estimates, key=lambda estimate: estimate.value, default=None)


def _title(text: str, columns: int) -> str:
    return f'<tr><th colspan="{columns}" scope="rowgroup">{escape(text)}</th></tr>'


def _row(
    cell: Result, columns: Sequence[str], best: dict[str, Estimate | None], several: bool
) -> str:
    steps = f"tol {cell.tolerance:g}" if cell.steps is None else str(cell.steps)
    row = f'<td class="name">{label(cell.sampler)}</td>'
    row += f"<td>{escape(cell.grid) or DASH}</td>" if several else ""
    row += f"<td{NUMBER}>{steps}</td><td{NUMBER}>{cell.nfe}</td>"
    for column in columns:
        estimate = cell.metrics.get(column)
        bold = estimate is not None and cell.tolerance is None and tied(estimate, best[column])
        value = f"<b>{number(estimate)}</b>" if bold else number(estimate)
        row += f"<td{NUMBER}>{value}</td>"
    overhead = DASH if cell.overhead is None else f"{cell.overhead:.2f}"
    row += f"<td{NUMBER}>{cell.seconds:.3g}</td><td{NUMBER}>{overhead}</td>"
    return f'<tr data-cell="{escape(cell.key)}">{row}</tr>'


def _floor(findings: Findings, columns: Sequence[str], names: int) -> list[str]:
    """What real data score; empty without quality metrics."""
    floor = [findings.floor(column) for column in columns]
    if not any(floor):
        return []
    values = "".join(f"<td{NUMBER}>{number(estimate)}</td>" for estimate in floor)
    about = escape(findings.quality["floor"])
    row = f'<tr><td class="name" colspan="{names + 2}">{about}</td>{values}'
    row += f"<td{NUMBER}>{DASH}</td><td{NUMBER}>{DASH}</td></tr>"
    return [_title("Real data", names + 4 + len(columns)), row]
