"""The results of `scoresde likelihood --against`: summary and rows of two models."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..._files import atomic_write
from ...likelihood import Budget, budget_difference, mean_budget
from ...output.files import save_arrays
from ...output.result_folder import SUMMARY
from .against_report import difference_table, save_difference, verdict
from .files import Budgets
from .task import Scoring

__all__ = ["FILES", "PairedScores"]

FILES = ("per_image.csv", "per_image.npz", "difference.txt", "difference.png", SUMMARY)


@dataclass(frozen=True)
class PairedScores:
    """The likelihoods of the same data under two models.

    Attributes:
        tasks: Request, model and data of A and of B.
        method: The likelihood method of A in words, its trace rule and number of draws; that of B
            differs only in what depends on the SDE.
        budgets: The likelihoods of A and of B with their errors.
    """

    tasks: tuple[Scoring, Scoring]
    method: Mapping[str, Any]
    budgets: tuple[Budgets, Budgets]

    def summary(self) -> dict[str, Any]:
        """Request, method, difference and errors as plain data."""
        a, b = self.tasks
        spec, request = a.given.decoded_spec, a.request
        pairs = [
            None if None in pair else budget_difference(*pair)
            for pair in zip(*self.budgets, strict=True)
        ]
        mean, *each = (
            mean_budget(
                every,
                spec.dims_per_unit,
                bits=spec.levels is not None,
                refined=refined,
                precise=precise,
            )
            for every, refined, precise in (pairs, *self.budgets)
        )
        found = {
            "checkpoint": request.checkpoint,
            "against": b.request.checkpoint,
            "data": a.data.name,
            "split": a.data.split,
            "n": len(a.rows),
            "of": len(a.data),
            "dims": spec.dims,
            "levels": spec.levels,
            "unit": spec.unit,
            "nats_per_unit": spec.nats_per_unit,
            "protocol": request.protocol,
            **self.method,
            "difference": mean.value + 0.0,  # not −0
            "half_width": mean.half_width,
            "budget": asdict(mean),
            "models": {name: asdict(one) for name, one in zip("AB", each, strict=True)},
            **{key: getattr(request, key) for key in ("t_min", "seed")},
        }
        return found | {"verdict": verdict(found)}

    def write(self, out: Path, summary: dict[str, Any]) -> None:
        """Write tables and the figure."""
        nats = self.tasks[0].given.decoded_spec.nats_per_unit
        self._write_rows(out, nats)
        with atomic_write(out / "difference.txt", "w") as file:
            file.write(difference_table(summary))
        values = [-budgets.every.log_prob / nats for budgets in self.budgets]
        save_difference(out / "difference.png", summary, *values)

    def _write_rows(self, out: Path, nats: float) -> None:
        """Write one row per datum; all values but log_prob are per dimension."""
        task, unit = self.tasks[0], self.tasks[0].given.decoded_spec.unit.replace("/", "_per_")
        columns: dict[str, Any] = {"row": task.rows}
        if isinstance(task.data.labels, Tensor) and task.data.labels.ndim == 1:
            columns["label"] = task.data.labels[task.rows].numpy()
        a, b = (budgets.every for budgets in self.budgets)
        columns[f"{unit}_difference"] = ((b.log_prob - a.log_prob) / nats).numpy()
        for name, budget in (("a", a), ("b", b)):
            columns |= {f"{key}_{name}": v for key, v in _columns(budget, unit, nats).items()}
        save_arrays(out / "per_image.npz", **columns)
        with atomic_write(out / "per_image.csv", "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _columns(budget: Budget, unit: str, nats: float) -> dict[str, Any]:
    """The columns of one model."""
    return {
        unit: (-budget.log_prob / nats).numpy(),
        "std_error": (budget.std_error / nats).numpy(),
        "correction": (-budget.correction / nats).numpy(),
        "log_prob": budget.log_prob.numpy(),
        "nfe": budget.nfe.long().numpy(),
        "nfe_derivative": budget.nfe_derivative.long().numpy(),
    }
