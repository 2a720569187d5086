"""The results of `scoresde likelihood`: summary, rows, table and figures."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._files import atomic_write
from ...data import Dataset, DataSpec
from ...likelihood import Budget, mean_budget
from ...likelihood.budget import bound_of_changes
from ...likelihood.mean_budget import MeanBudget
from ...likelihood.vlb.chain import ReverseChain
from ...output.files import save_arrays
from ...output.pictures import extremes
from ...output.result_folder import SUMMARY
from ...output.tiles import can_show
from .bound_terms import BoundTerms
from .budget_report import THROUGH_AUTOENCODER, budget_table, save_budget
from .request import LATENT, ScoreRequest

__all__ = ["FILES", "Budgets", "Scores"]

FILES = (
    *("per_image.csv", "per_image.npz", "budget.txt", "budget.png", "extremes.png"),
    *("terms.csv", "terms.png", SUMMARY),
)

COARSE = 0.1  # above this correction per dimension a path is called coarse


class Budgets(NamedTuple):
    """The budget of all data, and of the first few data with a finer solver and in float64.

    The last two are None if they were not computed.
    """

    every: Budget
    refined: Budget | None = None
    precise: Budget | None = None

    @property
    def systematic(self) -> float:
        """A bound on the error of a single datum from solver and dtype, in nats."""
        log_prob = self.every.log_prob
        others = (other.log_prob for other in self[1:] if other is not None)
        return sum(bound_of_changes(other - log_prob[: len(other)]) for other in others)


@dataclass(frozen=True)
class Scores:
    """The scored data, the method, and the resulting budgets.

    Attributes:
        request: The request.
        spec: What the data are.
        data: The data set.
        rows: Row numbers of the scored data in the data set, shape (n,).
        method: The likelihood method in words, its trace rule and number of draws.
        budgets: The likelihoods with their errors.
    """

    request: ScoreRequest
    spec: DataSpec
    data: Dataset
    rows: np.ndarray
    method: Mapping[str, Any]
    budgets: Budgets

    def summary(self) -> dict[str, Any]:
        """Request, method, mean and errors as plain data."""
        every, refined, precise = self.budgets
        bits, dims = self.spec.levels is not None, self.spec.dims
        per = self.spec.dims_per_unit
        mean = mean_budget(every, per, bits=bits, refined=refined, precise=precise)
        density = None
        if self.data.log_prob is not None:
            points = self.data.x[self.rows].double()
            density = -float(self.data.log_prob(points).mean()) / per
        return self._log_prob(mean) | {
            "checkpoint": self.request.checkpoint,
            "data": self.data.name,
            "split": self.data.split,
            "n": len(self.rows),
            "of": len(self.data),
            "dims": dims,
            "levels": self.spec.levels,
            "unit": self.spec.unit,
            "protocol": self.request.protocol,
            **({"bound": THROUGH_AUTOENCODER} if self.request.protocol == LATENT else {}),
            **self.method,
            "mean": mean.value,
            "std_error": mean.std_error,
            "budget": asdict(mean),
            "true_density": density,
            "nfe": mean.nfe,
            "nfe_derivative": mean.nfe_derivative,
            "t_min": self.request.t_min,
            "seed": self.request.seed,
        }

    def _log_prob(self, mean: MeanBudget) -> dict[str, Any]:
        """log p of continuous data, which is the density in their units; nothing for levels."""
        if self.spec.levels is not None:
            return {}
        dims, data = self.spec.dims_per_unit, self.data.taken(torch.from_numpy(self.rows))
        half = mean.half_width
        found = {
            "log_prob_nats": -mean.value * dims,
            "log_prob_nats_half_width": None if half is None else half * dims,
        }
        if self.spec.sizes is None:
            found["log_prob_nats_per_dim"] = -mean.value
        if data.spec.transform is not None:
            found["log_det_nats"] = float(data.log_det.mean())
            found["log_prob_nats_model_scale"] = found["log_prob_nats"] - found["log_det_nats"]
        return found

    def write(self, out: Path, summary: dict[str, Any]) -> None:
        """Write tables and figures."""
        budget, nats = self.budgets.every, self.spec.nats_per_unit
        self._write_rows(out)
        with atomic_write(out / "budget.txt", "w") as file:
            file.write(budget_table(summary))
        typical = float(budget.std_error.square().mean().sqrt()) / nats
        save_budget(out / "budget.png", summary, typical)
        if can_show(self.spec):
            x = self.data.taken(torch.from_numpy(self.rows)).scaled.x
            x = x.double() if self.spec.levels is None else self.spec.encode(x)
            extremes(out / "extremes.png", x, -budget.log_prob / nats, self.spec)

    def write_terms(self, out: Path, chain: ReverseChain) -> None:
        """Write table and figure of the terms of a chain's bound."""
        terms = self.budgets.every.terms
        found = BoundTerms.of(terms, chain, self.spec.nats_per_unit, self.spec.unit)
        found.write(out / "terms.csv")
        found.draw(out / "terms.png")

    def _write_rows(self, out: Path) -> None:
        """Write one row per datum, as CSV and as arrays; all values but log_prob per dimension."""
        budget, nats = self.budgets.every, self.spec.nats_per_unit
        columns = {"row": self.rows}
        if isinstance(self.data.labels, Tensor) and self.data.labels.ndim == 1:
            columns["label"] = self.data.labels[self.rows].numpy()
        scaled = {
            self.spec.unit.replace("/", "_per_"): -budget.log_prob,
            "std_error": budget.std_error,
            "half_width": budget.half_width(systematic=self.budgets.systematic),
            "probe_error": budget.probe_error,
            "draw_error": budget.draw_error,
            "correction": -budget.correction,
            "cut_off": -budget.cut_off,
            "prior_mismatch": -budget.prior_mismatch,
        }
        columns |= {name: (value / nats).numpy() for name, value in scaled.items()}
        coarse = budget.correction.abs() / nats > COARSE
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
