"""Does a comparison rank gross failures of samples last, on data that nobody tuned it for?

    python benchmarks/failures.py --json out/failures.json

Eleven kinds of data, nine of them made from formulas, are changed in known ways. Each changed
sample is a cell of a comparison with the default metrics and features. The script prints the z of
every metric, (value − value of real data)/standard error, positive if the sample is worse, and for
`copying` (value − 0.5)/standard error. For every pair it then asks the ranking of `scoresde bench`
which of two cells to take:

    gross    noise, one image again and again, shuffled pixels …: must lose against real data, and
             against every mild error
    middle   blur, contrast 0.8, half of the data missing …: must lose against real data
    copies   of the training data: `copying` must be above 0.5 at the level of 95 %
    control  real data: no metric may call them worse than real data, at the level of 95 %

All changed samples come from the same rows, as the cells of a comparison come from the same x_T.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import click
import torch
from failure_cases import CONTROLS, DATA, REFERENCE, N, image_failures, vector_failures
from script import print_header, write
from torch import Tensor

from scoresde.comparison.metric_table import METRICS
from scoresde.comparison.quality import Quality, on_levels
from scoresde.comparison.ranking import answer, rank
from scoresde.comparison.records import CellResult
from scoresde.data import Dataset
from scoresde.metrics import difference


class Measured(NamedTuple):
    """The cells of one kind of data by group and name, and the metrics of real data."""

    cells: dict[str, dict[str, CellResult]]
    quality: Quality

    def z(self, cell: CellResult, metric: str) -> float:
        """How far a cell is from real data, in standard errors, positive if it is worse."""
        if metric == "copying":
            return (cell.metrics[metric].value - 0.5) / cell.metrics[metric].std_error
        found = difference(cell.metrics[metric], self.quality.floor[metric], paired=False)
        return METRICS[metric].sign * found.value / found.std_error

    def beats(self, first: CellResult, second: CellResult) -> bool:
        """Whether the ranking takes the first of two cells, or ties it with the second."""
        metrics = [name for name in self.quality.floor if METRICS[name].better]
        ranked = [rank([first, second], m, self.quality.floor[m]) for m in metrics]
        found = answer(ranked)
        return found.cell is first or first in found.ties

    @property
    def wrong(self) -> list[str]:
        """Every statement of the ranking, and of `copying`, that is wrong."""
        control = self.cells["control"]
        best = {"gross": control | self.cells["mild"], "middle": control}
        found = [
            f"{name} is not below {other}"
            for group, better in best.items()
            for name, cell in self.cells[group].items()
            for other, good in better.items()
            if self.beats(cell, good)
        ]
        copies = self.cells["copies"].items()
        return found + [f"{name} not named" for name, c in copies if self.z(c, "copying") < 1.645]

    @property
    def flagged(self) -> list[bool]:
        """For each control and metric that ranks, whether it is called worse than real data."""
        ranked = [name for name in self.quality.floor if METRICS[name].better]
        cells = self.cells["control"].values()
        return [self.z(cell, metric) > 1.645 for cell in cells for metric in ranked]


def measured(name: str, features: str = "auto") -> Measured:
    """All cells of one kind of data."""
    x, spec = DATA[name]()
    x = on_levels(x, spec)
    train, test, rows, *real = x.split([REFERENCE, *[N] * (2 + CONTROLS)])
    both = [
        Dataset(name, part if spec.levels is None else spec.to_levels(part), None, spec)
        for part in (train, test)
    ]
    quality = Quality.build(*both, N, features=features)
    groups = {"control": {f"real data {k + 1}": part for k, part in enumerate(real)}}
    groups |= (image_failures if rows.ndim == 4 else vector_failures)(rows, train)
    halves = torch.cat([train[: N // 2], rows[N // 2 :]])
    groups["copies"] = {"copies": train[:N], "half copies": halves}

    def cell(name: str, x: Tensor) -> CellResult:
        found = {"n": len(x), "features": quality.features.label, "metrics": quality.measure(x)}
        return CellResult(name, name, "", 1, None, "done", True, "", x_init_sha256="0", **found)

    cells = {g: {n: cell(n, x) for n, x in group.items()} for g, group in groups.items()}
    return Measured(cells, quality)


def print_table(name: str, found: Measured) -> None:
    """z of each cell by each metric, and the wrong statements."""
    metrics = list(found.quality.floor)
    click.echo(f"\n{name:38s}" + "".join(f"{metric:>11s}" for metric in metrics))
    for group, cells in found.cells.items():
        for title, cell in cells.items():
            z = (found.z(cell, metric) for metric in metrics)
            click.echo(f"{group:9s}{title:29s}" + "".join(f"{value:11.1f}" for value in z))
    click.echo("wrong: " + ("; ".join(found.wrong) or "nothing"))


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", type=click.Choice(list(DATA)), multiple=True, help="All if not given.")
@click.option("--features", default="auto", show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write all z here.")
def main(data: tuple[str, ...], features: str, out: Path | None) -> None:
    torch.set_num_threads(1)
    about, began, tables, flags = print_header(), time.process_time(), {}, []
    for name in data or DATA:
        found = measured(name, features)
        print_table(name, found)
        cells = [cell for group in found.cells.values() for cell in group.values()]
        z = {c.sampler: {m: found.z(c, m) for m in found.quality.floor} for c in cells}
        tables[name] = {"z": z, "wrong": found.wrong}
        flags += found.flagged
    click.echo(
        f"\n{sum(flags)} of {len(flags)} values of real data are called worse than real data"
    )
    click.echo(f"{time.process_time() - began:.0f} s of one processor")
    if out:
        write(out, json.dumps({**about, "data": tables}, indent=1).encode())


if __name__ == "__main__":
    main()
