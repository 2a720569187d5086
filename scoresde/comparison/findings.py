"""A finished comparison, read from its folder, with the rankings of its cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data import DataSpec
from ..metrics import Estimate
from ..output.files import read_json
from ..output.manifest import MANIFEST, Manifest
from ..output.result_folder import check_whole
from .checked import check_fields, check_settings
from .decomposition import TRUE_START, Decomposition, decompose, read_solution
from .labels import RECOMMENDED
from .metric_table import METRICS
from .quality import at_model_scale
from .ranking import Answer, Ranking, answer, below_floor, rank
from .records import CELLS, RESULTS, CellResult, load_array, read_results
from .reference import REFERENCE

__all__ = ["Findings"]


@dataclass(frozen=True)
class Findings:
    """The content of a comparison's folder.

    Attributes:
        folder: The folder.
        settings: The settings that define the results.
        machine: The machine on which the results were made.
        results: The results of all cells, in the requested order.
        reference: The reference solution: method, tolerance, evaluations, and "error", an
            `Estimate`; None without a reference.
        quality: Reference data and features of the quality metrics, and in "floor_values" the
            `Estimate` of each metric for real data; None without quality metrics.
        likelihood: Likelihood of test data; None if it was not measured.
        solution: Quality metrics of the reference solution by name; empty without one.
        true_start: Those of the solution from noised real data; empty without one.
        strips: Comparisons of a few samples of other checkpoints.
    """

    folder: Path
    settings: dict[str, Any]
    machine: dict[str, Any]
    results: list[CellResult]
    reference: dict[str, Any] | None
    quality: dict[str, Any] | None
    likelihood: dict[str, Any] | None
    strips: list[Findings]
    solution: dict[str, Estimate] = field(default_factory=dict)
    true_start: dict[str, Estimate] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """Read a folder.

        Raises:
            FileNotFoundError: If the folder holds no finished comparison.
            ValueError: If a file is damaged.
        """
        if (folder / MANIFEST).exists():
            check_whole(folder)
        results, tables = read_results(folder)
        machine = folder / "machine.json"
        found = cls(
            folder,
            check_settings(Manifest.read(folder).settings, str(folder / MANIFEST)),
            check_fields(read_json(machine), {}, str(machine)),
            results,
            tables["reference"],
            tables["quality"],
            tables["likelihood"],
            [cls.read(folder / name) for name in tables["strips"]],
            read_solution(folder),
            read_solution(folder, TRUE_START),
        )
        try:
            _ = found._rankings
        except ValueError as error:
            raise ValueError(f"{folder / RESULTS}: {error}") from error
        return found

    @cached_property
    def spec(self) -> DataSpec:
        """Description of the data at the model's scale, at which samples are compared."""
        return DataSpec.from_dict(self.settings["data"]).in_model_scale

    @cached_property
    def transformed(self) -> bool:
        """Whether the data have units of their own, which are not the model's scale."""
        return "transform" in self.settings.get("data", {})

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of the latents that are sampled and decoded; None for a model of the data."""
        shape = self.settings.get("latent_shape")
        return None if shape is None else tuple(shape)

    @property
    def several_grids(self) -> bool:
        """Whether there are several grids, so that the name of a cell needs its grid."""
        grids = {cell.grid for cell in self.results if cell.grid}
        return len(grids | set(self.settings["grids"])) > 1

    @property
    def done(self) -> list[CellResult]:
        """Cells that were measured."""
        return [result for result in self.results if result.status == "done"]

    @property
    def missing(self) -> list[CellResult]:
        """Cells without a result."""
        return [result for result in self.results if result.status != "done"]

    @property
    def adaptive(self) -> list[CellResult]:
        """Measured cells of adaptive methods."""
        return [result for result in self.done if result.tolerance is not None]

    @property
    def samplers(self) -> list[str]:
        """Labels of the samplers, in the requested order."""
        return list(self.settings["samplers"])

    @property
    def budgets(self) -> list[int]:
        """The budgets in increasing order."""
        return sorted(self.settings["nfe"])

    @property
    def floor(self) -> dict[str, Estimate]:
        """The value of each quality metric for real data, by name; empty without such metrics."""
        return {} if self.quality is None else self.quality["floor_values"]

    @property
    def columns(self) -> list[str]:
        """Names of the metrics that a table of all cells shows."""
        return [*self.floor, *(["paired_rmse"] if self.reference else [])]

    @property
    def measured(self) -> list[str]:
        """Names of the metrics that at least one cell has."""
        return [name for name in self.columns if any(name in r.metrics for r in self.done)]

    @property
    def in_memory(self) -> bool:
        """Whether the model was given as an object in Python."""
        return self.settings.get("in_memory") is True

    def sampler(self, result: CellResult) -> str:
        """The sampler's label; for "recommended" with the sampler that was chosen."""
        return f"{result.sampler}: {result.setting}" if result.setting else result.sampler

    def name(self, result: CellResult) -> str:
        """The sampler's label, with the grid if there are several; all of a recommended setting."""
        if result.setting:
            return f"{result.sampler} ({result.setting}, {result.grid})"
        several = result.grid and self.several_grids
        return f"{result.sampler} · {result.grid}" if several else result.sampler

    def recommended(self, budget: int) -> CellResult | None:
        """The measured cell of the recommended settings within a budget; None without one."""
        return next((r for r in self.within(budget) if r.sampler == RECOMMENDED), None)

    def within(self, budget: int) -> list[CellResult]:
        """Measured cells of one budget, in the requested order."""
        return [result for result in self.done if result.nfe_asked == budget]

    def ranking(self, budget: int, metric: str) -> Ranking | None:
        """The cells of one budget ranked by one metric; None if no cell has the metric.

        Raises:
            ValueError: If the cells were not measured alike.
        """
        return self._rankings.get((budget, metric))

    def rankings(self, budget: int) -> list[Ranking]:
        """The ranking of one budget by each metric that ranks, in the order of the columns."""
        found = [self.ranking(budget, metric) for metric in self.measured]
        return [ranking for ranking in found if ranking is not None]

    def answer(self, budget: int) -> Answer | None:
        """The cell to take within a budget; None if no metric ranks its cells."""
        return self._answers.get(budget)

    def leads(self, result: CellResult, metric: str) -> bool:
        """Whether no cell of the same budget is shown to be better by this metric."""
        ranking = self.ranking(result.nfe_asked, metric)
        return ranking is not None and result in ranking.leading

    def decomposition(self, result: CellResult, metric: str = "mmd2") -> Decomposition | None:
        """The measured parts of a cell's error; None without the exact solution."""
        if metric not in self.solution or metric not in result.metrics:
            return None
        true_start = self.true_start.get(metric)
        return decompose(result.metrics[metric], self.solution[metric], true_start=true_start)

    def at_floor(self, metric: str) -> list[CellResult]:
        """Cells of all budgets that are not shown to be worse than real data."""
        reached = [self.ranking(budget, metric) for budget in self.budgets]
        return [cell for ranking in reached if ranking is not None for cell in ranking.at_floor]

    def below_floor(self, metric: str) -> list[CellResult]:
        """Cells of all budgets that are shown to have a better value than real data."""
        floor = self.floor.get(metric)
        return [] if floor is None else below_floor(self.at_floor(metric), metric, floor)

    @cached_property
    def _answers(self) -> dict[int, Answer]:
        ranked = {budget: self.rankings(budget) for budget in self.budgets}
        return {budget: answer(rankings) for budget, rankings in ranked.items() if rankings}

    @cached_property
    def _rankings(self) -> dict[tuple[int, str], Ranking]:
        found = {}
        for budget in self.budgets:
            for metric in self.measured:
                if METRICS[metric].better:
                    floor = self._usable_floor(metric)
                    found[budget, metric] = rank(self.within(budget), metric, floor)
        return {key: ranking for key, ranking in found.items() if ranking is not None}

    def _usable_floor(self, metric: str) -> Estimate | None:
        """The floor; None if its bias differs from that of the cells, which have another n."""
        floor = self.floor.get(metric)
        same = floor is not None and floor.n[0] == self.settings["n"]
        return floor if same or not METRICS[metric].biased else None

    def samples(self, result: CellResult) -> Tensor:
        """The stored samples of a cell, at the model's scale, shape (m, *D)."""
        return at_model_scale(self._array(self.folder / CELLS / f"{result.key}.npz"), self.spec)

    def exact(self) -> Tensor | None:
        """The reference solution from the same noise, shape (n, *D); None if there is none."""
        return None if self.reference is None else self._array(self.folder / REFERENCE)

    def _array(self, path: Path) -> Tensor:
        """The samples in a file, which must have the shape of the data."""
        x = load_array(path, "x")
        if x.shape[1:] != self.spec.shape or len(x) == 0 or x.is_complex():
            raise ValueError(f"{path}: x must hold data of shape {self.spec.shape}, got {x.shape}")
        return x
