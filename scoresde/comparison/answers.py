"""The answer of a comparison as a table: for each budget the settings to take, and how sure it is.

The page, the index of several cases, and the tables in Markdown and LaTeX show these rows.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from ..metrics import Estimate
from .findings import Findings
from .labels import RECOMMENDED
from .metric_table import METRICS
from .ranking import Answer
from .records import CellResult
from .summary import estimate_text, number_text, short_name

__all__ = ["AnswerRow", "answer_rows", "copied_settings", "interval_text"]


class AnswerRow(NamedTuple):
    """The answer within one budget, as text.

    Attributes:
        budget: The budget, in evaluations per sample.
        name: Sampler of the cell to take, with its grid if there are several.
        detail: What "recommended" means within this budget; empty for other cells.
        settings: A command or words from which the settings can be copied.
        metric: Title of the metric of the values.
        value: Value of the cell with its 95 % interval.
        like_data: Whether the cell is not shown to be worse than real data by this metric.
        next: Name of the best cell that is shown to be worse; empty without one.
        gain: Value of `next` minus that of the cell, with its interval; empty without `next`.
        factor: The ratio of these values with its interval; empty without one.
        ties: Names of the other cells that lead by the same metrics.
        disagreement: Whether two metrics contradict each other.
    """

    budget: int
    name: str
    detail: str
    settings: str
    metric: str
    value: str
    like_data: bool
    next: str
    gain: str
    factor: str
    ties: tuple[str, ...]
    disagreement: bool


def answer_rows(findings: Findings) -> list[AnswerRow]:
    """One row for each budget whose cells a metric ranks, in increasing order."""
    found = [(budget, findings.answer(budget)) for budget in findings.budgets]
    return [_row(findings, budget, answer) for budget, answer in found if answer is not None]


def _row(findings: Findings, budget: int, found: Answer) -> AnswerRow:
    cell, other = found.cell, found.next
    shown = cell.setting and not findings.in_memory  # otherwise the settings themselves say it
    ranking = next(r for r in found.rankings if r.metric == found.metric)
    return AnswerRow(
        budget,
        short_name(findings, cell),
        f"{cell.setting} on {cell.grid}" if shown else "",
        copied_settings(findings, cell),
        METRICS[found.metric].title,
        interval_text(cell.metrics[found.metric]),
        cell in ranking.at_floor,
        "" if other is None else short_name(findings, other),
        "" if found.gain is None else interval_text(found.gain),
        "" if found.factor is None else interval_text(found.factor),
        tuple(short_name(findings, tie) for tie in found.ties),
        bool(found.disagreements),
    )


def interval_text(estimate: Estimate) -> str:
    """`value (low to high)` with the 95 % interval, or the value alone if its error is unknown."""
    low, high = estimate.interval()
    if low != low or high != high:
        return estimate_text(estimate)
    value = estimate_text(estimate).partition(" ")[0]
    return f"{value} ({number_text(low)} to {number_text(high)})"


def copied_settings(findings: Findings, cell: CellResult) -> str:
    """The command that draws samples as a cell does; words for a model that is an object."""
    if findings.in_memory:
        last = "" if cell.t_min is None else f" to t = {cell.t_min:g}"
        name = cell.setting or cell.sampler
        return f"sampler {name}, grid {cell.grid}, {cell.steps} steps{last}"
    words = ["scoresde", "sample", "--checkpoint", findings.settings["checkpoint"]]
    words += ["--nfe", str(cell.nfe_asked)]
    if cell.sampler != RECOMMENDED:
        words += ["--sampler", cell.sampler, "--grid", cell.grid]
        own_end = "t_min=" in cell.grid or cell.grid.endswith(".json")
        if cell.t_min is not None and not own_end:
            words += ["--t-min", f"{cell.t_min:g}"]
    return shlex.join(words)
