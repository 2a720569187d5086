"""The smaller tables of the report, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..metrics import Estimate
from .findings import TITLES, Findings
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


def label(text: str) -> str:
    """A sampler's label, which may break after a colon."""
    return escape(text).replace(":", ":<wbr>")


def number(estimate: Estimate | None) -> str:
    """`value ± error`, with a true minus sign."""
    return DASH if estimate is None else escape(str(estimate)).replace("-", "−")


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    kinds: Sequence[str] = (),
    *,
    keys: Sequence[str] = (),
    caption: str = "",
) -> str:
    """A table that scrolls where the window is narrower.

    Args:
        head: Titles of the columns, plain text; empty for a table without.
        rows: Cells as HTML.
        kinds: Class of each column: "n" for numbers, "wrap" for long text, "" else.
        keys: Key of the cell that each row is about.
        caption: Text below, plain.
    """
    kinds = kinds or [""] * len(rows[0])
    classes = [f' class="{kind}"' if kind else "" for kind in kinds]
    titles = zip(head, classes[: len(head)], strict=True)
    top = "".join(f'<th scope="col"{c}>{escape(title)}</th>' for title, c in titles)
    lines = []
    for i, row in enumerate(rows):
        key = f' data-cell="{escape(keys[i])}"' if keys else ""
        cells = "".join(f"<td{c}>{value}</td>" for value, c in zip(row, classes, strict=True))
        lines.append(f"<tr{key}>{cells}</tr>")
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    below = f"\n<p class='note'>{escape(caption)}</p>" if caption else ""
    table = f"<table>{top}<tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll">{table}</div>{below}'


def best_table(findings: Findings) -> str:
    """The best cell of each budget by MMD² and by paired error, and its equals within error."""
    metrics = [m for m in ("mmd2", "paired_rmse") if any(m in r.metrics for r in findings.done)]
    budgets = [b for b in findings.budgets if any(findings.best(b, m) for m in metrics)]
    if not budgets:
        return ""
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
            row.append(f"{label(findings.name(first))} <b>{number(first.metrics[metric])}</b>")
            row.append(", ".join(label(findings.name(r)) for r in close) or "none")
        rows.append(row)
    caption = (
        "“Not told from it”: within two standard errors of the difference, as if the cells were "
        "independent; their common noise makes them less so."
    )
    return html_table(head, rows, kinds, caption=caption)


def missing_table(findings: Findings) -> str:
    """Cells without a result, with the reason."""
    cells = [r for r in findings.results if r.status != "done"]
    if not cells:
        return ""
    rows = [
        [label(r.sampler), r.grid or DASH, r.settings, r.status, escape(r.reason)] for r in cells
    ]
    head = ["sampler", "grid", "asked", "status", "reason"]
    table = html_table(head, rows, ["name", "", "", "", "wrap"], keys=[r.key for r in cells])
    return f"<h3>Cells without a result</h3>\n{table}"


def likelihood_table(findings: Findings) -> str:
    """Mean and protocol of the likelihood; empty if it was not measured."""
    found = findings.likelihood
    if found is None:
        return ""
    rows = [
        ["mean ± standard error", f"<b>{likelihood_text(findings)}</b>"],
        ["protocol", escape(found["protocol"])],
        ["data", f"{found['n']} of {found['of']} in the {found['split']} split of {found['data']}"],
        ["method", escape(found["method"])],
        ["trace", escape(found["trace"])],
        ["t_min", f"{found['t_min']:g}"],
        ["evaluations", f"{found['nfe']:.0f} per datum"],
        ["derivative passes", f"{found['nfe_derivative']:.0f} per datum"],
        ["seconds", f"{found['seconds']:.1f}"],
        ["seed", str(found["seed"])],
    ]
    if found["levels"] is not None:
        rows.insert(3, ["levels", f"{found['levels']}, draws per datum: {found['draws']}"])
    note = (
        "Each datum has a dequantization, nodes and trace probes of its own, so the standard error "
        "covers the choice of the data and all of these. Dequantized bits/dim bound those of the "
        "discrete model from above. What else is known of the errors is in likelihood/budget.txt."
    )
    return f"<h2>Likelihood</h2>\n{html_table([], rows)}\n<p class='note'>{note}</p>"
