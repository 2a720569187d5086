"""The page and the table of a comparison of several cases, each in a subfolder of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .._files import atomic_write
from .._text import csv_text
from ..output.manifest import MANIFEST, Manifest, Origin
from ..output.result_folder import Output, ResultFolder, claim
from .against_scale import scale_figure
from .answers import AnswerRow, answer_rows, explained
from .case import Case
from .checked import check_fields
from .findings import Findings
from .metric_table import METRICS
from .records import COLUMNS, table_row
from .repeating import repeating_cases
from .report import Picture, build_report, render
from .request import BenchRequest
from .seeds import SeedGroup, seed_groups
from .summary import fault, remarks
from .tables import markdown_of_cases

__all__ = ["COMMAND", "Index", "case_columns", "rebuild", "rows_of"]

PAGES = ("index.html", "results.md")
TABLE, MEANS = "results.csv", "seeds.csv"
FILES = (*PAGES, TABLE, MEANS)
COMMAND = "bench of several models"  # in the manifest
CASE_COLUMNS = {"model": str, "seed": int, "labels": str | None, "guidance": str | None}
ADDED = ("guidance",)  # columns that folders of earlier versions do not have


@dataclass(frozen=True)
class Index:
    """The folder that holds the comparisons of several cases.

    Attributes:
        results: The folder.
        cases: What is special of each case, by name: its "model", "seed" and "labels", and
            "guidance" if there is some.
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
            | ({} if asked.guide is None else {"guidance": asked.guide})
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
        name = self.results.path.absolute().name
        for file_name, text in _contents(found, self.cases, name).items():
            with atomic_write(output.work / file_name, "w") as file:
                file.write(text)
        output.publish(later=PAGES)


def rebuild(folder: Path) -> Path:
    """Write the pages of a comparison again from its files: of one case, or of several.

    Args:
        folder: Folder of `scoresde bench` or `scoresde demo`.

    Returns:
        The path of report.html, or for several cases of index.html.

    Raises:
        FileNotFoundError: If the folder holds no finished comparison.
        ValueError: As for `build_report`.
    """
    manifest = (folder / MANIFEST).is_file() and Manifest.read(folder)
    if not manifest or manifest.settings.get("command") != COMMAND:
        return build_report(folder)
    where = f"{folder / MANIFEST}: settings"
    if "cases" not in manifest.settings:
        raise ValueError(
            f"{folder} holds several comparisons of an earlier version; give one of its subfolders"
        )
    cases = check_fields(manifest.settings, {"cases": dict}, where)["cases"]
    for name, case in cases.items():
        if Path(name).name != name:
            raise ValueError(f"{where}.cases: a name of a case must be a folder here, got {name!r}")
        wanted = {
            key: kind for key, kind in CASE_COLUMNS.items() if key not in ADDED or key in case
        }
        check_fields(case, wanted, f"{where}.cases.{name}")
    there = [name for name in cases if (folder / name / MANIFEST).is_file()]
    found = {name: (build_report(folder / name), Findings.read(folder / name)) for name in there}
    contents = _contents(found, cases, folder.absolute().name)
    names = [name for name in contents if name != TABLE]  # seconds are not measured again
    claim(folder, names)
    known = Manifest.read(folder)
    replace(known, files=known.files | dict.fromkeys(names)).save(folder)  # their bytes may change
    for name in names:
        with atomic_write(folder / name, "w") as file:
            file.write(contents[name])
    return folder / PAGES[0]


def _contents(
    found: Mapping[str, tuple[Path, Findings]], cases: Mapping[str, Mapping[str, Any]], out: str
) -> dict[str, str]:
    """The text of each file of an index.

    Args:
        found: Report and results of each finished case, by name.
        cases: What is special of each case, by name.
        out: Name of the folder.
    """
    findings = {name: each for name, (_, each) in found.items()}
    links = {name: f"{quote(name)}/{report.name}" for name, (report, _) in found.items()}
    groups = seed_groups(findings, cases)
    joined = [group for group in groups if group.joined]
    answers, agreement = _answers(groups, links), _agreement(findings, bool(joined))
    means = [row for group in joined for row in group.means()]
    titles = [METRICS[metric].title for metric in joined[0].findings.measured] if joined else []
    page = render(
        "index.html",
        cases=[_about(name, links[name], each) for name, each in findings.items()],
        rows=answers,
        terms=explained(answer.row for answer in answers),
        agreement=agreement,
        means=means,
        titles=titles,
        command=repeating_cases(findings, cases, out),
        scales=_against_scale(groups, cases),
    )
    pairs = [(answer.case, answer.row) for answer in answers]
    table = markdown_of_cases(pairs, agreement, titles, means)
    columns = (*case_columns(cases), *COLUMNS)
    texts = {"index.html": page, "results.md": table}
    texts[TABLE] = _csv(columns, rows_of(findings, cases))
    if joined:
        rows = (row for group in joined for row in group.rows())
        texts[MEANS] = _csv(joined[0].columns, rows)
    return texts


def _against_scale(
    groups: Sequence[SeedGroup], cases: Mapping[str, Mapping[str, Any]]
) -> Picture | None:
    """The figure of several scales of guidance."""
    several = {case.get("guidance") for case in cases.values()} - {None}
    figure = scale_figure(groups, cases) if len(several) > 1 else None
    if figure is None:
        return None
    alt = "Quality and diversity against the scale of guidance; the values are in results.csv."
    return Picture(alt, "The recommended settings at each scale", drawing=figure.inline)


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([_text(row.get(c)) for c in columns] for row in rows)
    return text.getvalue()


class _CaseAnswer(NamedTuple):
    """The answer of one case within one budget, and the link to the report of the case.

    For several seeds, `case` says how many, the link leads to the list of cases, and `spread` says
    between which values those of the single seeds are.
    """

    case: str
    link: str
    row: AnswerRow
    spread: str


class _CaseAbout(NamedTuple):
    """What the index says of a case, and the link to its report."""

    name: str
    link: str
    about: str
    remarks: list[str]


def _about(name: str, link: str, findings: Findings) -> _CaseAbout:
    settings = findings.settings
    data = f" of {findings.spec.name}" if findings.spec.name else ""
    about = f"{settings['checkpoint']}, {settings['n']} samples{data} per cell, seed "
    about += f"{settings['seed']}, {len(findings.done)} cells."
    about += f" Guidance {settings['guidance']}." if "guidance" in settings else ""
    return _CaseAbout(name, link, about, list(filter(None, [fault(findings), *remarks(findings)])))


def _answers(groups: Iterable[SeedGroup], links: Mapping[str, str]) -> list[_CaseAnswer]:
    """The answers of all cases, those of several seeds as one, of the smallest budget first."""
    answers = []
    for group in groups:
        link = "#cases" if group.joined else links[group.name]
        for row in answer_rows(group.findings):
            found = group.findings.answer(row.budget)
            spread = group.spread_text(found.cell, found.metric) if group.joined else ""
            answers.append(_CaseAnswer(group.name, link, row, spread))
    return sorted(answers, key=lambda answer: answer.row.budget)  # cases keep their order


def _agreement(found: Mapping[str, Findings], joined: bool) -> list[str]:
    """For each budget, which sampler is to take in how many cases.

    Args:
        found: The results of each case, by name.
        joined: Whether the table that follows joins cases.
    """
    answers = [row for findings in found.values() for row in answer_rows(findings)]
    text = []
    for budget in sorted({row.budget for row in answers}):
        rows = [row for row in answers if row.budget == budget]
        names = [row.name for row in rows]
        taken = []
        for name in sorted(dict.fromkeys(names), key=lambda name: -names.count(name)):
            tied = sum(name in row.ties for row in rows)
            also = f" (in {tied} more it is as good)" if tied else ""
            taken.append(f"{name} in {names.count(name)} of {len(rows)} cases{also}")
        alone = ", if each case is taken by itself," if joined else ""
        text.append(f"Within {budget} evaluations{alone} take {', '.join(taken)}.")
    return text


def case_columns(cases: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """What the cases differ in: some of "model", "seed", "labels" and "guidance"."""
    return tuple(c for c in CASE_COLUMNS if len({case.get(c) for case in cases.values()}) > 1)


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
