"""Cases that differ by the seed only, joined: one value for each cell, and one answer.

A joined cell has the mean of its estimates over the seeds (`metrics.pooled`). It keeps the
influences of the rows of all seeds, one seed after another, so that two joined cells are compared
in pairs: row by row within each seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..metrics import Estimate, pooled
from .findings import Findings
from .records import COLUMNS, SPENT, CellResult, table_row
from .summary import interval_text, number_text, short_name

__all__ = ["MeanRow", "SeedGroup", "seed_groups"]


class MeanRow(NamedTuple):
    """A cell as the mean of several seeds.

    Attributes:
        case: Name of the joined cases.
        budget: The budget, in evaluations per sample.
        name: The sampler, with its grid if there are several.
        values: For each metric the value with its 95 % interval, and the smallest and largest value
            of a single seed; a dash for what was not measured.
    """

    case: str
    budget: int
    name: str
    values: list[tuple[str, ...]]


@dataclass(frozen=True)
class SeedGroup:
    """The cases of one model, one share of the labels and one guidance: one for each seed.

    Attributes:
        name: What the tables call it.
        cases: Names of the cases.
        findings: The joined results; those of the case if there is only one.
        of_seeds: The results of each case.
    """

    name: str
    cases: tuple[str, ...]
    findings: Findings
    of_seeds: tuple[Findings, ...]

    @property
    def joined(self) -> bool:
        """Whether the results are of several seeds."""
        return len(self.of_seeds) > 1

    def spread(self, cell: CellResult, metric: str) -> tuple[float, float]:
        """The smallest and the largest value of a single seed."""
        alone = [_by_name(findings)[cell.name] for findings in self.of_seeds]
        values = [each.metrics[metric].value for each in alone]
        return min(values), max(values)

    def spread_text(self, cell: CellResult, metric: str) -> str:
        """`spread` in words."""
        least, largest = map(number_text, self.spread(cell, metric))
        return f"single seeds: {least} to {largest}"

    def means(self) -> Iterator[MeanRow]:
        """The joined cells, those of the smallest budget first."""
        found = self.findings
        for cell in (cell for budget in found.budgets for cell in found.within(budget)):
            values = [
                (interval_text(cell.metrics[metric]), self.spread_text(cell, metric))
                if metric in cell.metrics
                else ("—",)
                for metric in found.measured
            ]
            yield MeanRow(self.name, cell.nfe_asked, short_name(found, cell), values)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `rows`: those of results.csv, and the spread of each metric."""
        least = (f"{metric}_{end}" for metric in self.findings.measured for end in ("min", "max"))
        return ("case", "seeds", *(name for name in COLUMNS if name not in SPENT), *least)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict for each joined cell."""
        for cell in self.findings.done:
            row = {"case": self.name, "seeds": len(self.of_seeds)} | table_row(cell)
            for metric in cell.metrics:
                ends = zip(("min", "max"), self.spread(cell, metric), strict=True)
                row |= {f"{metric}_{end}": value for end, value in ends}
            yield row


def seed_groups(
    found: Mapping[str, Findings], cases: Mapping[str, Mapping[str, Any]]
) -> list[SeedGroup]:
    """The cases in groups that differ by the seed only, in their order.

    Cases stay alone if they have no cell in common whose influences are known, as in results of
    earlier versions.

    Args:
        found: The results of each finished case, by name.
        cases: The "model", "seed" and "labels" of each case, by name, and its "guidance".
    """
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in found:
        case = cases[name]
        key = (case["model"], case["labels"], case.get("guidance"))
        alike.setdefault(key, []).append(name)
    models, labels, guidances = ({key[i] for key in alike} for i in range(3))
    groups = []
    for (model, label, guidance), names in alike.items():
        of_seeds = tuple(found[name] for name in names)
        joined = _joined(of_seeds) if len(names) > 1 else None
        if joined is None:
            groups += [SeedGroup(n, (n,), found[n], (found[n],)) for n in names]
            continue
        parts = [model] * (len(models) > 1) + [f"labels {label}"] * (len(labels) > 1)
        parts += [f"guidance {guidance}"] * (len(guidances) > 1)
        name = ", ".join([*parts, f"mean of {len(names)} seeds"])
        groups.append(SeedGroup(name, tuple(names), joined, of_seeds))
    return groups


def _joined(of_seeds: Sequence[Findings]) -> Findings | None:
    """The results with one cell for the cells of all seeds; None if none can be joined.

    Its folder, and with it stored samples, is that of the first seed.
    """
    first, *others = map(_by_name, of_seeds)
    same = [
        _joined_cell([cell, *(other[name] for other in others)])
        for name, cell in first.items()
        if cell.nfe_asked is not None and all(name in other for other in others)
    ]
    results = [cell for cell in same if cell.metrics]
    if not results:
        return None
    nothing: dict[str, Any] = {"likelihood": None, "strips": [], "solution": {}, "true_start": {}}
    return replace(of_seeds[0], results=results, **nothing)


def _joined_cell(cells: Sequence[CellResult]) -> CellResult:
    """One cell of all seeds. Seconds and memory, which are of a single run, are left out."""
    first = cells[0]
    found = {
        metric: _mean([cell.metrics[metric] for cell in cells])
        for metric in first.metrics
        if all(metric in cell.metrics and cell.metrics[metric].influence for cell in cells)
    }
    starts = [cell.x_init_sha256 for cell in cells]
    return replace(
        first,
        metrics=found,
        n=sum(cell.n for cell in cells),
        x_init_sha256="+".join(starts) if all(starts) else "",
        **dict.fromkeys(SPENT),
    )


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """`pooled` under the name of the metric, so that it is compared with the value of real data."""
    return replace(pooled(estimates), name=estimates[0].name)


def _by_name(findings: Findings) -> dict[str, CellResult]:
    return {cell.name: cell for cell in findings.done}
