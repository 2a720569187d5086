"""The tables of a comparison in Markdown and in LaTeX, for notes and papers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from .._text import printable
from .answers import AnswerRow, answer_rows
from .findings import Findings
from .metric_table import METRICS
from .records import CellResult
from .seeds import MeanRow
from .summary import estimate_text, sentences

__all__ = ["latex", "markdown", "markdown_of_cases"]

TEX = {  # characters that LaTeX reads as commands, and those of our own titles
    **{c: rf"\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"±": r"$\pm$", "−": "$-$", "≤": r"$\le$", "→": r"$\to$", "∞": r"$\infty$"},
    **{"²": "$^2$", "₂": "$_2$", "·": r"$\cdot$", "—": "---", "×": r"$\times$"},
}


def markdown(findings: Findings) -> str:
    """The answer, the summary and all cells as Markdown, as GitHub shows it."""
    rows = answer_rows(findings)
    parts = [_answer_table([[]] * len(rows), rows)] if rows else []
    parts.append("\n".join(f"- {_plain(sentence)}" for sentence in sentences(findings)))
    cells = [
        [f"**{text}**" if bold else text for text, bold in _marked(findings, cell, _plain)]
        for cell in findings.done
    ]
    parts.append(_markdown_table(list(map(_plain, _head(findings))), cells))
    parts.append("Values are estimates ± one standard error. Bold: the best, and as good.")
    return "\n\n".join(parts) + "\n"


def markdown_of_cases(
    answers: Sequence[tuple[str, AnswerRow]],
    agreement: Iterable[str],
    titles: Sequence[str] = (),
    means: Sequence[MeanRow] = (),
) -> str:
    """The answers of several cases as Markdown.

    Args:
        answers: Case and answer, in the order of the rows.
        agreement: Sentences on all cases.
        titles: Titles of the metrics of `means`.
        means: The means over the seeds.
    """
    parts = ["\n".join(f"- {_plain(sentence)}" for sentence in agreement)]
    if answers:
        cases, rows = zip(*answers, strict=True)
        parts.append(_answer_table([[case] for case in cases], rows, ["case"]))
    if means:
        cells = [
            [row.case, str(row.budget), row.name, *map("; ".join, row.values)] for row in means
        ]
        head = ["case", "NFE ≤", "sampler", *titles]
        parts.append(_markdown_table(head, [list(map(_plain, row)) for row in cells]))
        parts.append("Values of the last table are means over the seeds with the 95 % interval.")
    return "\n\n".join(parts) + "\n"


def _answer_table(
    before: Sequence[Sequence[str]], rows: Sequence[AnswerRow], names: Sequence[str] = ()
) -> str:
    """The answers, with columns before them."""
    head = ["NFE ≤", "take", "metric", "value (95 % interval)", "next", "worse by", "as good"]
    cells = [
        [*first, str(r.budget), r.name, r.metric, r.value, r.next or "—", r.gain or "—"]
        + [", ".join(r.ties) or "no other"]
        for first, r in zip(before, rows, strict=True)
    ]
    return _markdown_table([*names, *head], [list(map(_plain, row)) for row in cells])


def latex(findings: Findings) -> str:
    r"""All cells as a tabular of LaTeX; it needs \usepackage{booktabs}."""
    head = _head(findings)
    names = 2 if findings.several_grids else 1
    groups = [findings.within(budget) for budget in findings.budgets]
    lines = [
        r"% needs \usepackage{booktabs}; estimates with one standard error; bold: not shown to be",
        r"% worse than the best within the same number of evaluations",
        rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(head) - names)}}}",
        r"\toprule",
        _tex_row(map(_tex, head)),
    ]
    for cells in filter(None, [*groups, findings.adaptive]):
        lines.append(r"\midrule")
        for cell in cells:
            marked = _marked(findings, cell, _tex)
            lines.append(_tex_row(rf"\textbf{{{text}}}" if bold else text for text, bold in marked))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _head(findings: Findings) -> list[str]:
    grid = ["grid"] if findings.several_grids else []
    titles = [METRICS[name].title for name in findings.columns]
    return ["sampler", *grid, "steps", "NFE", *titles, "seconds"]


def _marked(
    findings: Findings, cell: CellResult, escape: Callable[[str], str]
) -> list[tuple[str, bool]]:
    """The escaped texts of a row, and whether each is one of the best of its budget."""
    grid = [cell.grid or "—"] if findings.several_grids else []
    steps = f"tol {cell.tolerance:g}" if cell.steps is None else str(cell.steps)
    texts = [findings.sampler(cell), *grid, steps, str(cell.nfe)]
    row = [(escape(text), False) for text in texts]
    for name in findings.columns:
        text = escape(estimate_text(cell.metrics.get(name)))
        row.append((text, findings.leads(cell, name)))
    return [*row, (f"{cell.seconds:.3g}", False)]


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown does not read as marks or as HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", printable(text))


def _tex_row(texts: Iterable[str]) -> str:
    return rf"{' & '.join(texts)} \\"


def _tex(text: str) -> str:
    """Text that LaTeX does not read as commands."""
    return "".join(TEX.get(c, c) for c in printable(text))
