"""The log of a training run: running means, and a file of JSON lines that survives a crash."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._files import atomic_write, clean_stale
from .train import TrainStep

__all__ = ["LEVELS", "Log", "Means"]

LEVELS = 20  # bins of t in the plot of error against time


class Means:
    """Running means of the steps since the last log line; kept in the checkpoint.

    Args:
        state: What `to_dict` gave, to go on from; None to begin.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.loss, self.count = state.get("loss", 0.0), state.get("count", 0)
        self.skipped = state.get("skipped", 0)
        self.grad_norm, self.learning_rate = state.get("grad_norm"), state.get("learning_rate")
        empty = [0.0] * LEVELS
        self.errors = torch.tensor(state.get("errors", empty), dtype=torch.float64)
        self.counts = torch.tensor(state.get("counts", empty), dtype=torch.float64)

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data."""
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in vars(self).items()}

    def add(self, step: TrainStep) -> None:
        """Count a step in; of a skipped one only that it was."""
        self.learning_rate = step.learning_rate
        if step.skipped:
            self.skipped += 1
            return
        self.loss += step.loss
        self.count += 1
        self.grad_norm = step.grad_norm
        bins = (step.t * LEVELS).long().clamp(0, LEVELS - 1).cpu()
        self.errors += torch.bincount(bins, step.errors.cpu().double(), LEVELS)
        self.counts += torch.bincount(bins, minlength=LEVELS)

    def row(self) -> dict[str, Any]:
        """The means, None where nothing was counted."""
        errors = (self.errors / self.counts).tolist()
        return {
            "loss": self.loss / self.count if self.count else None,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "skipped": self.skipped,
            "error_by_t": [None if math.isnan(e) else e for e in errors],
        }


class Log:
    """The log file: lines up to the checkpoint that is resumed from, then new ones.

    Args:
        path: The file; lines of steps after `done` are removed from it.
        done: Steps done.

    Attributes:
        rows: The lines, as dicts.
        images_per_second: What the next line says.
    """

    def __init__(self, path: Path, done: int) -> None:
        self.path = path
        self.rows = _rows_until(path, done)
        clean_stale(path)
        with atomic_write(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)
        self.images_per_second = 0.0
        self._mark = done, time.monotonic()

    @property
    def loss(self) -> float:
        """Loss of the latest line that has one, else NaN."""
        return next((r["loss"] for r in reversed(self.rows) if r["loss"] is not None), math.nan)

    def steps_per_second(self, step: int) -> float:
        """Mean since the last call."""
        (before, then), self._mark = self._mark, (step, time.monotonic())
        return (step - before) / (self._mark[1] - then)

    def write(self, step: int, seconds: float, means: Means) -> None:
        """Append a line."""
        rate = round(self.images_per_second, 1)
        row = {"step": step, **means.row()}
        row |= {"images_per_second": rate, "seconds": round(seconds, 1)}
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _rows_until(path: Path, done: int) -> list[dict[str, Any]]:
    """The log's lines up to step `done`: those after it will be written again."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut short by a crash
            break
        if row["step"] > done:
            break
        rows.append(row)
    return rows
