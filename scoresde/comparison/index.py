"""The page and the table of a comparison of several models, each in a subfolder of its own."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._files import atomic_write
from .._text import csv_text
from ..output.manifest import Origin
from ..output.result_folder import ResultFolder
from .prepare import Bench
from .records import COLUMNS
from .report import render

__all__ = ["Index"]

FILES = ("index.html", "results.csv")


@dataclass(frozen=True)
class Index:
    """The folder that holds the comparisons of several models.

    Attributes:
        results: The folder.
        names: Names of the models, which are those of the subfolders.
    """

    results: ResultFolder
    names: tuple[str, ...]

    @classmethod
    def open(cls, out: Path, benches: Mapping[str, Bench], overwrite: bool) -> Index:
        """Check the folder without changing it.

        Raises:
            ValueError: If it holds results of other models, or files that scoresde did not write.
        """
        cells = {name: bench.results.origin.fingerprint for name, bench in benches.items()}
        settings = {"models": list(benches)}
        origin = Origin("bench of several models", settings, cells=cells, shown=("models",))
        return cls(ResultFolder.open(out, origin, overwrite), tuple(benches))

    @property
    def page(self) -> Path:
        """Path of the page that links the reports."""
        return self.results.path / FILES[0]

    def run(self, finish: Callable[[str], Any]) -> dict[str, Any]:
        """Finish the comparison of each model, then write the table and the page.

        Args:
            finish: Runs the comparison of a model, given its name, and returns a `Comparison`.

        Returns:
            The comparisons by name.
        """
        with self.results.write(FILES) as output:
            done = {name: finish(name) for name in self.names}
            with atomic_write(output.work / "results.csv", "w") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(("model", *COLUMNS))
                for name, each in done.items():
                    for row in each.rows:
                        table.writerow([name, *(_text(row[column]) for column in COLUMNS)])
            with atomic_write(output.work / "index.html", "w") as file:
                file.write(render("index.html", models=done))
            output.publish()
        return done


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return repr(value) if isinstance(value, float) else value
