"""The table of all cells, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..metrics import Estimate
from .findings import TITLES, Findings, tied
from .html import Html, html, join
from .records import Result
from .tables import DASH, label, number

__all__ = ["cell_table"]

CAPTION = (
    "Bold: the best of its group and all that are within two standard errors of it. NFE is "
    "counted, the final denoising included. Overhead is wall time over that of as many passes of "
    "the network alone."
)
FASTER = (
    " An overhead below 1 is timing noise: the cell and the passes of the network alone are timed "
    "one after the other."
)


def cell_table(findings: Findings) -> Html:
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
    top = join(
        html('<th scope="col" class="{}">{}</th>', "" if i < len(names) else "n", title)
        for i, title in enumerate(head)
    )
    table = "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    faster = any(cell.overhead is not None and cell.overhead < 1 for cell in findings.done)
    return html(
        '<h2>All cells</h2>\n<div class="scroll">{}</div>\n<p class="note">{}</p>',
        html(table, top, join(body)),
        CAPTION + FASTER * faster,
    )


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


def _title(text: str, columns: int) -> Html:
    return html('<tr><th colspan="{}" scope="rowgroup">{}</th></tr>', columns, text)


def _row(
    cell: Result, columns: Sequence[str], best: dict[str, Estimate | None], several: bool
) -> Html:
    steps = f"tol {cell.tolerance:g}" if cell.steps is None else str(cell.steps)
    row = [html('<td class="name">{}</td>', label(cell.sampler))]
    row += [html("<td>{}</td>", cell.grid or DASH)] if several else []
    row += [_number(steps), _number(cell.nfe)]
    for column in columns:
        estimate = cell.metrics.get(column)
        bold = estimate is not None and cell.tolerance is None and tied(estimate, best[column])
        value = number(estimate)
        row.append(_number(html("<b>{}</b>", value) if bold else value))
    overhead = DASH if cell.overhead is None else f"{cell.overhead:.2f}"
    row += [_number(f"{cell.seconds:.3g}"), _number(overhead)]
    return html('<tr data-cell="{}">{}</tr>', cell.key, join(row))


def _number(value: object) -> Html:
    return html('<td class="n">{}</td>', value)


def _floor(findings: Findings, columns: Sequence[str], names: int) -> list[Html]:
    """What real data score; empty without quality metrics."""
    floor = [findings.floor(column) for column in columns]
    if not any(floor):
        return []
    values = join(_number(number(estimate)) for estimate in floor)
    first = html('<td class="name" colspan="{}">{}</td>', names + 2, findings.quality["floor"])
    row = html("<tr>{}</tr>", join([first, values, _number(DASH), _number(DASH)]))
    return [_title("Real data", names + 4 + len(columns)), row]
