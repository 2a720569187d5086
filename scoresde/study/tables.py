"""The smaller tables of the report, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from ..metrics import Estimate
from .findings import TITLES, Findings
from .html import Html, html, join
from .summary import likelihood_text

__all__ = [
    "DASH",
    "best_table",
    "html_table",
    "label",
    "likelihood_table",
    "missing_table",
    "number",
]

DASH = "—"


def label(text: str) -> Html:
    """A sampler's label, which may break after a colon."""
    return join(text.split(":"), ":<wbr>")


def number(estimate: Estimate | None) -> str:
    """`value ± error`, with a true minus sign."""
    return DASH if estimate is None else str(estimate).replace("-", "−")


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    kinds: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
    caption: str = "",
) -> Html:
    """A table that scrolls where the window is narrower.

    Args:
        head: Titles of the columns; empty for a table without.
        rows: Cells, text or `Html`.
        kinds: Class of each column: "n" for numbers, "wrap" for long text, "" else.
        keys: Key of the cell that each row is about.
        caption: Text below.
    """
    kinds = kinds or [""] * len(rows[0])
    titles = zip(head, kinds[: len(head)], strict=True)
    top = join(html('<th scope="col" class="{}">{}</th>', kind, title) for title, kind in titles)
    lines = []
    for row, key in zip(rows, keys or [""] * len(rows), strict=True):
        cells = zip(kinds, row, strict=True)
        line = join(html('<td class="{}">{}</td>', kind, value) for kind, value in cells)
        lines.append(html('<tr data-cell="{}">{}</tr>', key, line) if key else _tr(line))
    top = html("<thead>{}</thead>", _tr(top)) if head else ""
    below = html('\n<p class="note">{}</p>', caption) if caption else ""
    table = html("<table>{}<tbody>{}</tbody></table>", top, join(lines))
    return html('<div class="scroll">{}</div>{}', table, below)


def _tr(cells: Html) -> Html:
    return html("<tr>{}</tr>", cells)


def best_table(findings: Findings) -> Html:
    """The best cell of each budget by MMD² and by paired error, and its equals within error."""
    metrics = [m for m in ("mmd2", "paired_rmse") if any(m in r.metrics for r in findings.done)]
    budgets = [b for b in findings.budgets if any(findings.best(b, m) for m in metrics)]
    if not budgets:
        return html("")
    head, kinds = ["NFE ≤"], ["n"]
    for metric in metrics:
        head += [f"best {TITLES[metric]}", "not told from it"]
        kinds += ["wrap", "wrap"]
    rows = []
    for budget in budgets:
        row = [str(budget)]
        for metric in metrics:
            found = findings.best(budget, metric)
            if found is None:
                row += [DASH, DASH]
                continue
            first, close = found
            value = html(" <b>{}</b>", number(first.metrics[metric]))
            below = ", below real data" if findings.below_floor(first, metric) else ""
            row.append(join([label(findings.name(first)), value, below]))
            row.append(join((label(findings.name(r)) for r in close), ", ") or "none")
        rows.append(row)
    caption = (
        "“Not told from it”: within two standard errors of the difference, as if the cells were "
        "independent; their common noise makes them less so."
    )
    return html_table(head, rows, kinds, caption=caption)


def missing_table(findings: Findings) -> Html:
    """Cells without a result, with the reason."""
    cells = [r for r in findings.results if r.status != "done"]
    if not cells:
        return html("")
    rows = [[label(r.sampler), r.grid or DASH, r.settings, r.status, r.reason] for r in cells]
    head = ["sampler", "grid", "asked", "status", "reason"]
    table = html_table(head, rows, ["name", "", "", "", "wrap"], keys=[r.key for r in cells])
    return html("<h3>Cells without a result</h3>\n{}", table)


def likelihood_table(findings: Findings) -> Html:
    """Mean and protocol of the likelihood; empty if it was not measured."""
    found = findings.likelihood
    if found is None:
        return html("")
    rows = [
        ["mean ± standard error", html("<b>{}</b>", likelihood_text(findings))],
        ["protocol", found["protocol"]],
        ["data", f"{found['n']} of {found['of']} in the {found['split']} split of {found['data']}"],
        ["method", found["method"]],
        ["trace", found["trace"]],
        ["t_min", f"{found['t_min']:g}"],
        ["evaluations", f"{found['nfe']:.0f} per datum"],
        ["derivative passes", f"{found['nfe_derivative']:.0f} per datum"],
        ["seconds", f"{found['seconds']:.1f}"],
        ["seed", str(found["seed"])],
    ]
    own, bound = "nodes and trace probes", ""
    if found["levels"] is not None:
        rows.insert(3, ["levels", f"{found['levels']}, draws per datum: {found['draws']}"])
        own = f"a dequantization, {own}"
        bound = "Dequantized bits/dim bound those of the discrete model from above. "
    note = (
        "The number is the negative log-likelihood per dimension: smaller is better, and it may be "
        f"negative for continuous data. Each datum has {own} of its own, so the standard error "
        f"covers the choice of the data and all of these. {bound}What else is known of the errors "
        "is in likelihood/budget.txt."
    )
    title = "<h2>Negative log-likelihood</h2>\n{}\n"
    return html(title + '<p class="note">{}</p>', html_table([], rows), note)
