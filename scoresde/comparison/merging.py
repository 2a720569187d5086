"""`scoresde merge`: one comparison from the folders of its shares; no network is run.

The folders must hold parts of one plan: the same settings, contents and cells. Together they must
have every cell. The result has the files of a single run, which differ from it only in seconds,
memory and the machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..output.files import read_json
from ..output.manifest import MANIFEST, Manifest, Origin
from ..output.result_folder import ResultFolder, check_whole
from .case import TABLES
from .findings import Findings
from .index import COMMAND, Index
from .origin import LIKELIHOOD, PLAN, SHOWN_SETTINGS
from .records import RESULTS, CellResult, read_results, write_tables
from .report import build_report, report_files

__all__ = ["merge"]

SHOWN_MISSING = 5  # names of missing cells in a message
SAME = ("n", "features", "x_init_sha256")  # of all measured cells of a case


def merge(folders: Sequence[Path], out: Path, overwrite: bool = False) -> Path:
    """Join the folders that `scoresde bench --shard i/n` made into one comparison.

    Args:
        folders: The folders of all shares, in any order.
        out: Folder for the whole comparison.
        overwrite: Replace other results in the folder.

    Returns:
        The path of report.html, or for several cases of index.html.

    Raises:
        FileNotFoundError: If a folder holds no finished share.
        ValueError: If the folders are not parts of one plan, if cells are missing, if a file is
            damaged, or if `out` holds other results.
    """
    tops = {folder: Manifest.read(folder) for folder in folders}
    several = {manifest.settings.get("command") == COMMAND for manifest in tops.values()}
    if len(several) > 1:
        raise ValueError("the folders do not belong together: some hold several cases, some one")
    if several == {False}:
        return _Merged.of([_Part.read(folder) for folder in folders]).write(out, overwrite)
    first, special = folders[0], tops[folders[0]].settings["cases"]
    for folder, manifest in tops.items():
        there = Origin(COMMAND, tops[first].settings, cells=tops[first].cells)
        _refuse_difference(manifest.difference(there), folder, first)
    merged = {
        name: _Merged.of(
            [_Part.read(f / name) for f in folders if (f / name / MANIFEST).is_file()], name
        )
        for name in special
    }
    index = Index.of(out, special, tops[first].cells, overwrite)
    with index.write() as output:
        found = {}
        for name, case in merged.items():
            found[name] = case.write(out / name, overwrite), Findings.read(out / name)
        index.publish(output, found)
    return index.page


def _refuse_difference(different: str | None, folder: Path, first: Path) -> None:
    if different is not None:
        raise ValueError(f"{folder} is not a part of the same comparison as {first}: {different}")


@dataclass(frozen=True)
class _Part:
    """The results of one share of a case.

    Attributes:
        folder: Its folder.
        manifest: The content of scoresde.json.
        results: The finished cells.
        tables: The plain data of results.json.
    """

    folder: Path
    manifest: Manifest
    results: list[CellResult]
    tables: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> _Part:
        """Read and check a folder; see `merge`."""
        check_whole(folder)
        results, _ = read_results(folder)
        return cls(folder, Manifest.read(folder), results, read_json(folder / RESULTS))

    @property
    def plan(self) -> dict[str, str]:
        """Fingerprint of every cell of the whole plan, by name."""
        return self.manifest.settings.get(PLAN) or self.manifest.cells

    @property
    def whole(self) -> Origin:
        """The origin of the whole comparison, to which this part says it belongs."""
        settings = {k: v for k, v in self.manifest.settings.items() if k != PLAN}
        command, sources = settings["command"], self.manifest.sources
        return Origin(command, settings, sources, self.plan, SHOWN_SETTINGS)


@dataclass(frozen=True)
class _Merged:
    """All parts of one case, which belong together and are complete."""

    parts: list[_Part]

    @classmethod
    def of(cls, parts: list[_Part], name: str = "") -> _Merged:
        """Check that the parts belong together and have every cell; see `merge`."""
        if not parts:
            raise ValueError(f"no folder holds results of the case {name}")
        first, made = parts[0], cls(parts)
        for part in parts[1:]:
            both = replace(first.whole, cells=part.plan)
            different = part.manifest.difference(both)
            if different is None and part.plan != first.plan:
                different = f"the plans differ in {min(part.plan.items() ^ first.plan.items())[0]}"
            _refuse_difference(different, part.folder, first.folder)
        made._check_cells()
        return made

    @cached_property
    def results(self) -> dict[str, CellResult]:
        """The result of each cell by name; a measured one before one that failed."""
        found: dict[str, CellResult] = {}
        for result in (result for part in self.parts for result in part.results):
            if result.name not in found or found[result.name].status != "done":
                found[result.name] = result
        return found

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of results.json from the first part that has each."""
        tables = {"settings": self.parts[0].whole.plain, "reference": None, "strips": []}
        for name in ("reference", "quality", LIKELIHOOD):
            there = (part.tables[name] for part in self.parts if part.tables.get(name))
            if (table := next(there, None)) is not None:
                tables[name] = table
        return tables

    def _check_cells(self) -> None:
        """Raise if a cell is missing, or if cells cannot be compared."""
        first = self.parts[0]
        known = {*self.results, *([LIKELIHOOD] if LIKELIHOOD in self.tables else [])}
        missing = [name for name in first.plan if name not in known]
        if missing:
            rest = len(missing) - SHOWN_MISSING
            more = f" and {rest} more" if rest > 0 else ""
            names = ", ".join(missing[:SHOWN_MISSING])
            raise ValueError(
                f"{first.folder}: cells of its plan are in none of the folders: {names}{more}"
            )
        done = [result for result in self.results.values() if result.status == "done"]
        for result in done:
            for name in SAME:
                one, other = getattr(done[0], name), getattr(result, name)
                if one != other:
                    raise ValueError(
                        f"{done[0].name} and {result.name} cannot be compared: {name} is {one} "
                        f"and {other}"
                    )
        for part in self.parts[1:]:
            if part.tables.get("quality") != first.tables.get("quality"):
                different = "the metrics have another reference or another floor (quality)"
                _refuse_difference(different, part.folder, first.folder)

    def write(self, out: Path, overwrite: bool) -> Path:
        """Write all files of the whole comparison; return the path of its report."""
        whole = self.parts[0].whole
        results = ResultFolder.open(out, whole, overwrite)
        made = [n for part in self.parts for n, sha in part.manifest.files.items() if sha]
        names = [name for name in dict.fromkeys(made) if name not in TABLES]
        parts = [name for name in names if name.endswith(".npz") and name != "start.npz"]
        with results.write([*TABLES, *report_files(), *names], parts) as output:
            for name in (*names, TABLES[0]):
                part = next(part for part in self.parts if (part.folder / name).is_file())
                (output.work / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(part.folder / name, output.work / name)
            cells = [self.results[name] for name in whole.cells if name in self.results]
            write_tables(output.work, cells, self.tables)
            self._copy_likelihood(out)
            output.publish(later=report_files(name for cell in cells for name in cell.metrics))
        return build_report(out)

    def _copy_likelihood(self, out: Path) -> None:
        """Copy the folder of the likelihood, which is a result of its own."""
        for part in self.parts:
            source = part.folder / LIKELIHOOD
            if part.tables.get(LIKELIHOOD) and (source / MANIFEST).is_file():
                manifest = Manifest.read(source)
                for name in manifest.files:
                    (out / LIKELIHOOD / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, out / LIKELIHOOD / name)
                manifest.save(out / LIKELIHOOD)
                return
