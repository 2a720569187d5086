"""What `scoresde likelihood` leaves in its folder: summary, rows, table and figures."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._files import atomic_write
from ..data import Dataset, DataSpec
from ..likelihood import Budget, MeanBudget, mean_budget
from ..likelihood.budget import bound_of_changes
from ..study.budget_report import budget_table, save_budget
from ..study.files import save_arrays
from ..study.likelihood_figures import can_show, extremes
from ..study.result_folder import SUMMARY
from .protocols import Protocol
from .score_request import ScoreRequest

__all__ = ["FILES", "Scores"]

FILES = (
    *("per_image.csv", "per_image.npz", "budget.txt", "budget.png", "extremes.png"),
    SUMMARY,
)

COARSE = 0.1  # correction per dimension above which a path is called coarse


@dataclass(frozen=True)
class Scores:
    """Which data were scored.

    Args:
        request: What was asked.
        spec: What the data are.
        data: The data set.
        rows: The places in it of those that were scored, shape (n,).
    """

    request: ScoreRequest
    spec: DataSpec
    data: Dataset
    rows: np.ndarray

    @property
    def dims(self) -> int:
        """D."""
        return self.spec.dims

    @property
    def unit(self) -> str:
        """Of the values: bits/dim, or nats/dim of continuous data."""
        return self.spec.unit

    @property
    def per_dim(self) -> float:
        """Nats of a datum to one unit."""
        return self.dims * (1 if self.spec.levels is None else math.log(2))

    def mean(self, budget: Budget, refined: Budget | None, precise: Budget | None) -> MeanBudget:
        """The mean in that unit; see `mean_budget`."""
        bits = self.spec.levels is not None
        return mean_budget(budget, self.dims, bits=bits, refined=refined, precise=precise)

    def summary(self, mean: MeanBudget, protocol: Protocol) -> dict[str, Any]:
        """What was computed, of what, and what came of it."""
        density = None
        if self.data.log_prob is not None:
            points = self.data.x[self.rows].double()
            density = -float(self.data.log_prob(points).mean()) / self.dims
        request = self.request
        return {
            "checkpoint": request.checkpoint,
            "data": self.data.name,
            "split": self.data.split,
            "n": len(self.rows),
            "of": len(self.data),
            "dims": self.dims,
            "levels": self.spec.levels,
            "unit": self.unit,
            "protocol": request.protocol,
            **protocol.described(),
            "mean": mean.value,
            "std_error": mean.std_error,
            "budget": asdict(mean),
            "true_density": density,
            "nfe": mean.nfe,
            "nfe_derivative": mean.nfe_derivative,
            "draws": protocol.draws,
            **{k: getattr(request, k) for k in ("t_min", "seed")},
        }

    def write(
        self,
        out: Path,
        budget: Budget,
        refined: Budget | None,
        precise: Budget | None,
        mean: MeanBudget,
        summary: dict[str, Any],
    ) -> None:
        """Tables and figures."""
        systematic = sum(_bound(budget, other) for other in (refined, precise))
        self._write_rows(out, budget, budget.half_width(systematic=systematic))
        with atomic_write(out / "budget.txt", "w") as file:
            file.write(budget_table(summary))
        typical = float(budget.std_error.square().mean().sqrt()) / self.per_dim
        save_budget(out / "budget.png", mean, self.unit, typical)
        if can_show(self.spec):
            x = self.data.x[self.rows]
            images = x.double() if self.spec.levels is None else self.spec.encode(x)
            values = -budget.log_prob / self.per_dim
            extremes(out / "extremes.png", images, values, self.spec)

    def _write_rows(self, out: Path, budget: Budget, half_width: Tensor) -> None:
        """One row per datum, as CSV and as arrays; per dimension but for log_prob."""
        columns = {"row": self.rows}
        if self.data.labels is not None:
            columns["label"] = self.data.labels[self.rows].numpy()
        scaled = {
            self.unit.replace("/", "_per_"): -budget.log_prob,
            "std_error": budget.std_error,
            "half_width": half_width,
            "probe_error": budget.probe_error,
            "draw_error": budget.draw_error,
            "correction": -budget.correction,
            "cut_off": -budget.cut_off,
            "prior_mismatch": -budget.prior_mismatch,
        }
        columns |= {name: (value / self.per_dim).numpy() for name, value in scaled.items()}
        coarse = budget.correction.abs() / self.per_dim > COARSE
        columns |= {
            "log_prob": budget.log_prob.numpy(),
            "nfe": budget.nfe.long().numpy(),
            "nfe_derivative": budget.nfe_derivative.long().numpy(),
            "status": np.where(coarse.numpy(), "coarse", "ok"),
        }
        save_arrays(out / "per_image.npz", **columns)
        with atomic_write(out / "per_image.csv", "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _bound(budget: Budget, other: Budget | None) -> float:
    """A bound on the error of single data, in nats, from a better budget of the first few."""
    if other is None:
        return 0.0
    return bound_of_changes(other.log_prob - budget.log_prob[: len(other.log_prob)])
