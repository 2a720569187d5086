"""The results of a comparison in words; every statement respects the standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..metrics import Estimate
from .findings import Findings, tied
from .metric_table import METRICS
from .records import CellResult

__all__ = ["estimate_text", "likelihood_text", "sentences", "text_table"]

SNAPPED = (
    "The network's labels are rounded: grids are moved to its discrete times, and there is no ODE "
    "solution to compare with."
)


def sentences(findings: Findings) -> list[str]:
    """The summary of a comparison, sentence by sentence."""
    text = [_of_cells(findings)]
    if findings.quality is not None:
        text += [_of_budget(findings, budget) for budget in _ends(findings.budgets)]
        text.append(_of_floor(findings))
    text.append(_of_solvers(findings))
    text.append(_of_recommended(findings))
    if findings.likelihood is not None:
        n, split = findings.likelihood["n"], findings.likelihood["split"]
        which = "data" if split == "all" else "held-out data"
        text.append(f"The negative log-likelihood of {n} {which} is {likelihood_text(findings)}.")
    return [sentence for sentence in text if sentence]


def estimate_text(estimate: Estimate | None) -> str:
    """`value ± error` with a true minus sign; a dash if there is no estimate."""
    return "—" if estimate is None else str(estimate).replace("-", "−")


def likelihood_text(findings: Findings) -> str:
    """Mean ± standard error with its unit; a dash without a measurement."""
    found = findings.likelihood
    if found is None:
        return estimate_text(None)
    error = math.nan if found["std_error"] is None else found["std_error"]
    value = Estimate(found["mean"], error, (found["n"],), "")
    return f"{value} {found['unit']}"


def text_table(findings: Findings) -> str:
    """All cells as a table of plain text."""
    names = findings.columns
    rows = [["sampler", "grid", "asked", "NFE", *names, "seconds"]]
    for cell in findings.done:
        limit = f"{cell.tolerance:g}" if cell.nfe_asked is None else str(cell.nfe_asked)
        values = [str(cell.metrics[name]) if name in cell.metrics else "-" for name in names]
        name = findings.sampler(cell)
        rows.append([name, cell.grid, limit, str(cell.nfe), *values, f"{cell.seconds:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    lines += [f"{c.status}: {c.sampler} {c.grid} {c.asked}: {c.reason}" for c in findings.missing]
    if findings.settings.get("snapped"):
        lines.append(SNAPPED)
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """One row of the table: names aligned left, numbers aligned right."""
    cells = zip(row, widths, strict=True)
    texts = [text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(cells)]
    return "  ".join(texts).rstrip()


def _of_cells(findings: Findings) -> str:
    done, rest = len(findings.done), len(findings.missing)
    text = f"{_count(len(findings.samplers), 'sampler')} in {_count(done, 'cell')}, each of "
    text += f"n = {findings.settings['n']} samples from the same noise."
    if findings.settings.get("snapped"):
        text += f" {SNAPPED}"
    return text + (f" {_count(rest, 'more cell')} could not run." if rest else "")


def _of_budget(findings: Findings, budget: int) -> str:
    found = findings.best(budget, "mmd2")
    if found is None:
        return ""
    first, close = found
    text = f"Within {budget} evaluations {findings.name(first)} has the smallest MMD² "
    below = ", below real data" if findings.below_floor(first, "mmd2") else ""
    text += f"({estimate_text(first.metrics['mmd2'])}{below})"
    if close:
        verb = "is" if len(close) == 1 else "are"
        return f"{text}, but {_names(findings, close)} {verb} within two standard errors of it."
    if len(findings.ranking(budget, "mmd2")) == 1:
        return f"{text}."
    return f"{text}, ahead of all others by more than two standard errors."


def _of_floor(findings: Findings) -> str:
    floor, reached = findings.floor.get("mmd2"), findings.at_floor("mmd2")
    if floor is None:
        return ""
    text = f"The MMD² of real data is {estimate_text(floor)} ({findings.quality['floor']})"
    if not reached:
        return f"{text}; no cell comes within two standard errors of that."
    cheapest = min(reached, key=lambda cell: cell.nfe)
    verb = "is" if len(reached) == 1 else "are"
    text = (
        f"{text}; {len(reached)} of {_count(len(findings.done), 'cell')} {verb} within two "
        f"standard errors of that or below it, the cheapest {findings.name(cheapest)} with "
        f"{_count(cheapest.nfe, 'evaluation')}."
    )
    below = [cell for cell in reached if not tied(cell.metrics["mmd2"], floor)]
    if below:
        text += f" {_count(len(below), 'cell')} below it by more than two standard errors, closer "
        text += "to the training data than unseen data are: a sign of copying."
    return text


def _of_solvers(findings: Findings) -> str:
    parts = []
    for budget in _ends(findings.budgets):
        found = findings.best(budget, "paired_rmse")
        if found is not None:
            first, close = found
            tie = f", tied with {_names(findings, close)}" if close else ""
            parts.append(
                f"{findings.name(first)} within {budget} ({first.metrics['paired_rmse']}{tie})"
            )
    if not parts:
        return ""
    return f"Closest to the exact solution of the ODE from the same noise: {'; '.join(parts)}."


def _of_recommended(findings: Findings) -> str:
    """The recommended settings of the smallest and largest budget, and what beat them."""
    parts = []
    for budget in _ends(findings.budgets):
        cell = findings.recommended(budget)
        if cell is None:
            continue
        beaten = [
            f"{findings.name(first)} in {METRICS[metric].title} "
            f"({estimate_text(first.metrics[metric])} against "
            f"{estimate_text(cell.metrics[metric])})"
            for metric in findings.measured
            if metric in ("mmd2", "paired_rmse")
            for first in findings.ahead(cell, metric)[:1]
        ]
        by = f"beaten by {' and by '.join(beaten)}" if beaten else "not beaten"
        parts.append(f"within {budget} evaluations {cell.setting} on {cell.grid}, {by}")
    if not parts:
        return ""
    return f"Recommended settings: {'; '.join(parts)}."


def _ends(values: Sequence[int]) -> list[int]:
    return sorted({values[0], values[-1]}) if values else []


def _names(findings: Findings, cells: Sequence[CellResult], most: int = 3) -> str:
    names = [findings.name(cell) for cell in cells]
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
