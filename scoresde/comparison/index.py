"""The page and the table of a comparison of several cases, each in a subfolder of its own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .._files import atomic_write
from .._text import csv_text
from ..output.manifest import Origin
from ..output.result_folder import Output, ResultFolder
from .answers import AnswerRow, answer_rows, explained
from .case import Case
from .findings import Findings
from .records import COLUMNS, table_row
from .repeating import repeating_cases
from .report import render
from .request import BenchRequest
from .summary import remarks
from .tables import markdown_of_cases

__all__ = ["COMMAND", "Index", "case_columns", "rows_of"]

FILES = ("index.html", "results.csv", "results.md")
COMMAND = "bench of several models"  # in the manifest
CASE_COLUMNS = ("model", "seed", "labels")


@dataclass(frozen=True)
class Index:
    """The folder that holds the comparisons of several cases.

    Attributes:
        results: The folder.
        cases: What is special of each case, by name: its "model", "seed" and "labels".
    """

    results: ResultFolder
    cases: dict[str, dict[str, Any]]

    @classmethod
    def open(
        cls, out: Path, request: BenchRequest, cases: Mapping[str, Case], overwrite: bool
    ) -> Index:
        """Check the folder without changing it.

        Raises:
            ValueError: If it holds results of other cases, or files that scoresde did not write.
        """
        one = {name: asked for name, asked in request.cases.items() if name in cases}
        special = {
            name: {"model": asked.model[0], "seed": asked.seed, "labels": asked.shares}
            for name, asked in one.items()
        }
        contents = {name: case.whole.fingerprint for name, case in cases.items()}
        return cls.of(out, special, contents, overwrite)

    @classmethod
    def of(
        cls,
        out: Path,
        special: Mapping[str, dict[str, Any]],
        contents: Mapping[str, str],
        overwrite: bool,
    ) -> Index:
        """The folder for cases of known content: fingerprints by name; see `open`."""
        settings = {"models": list(special), "cases": dict(special)}
        origin = Origin(COMMAND, settings, cells=contents, shown=("models", "cases"))
        return cls(ResultFolder.open(out, origin, overwrite), dict(special))

    @property
    def page(self) -> Path:
        """Path of the page that links the reports."""
        return self.results.path / FILES[0]

    def write(self) -> AbstractContextManager[Output]:
        """Lock the folder while the cases are measured."""
        return self.results.write(FILES)

    def publish(self, output: Output, found: Mapping[str, tuple[Path, Findings]]) -> None:
        """Write the table and the page.

        Args:
            output: The locked folder.
            found: Report and results of each finished case, by name.
        """
        rows = rows_of({name: findings for name, (_, findings) in found.items()}, self.cases)
        columns = (*case_columns(self.cases), *COLUMNS)
        with atomic_write(output.work / "results.csv", "w") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(columns)
            table.writerows([_text(row[column]) for column in columns] for row in rows)
        findings = {name: each for name, (_, each) in found.items()}
        answers = _answers(found)
        pages = {
            "index.html": render(
                "index.html",
                cases=[_about(name, *each) for name, each in found.items()],
                rows=answers,
                terms=explained(answer.row for answer in answers),
                agreement=_agreement(answers),
                command=repeating_cases(findings, self.cases, self.results.path.absolute().name),
            ),
            "results.md": markdown_of_cases(
                [(a.case, a.row) for a in answers], _agreement(answers)
            ),
        }
        for name, text in pages.items():
            with atomic_write(output.work / name, "w") as file:
                file.write(text)
        output.publish()


class _CaseAnswer(NamedTuple):
    """The answer of one case within one budget, and the link to the report of the case."""

    case: str
    link: str
    row: AnswerRow


class _CaseAbout(NamedTuple):
    """What the index says of a case, and the link to its report."""

    name: str
    link: str
    about: str
    remarks: list[str]


def _about(name: str, report: Path, findings: Findings) -> _CaseAbout:
    settings = findings.settings
    data = f" of {findings.spec.name}" if findings.spec.name else ""
    about = f"{settings['checkpoint']}, {settings['n']} samples{data} per cell, seed "
    about += f"{settings['seed']}, {len(findings.done)} cells."
    return _CaseAbout(name, f"{quote(name)}/{report.name}", about, remarks(findings))


def _answers(found: Mapping[str, tuple[Path, Findings]]) -> list[_CaseAnswer]:
    """The answers of all cases, those of the smallest budget first."""
    answers = [
        _CaseAnswer(name, f"{quote(name)}/{report.name}", row)
        for name, (report, findings) in found.items()
        for row in answer_rows(findings)
    ]
    return sorted(answers, key=lambda answer: answer.row.budget)  # cases keep their order


def _agreement(answers: Sequence[_CaseAnswer]) -> list[str]:
    """For each budget, which sampler is to take in how many cases."""
    text = []
    for budget in dict.fromkeys(answer.row.budget for answer in answers):
        rows = [answer.row for answer in answers if answer.row.budget == budget]
        names = [row.name for row in rows]
        taken = []
        for name in sorted(set(names), key=lambda name: -names.count(name)):
            tied = sum(name in row.ties for row in rows)
            also = f" (and as good in {tied} more)" if tied else ""
            taken.append(f"{name} in {names.count(name)}{also}")
        text.append(f"Within {budget} evaluations take, of {len(rows)} cases, {', '.join(taken)}.")
    return text


def case_columns(cases: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What the cases differ in: some of "model", "seed" and "labels"."""
    return tuple(c for c in CASE_COLUMNS if len({case[c] for case in cases.values()}) > 1)


def rows_of(
    found: Mapping[str, Findings], cases: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One dict per cell, with the columns in which the cases differ before those of the cells."""
    columns: Iterable[str] = case_columns(cases)
    for name, findings in found.items():
        special = {column: cases[name][column] for column in columns}
        for result in findings.results:
            yield special | table_row(result)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return repr(value) if isinstance(value, float) else value
