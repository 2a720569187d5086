"""The log of a training run: running means, and a file of JSON lines that survives crashes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._files import atomic_write
from ..._tensor import check_integer, check_number, float64
from ...train import TrainStep

__all__ = ["LEVELS", "Log", "Means", "is_log"]

LEVELS = 20  # bins of t in the plot of error against time


class Means:
    """Running means of the steps since the last log line; kept in the checkpoint.

    Args:
        state: A result of `to_dict`, to continue; None to begin.

    Raises:
        TypeError: If a value is not a number.
        ValueError: If a value is not allowed, or the number of bins is not `LEVELS`.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = dict(state or {})
        self.loss = check_number("loss", state.get("loss", 0.0))
        self.count = check_integer("count", state.get("count", 0), minimum=0)
        self.skipped = check_integer("skipped", state.get("skipped", 0), minimum=0)
        self.grad_norm, self.learning_rate = state.get("grad_norm"), state.get("learning_rate")
        empty = [0.0] * LEVELS
        self.errors = float64(state.get("errors", empty))
        self.counts = float64(state.get("counts", empty))
        if not self.errors.shape == self.counts.shape == (LEVELS,):
            raise ValueError(f"errors and counts must be {LEVELS} numbers each")

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data."""
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in vars(self).items()}

    def add(self, step: TrainStep) -> None:
        """Add a step to the means; a skipped step is only counted."""
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

    @property
    def mean_loss(self) -> float:
        """The mean loss; NaN if no step was counted."""
        return self.loss / self.count if self.count else math.nan

    def row(self) -> dict[str, Any]:
        """The means; None where no step was counted."""
        loss, *errors = (
            None if math.isnan(value) else value
            for value in (self.mean_loss, *(self.errors / self.counts).tolist())
        )
        return {
            "loss": loss,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "skipped": self.skipped,
            "error_by_t": errors,
        }


class Log:
    """The log file: the lines up to the checkpoint from which a run resumes, then new lines.

    Args:
        path: The file. It is only read here; `begin` and `write` change it.
        done: Steps done.
        batch: Images per step.

    Attributes:
        rows: The lines, as dicts.
    """

    def __init__(self, path: Path, done: int, batch: int) -> None:
        self.path, self.batch = path, batch
        # Lines of steps after the checkpoint will be written again.
        self.rows = list(takewhile(lambda row: row["step"] <= done, _rows(path)))
        self._mark = done, time.monotonic()
        self._latest: tuple[float, float] | None = None

    def begin(self) -> None:
        """Remove the lines of steps after the checkpoint, which will be written again."""
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)

    def write(self, step: int, seconds: float, means: Means) -> None:
        """Append a line, and begin the means of the next line."""
        rate = self._rate(step)
        row = {"step": step, **means.row()}
        row |= {"images_per_second": round(rate, 1), "seconds": round(seconds, 1)}
        self.rows.append(row)
        self._mark = step, time.monotonic()
        self._latest = means.mean_loss, rate
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def shown(self, step: int, means: Means) -> tuple[float, float]:
        """Mean loss and images per second, for a progress bar.

        Both come from the latest line. Before this process has written a line, they are the means
        of the steps so far. The loss is NaN if all these steps were skipped.
        """
        return self._latest or (means.mean_loss, self._rate(step))

    def _rate(self, step: int) -> float:
        """Images per second since the latest line, or since the start."""
        before, then = self._mark
        # A coarse clock may still show the same time.
        return (step - before) * self.batch / max(time.monotonic() - then, 1e-3)


def is_log(path: Path) -> bool:
    """Whether a file is the log of a run: empty, or its first line has the form of `Log.write`."""
    if not path.is_file():
        return False
    return not path.stat().st_size or "error_by_t" in next(_rows(path), ())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, up to the first line that is damaged or was cut short by a crash."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                check_integer("step", row["step"], minimum=1)
            except (ValueError, TypeError, LookupError):
                return
            yield row
