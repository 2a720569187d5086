"""A finished comparison as read from its folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data import DataSpec
from ..metrics import Estimate
from .checked import check_fields, check_settings, check_tables
from .files import read_json
from .manifest import MANIFEST, Manifest
from .records import CELLS, Result, estimate_from_json, load_array, read_results
from .reference import REFERENCE
from .result_folder import check_whole

__all__ = ["TITLES", "Findings", "tied"]

TITLES = {
    "mmd2": "MMD²",
    "frechet": "Fréchet distance",
    "sliced_w2": "sliced W₂",
    "paired_rmse": "paired RMSE",
}


def tied(a: Estimate, b: Estimate) -> bool:
    """Whether two estimates differ by less than two standard errors of their difference."""
    return abs(a.value - b.value) <= 2 * math.hypot(a.std_error, b.std_error)


@dataclass(frozen=True)
class Findings:
    """What the folder of a comparison holds.

    Attributes:
        folder: The folder.
        settings: What defines the results.
        machine: Where they were made.
        results: All cells, in the order asked.
        reference: What is known of the reference solution; None without one.
        quality: Reference data, features and floor of the quality metrics; None without them.
        likelihood: Likelihood of test data; None if not measured.
        strips: Comparisons of a few samples of other checkpoints.
    """

    folder: Path
    settings: dict[str, Any]
    machine: dict[str, Any]
    results: list[Result]
    reference: dict[str, Any] | None
    quality: dict[str, Any] | None
    likelihood: dict[str, Any] | None
    strips: list[Findings]

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """Read a folder; nothing is computed.

        Raises:
            FileNotFoundError: If the folder holds no finished comparison.
            ValueError: If a file is damaged.
        """
        if (folder / MANIFEST).exists():
            check_whole(folder)
        results = read_results(folder)
        path = folder / "results.json"
        tables = check_tables(read_json(path), str(path), TITLES)
        settings = check_settings(Manifest.read(folder).settings, str(folder / MANIFEST))
        machine = read_json(folder / "machine.json")
        return cls(
            folder,
            settings,
            check_fields(machine, {}, str(folder / "machine.json")),
            results,
            tables.get("reference"),
            tables.get("quality"),
            tables.get("likelihood"),
            [cls.read(folder / name) for name in tables["strips"]],
        )

    @property
    def spec(self) -> DataSpec:
        """What the data are."""
        return DataSpec.from_dict(self.settings["data"])

    @property
    def done(self) -> list[Result]:
        """Cells that were measured."""
        return [result for result in self.results if result.status == "done"]

    @property
    def samplers(self) -> list[str]:
        """Labels of the samplers, in the order asked."""
        return list(self.settings["samplers"])

    @property
    def budgets(self) -> list[int]:
        """The budgets, increasing."""
        return sorted(self.settings["nfe"])

    def name(self, result: Result) -> str:
        """Sampler, and grid where there are several."""
        several = result.grid and len(self.settings["grids"]) > 1
        return f"{result.sampler} · {result.grid}" if several else result.sampler

    def reference_error(self) -> Estimate | None:
        """What the reference solution differs by from a less accurate one."""
        return None if self.reference is None else estimate_from_json(self.reference["error"])

    def floor(self, metric: str) -> Estimate | None:
        """What real data score."""
        if self.quality is None or metric not in self.quality["floor_values"]:
            return None
        return estimate_from_json(self.quality["floor_values"][metric])

    def metrics(self) -> list[str]:
        """Quality metrics that were measured."""
        return [] if self.quality is None else list(self.quality["floor_values"])

    def ranking(self, budget: int, metric: str) -> list[Result]:
        """Cells of one budget that have the metric, the best first."""
        cells = [r for r in self.done if r.nfe_asked == budget and metric in r.metrics]
        return sorted(cells, key=lambda result: result.metrics[metric].value)

    def best(self, budget: int, metric: str) -> tuple[Result, list[Result]] | None:
        """The best cell of a budget, and the others within two standard errors of it."""
        ranking = self.ranking(budget, metric)
        if not ranking:
            return None
        first, others = ranking[0], ranking[1:]
        return first, [r for r in others if tied(r.metrics[metric], first.metrics[metric])]

    def below_floor(self, result: Result, metric: str) -> bool:
        """Whether a cell scores better than real data do."""
        floor = self.floor(metric)
        return floor is not None and result.metrics[metric].value < floor.value

    def at_floor(self, metric: str) -> list[Result]:
        """Cells no worse than real data by more than two standard errors, in the order asked."""
        floor = self.floor(metric)
        if floor is None:
            return []
        cells = [r for r in self.done if metric in r.metrics]
        return [
            r
            for r in cells
            if r.metrics[metric].value <= floor.value or tied(r.metrics[metric], floor)
        ]

    def samples(self, result: Result) -> Tensor:
        """The samples that were kept of a cell, at the model's scale."""
        return self._scaled(self._array(self.folder / CELLS / f"{result.key}.npz"))

    def exact(self) -> Tensor | None:
        """The reference solution from the same noise; None without one."""
        if self.reference is None:
            return None
        return self._array(self.folder / REFERENCE)

    def _array(self, path: Path) -> Tensor:
        """Samples in a file, of the shape of the data."""
        x = load_array(path, "x")
        if x.shape[1:] != self.spec.shape or len(x) == 0 or x.is_complex():
            raise ValueError(f"{path}: x must hold data of shape {self.spec.shape}, got {x.shape}")
        return x

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.spec.levels is None else self.spec.encode(x)
