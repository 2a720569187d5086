"""The answer of a comparison as a table: for each budget the settings to take, and how sure it is.

The page, the index of several cases, and the tables in Markdown and LaTeX show these rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import NamedTuple

from ..grid import GRIDS
from ..names.guidance import parse_guidance
from ..names.samplers import SAMPLERS
from .findings import Findings
from .labels import RECOMMENDED
from .metric_table import METRICS
from .ranking import Answer
from .records import CellResult
from .summary import answer_sentence, interval_text, short_name

__all__ = ["AnswerRow", "answer_rows", "copied_settings", "explained"]


class AnswerRow(NamedTuple):
    """The answer within one budget, as text.

    Attributes:
        budget: The budget, in evaluations per sample.
        name: Sampler of the cell to take, with its grid if there are several.
        detail: What "recommended" means within this budget; empty for other cells.
        settings: A command, or for a model that is an object a line of Python, that draws samples
            with the same settings.
        metric: Title of the metric of the values.
        value: Value of the cell with its 95 % interval.
        like_data: Whether the cell is not shown to be worse than real data by this metric.
        next: Name of the best cell that is shown to be worse; empty without one.
        gain: Value of `next` minus that of the cell, with its interval; empty without `next`.
        factor: The ratio of these values with its interval; empty without one.
        ties: Names of the other cells that lead by the same metrics.
        disagreement: Whether two metrics contradict each other.
        sentence: The row as a sentence.
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
    sentence: str


def answer_rows(findings: Findings) -> list[AnswerRow]:
    """One row for each budget whose cells a metric ranks, in increasing order."""
    found = [(budget, findings.answer(budget)) for budget in findings.budgets]
    return [_row(findings, budget, answer) for budget, answer in found if answer is not None]


def _row(findings: Findings, budget: int, found: Answer) -> AnswerRow:
    cell, other = found.cell, found.next
    ranking = next(r for r in found.rankings if r.metric == found.metric)
    return AnswerRow(
        budget,
        short_name(findings, cell),
        f"{cell.setting} on {cell.grid}" if cell.setting else "",
        copied_settings(findings, cell),
        METRICS[found.metric].title,
        interval_text(cell.metrics[found.metric]),
        cell in ranking.at_floor,
        "" if other is None else short_name(findings, other),
        "" if found.gain is None else interval_text(found.gain),
        "" if found.factor is None else interval_text(found.factor),
        tuple(short_name(findings, tie) for tie in found.ties),
        bool(found.disagreements),
        answer_sentence(findings, budget),
    )


def explained(rows: Iterable[AnswerRow]) -> dict[str, str]:
    """Title and meaning of the metrics that some rows name."""
    text = " ".join(row.sentence for row in rows)
    return {m.title: m.meaning for m in METRICS.values() if m.title in text}


def copied_settings(findings: Findings, cell: CellResult) -> str:
    """The command that samples like a cell; for a model that is an object, a line of Python."""
    if findings.in_memory:
        return _python_line(findings, cell)
    words = ["scoresde", "sample", "--checkpoint", findings.settings["checkpoint"]]
    if (guidance := findings.settings.get("guidance")) is not None:
        words += ["--guidance", guidance]
    words += ["--nfe", str(cell.nfe_asked)]
    if cell.sampler != RECOMMENDED:
        words += ["--sampler", cell.sampler, "--grid", cell.grid]
        if cell.t_min is not None and not _own_end(cell):
            words += ["--t-min", f"{cell.t_min:g}"]
    return shlex.join(words)


def _python_line(findings: Findings, cell: CellResult) -> str:
    """A call of `scoresde.sample`; names of the user's own samplers and grids stand for these.

    With guidance, y stands for the conditions of the samples.
    """
    shape = (findings.settings["n"], *(findings.latent_shape or findings.spec.shape))
    model, given = "model", ""
    if (guidance := findings.settings.get("guidance")) is not None:
        model, given = parse_guidance(guidance).in_python("model"), ", y=y"
    if cell.sampler == RECOMMENDED:
        return f"scoresde.sample({model}, nfe={cell.nfe_asked}, shape={shape}{given})"
    sampler, grid = cell.sampler, cell.grid
    if sampler.partition(":")[0] in SAMPLERS:
        sampler = f"scoresde.parse_sampler({sampler!r})"
    if grid.partition(":")[0] in GRIDS:
        last = "" if cell.t_min is None or _own_end(cell) else f", {cell.t_min:g}"
        grid = f"scoresde.parse_grid({grid!r})(model.sde, {cell.steps}{last})"
    return f"scoresde.sample({model}, {sampler}, {grid}, shape={shape}{given})"


def _own_end(cell: CellResult) -> bool:
    """Whether the grid of a cell says its last time."""
    return "t_min=" in cell.grid or cell.grid.endswith(".json")
