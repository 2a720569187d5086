"""The log of a training run: running means, and a file of JSON lines that survives crashes."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._files import atomic_write
from ..._tensor import check_integer, check_number, float64
from ...train import TrainStep
from ...validation import Validation

__all__ = ["LEVELS", "Log", "Means", "is_log", "validation_row"]

Parts = Callable[[float, float], Mapping[str, float]]

_MARKS = {"error_by_t", "kl"}  # entries of which a line of a log has one
LEVELS = 20  # bins of t in the plot of error against time


class Means:
    """Running means of the steps since the last log line; kept in the checkpoint.

    A step is counted when its numbers have arrived from an accelerator, in the order of the steps.

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
        self._waiting = deque[TrainStep]()

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data; it waits for all steps."""
        self.settle()
        sums = {name: value for name, value in vars(self).items() if name != "_waiting"}
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in sums.items()}

    def add(self, step: TrainStep) -> None:
        """Add a step to the means, and count all that have arrived."""
        self._waiting.append(step)
        while self._waiting and self._waiting[0].arrived:
            self._count(self._waiting.popleft())

    def settle(self) -> None:
        """Wait for all steps and count them."""
        while self._waiting:
            self._count(self._waiting.popleft())

    def _count(self, step: TrainStep) -> None:
        """Count a step; a skipped step is not part of the means."""
        self.learning_rate = step.learning_rate
        if step.skipped:
            self.skipped += 1
            return
        self.loss += step.loss
        self.count += 1
        self.grad_norm = step.grad_norm
        sums, counts = _by_time(step.t, step.errors)
        self.errors += sums
        self.counts += counts

    @property
    def mean_loss(self) -> float:
        """The mean loss; NaN if no step was counted."""
        return self.loss / self.count if self.count else math.nan

    @property
    def mean_error(self) -> float:
        """The mean error over all times; NaN if no step was counted."""
        return float(self.errors.sum() / self.counts.sum())

    def row(self) -> dict[str, Any]:
        """The means; None where no step was counted. It waits for all steps."""
        self.settle()
        errors = [_json(value) for value in (self.errors / self.counts).tolist()]
        return {
            "loss": _json(self.mean_loss),
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "skipped": self.skipped,
            "error_by_t": errors,
        }


def _by_time(t: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and numbers of the errors in each of `LEVELS` bins of t, float64 and int64."""
    bins = (t * LEVELS).long().clamp(0, LEVELS - 1).cpu()
    return torch.bincount(bins, errors.cpu().double(), LEVELS), torch.bincount(bins, None, LEVELS)


def _json(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity."""
    return None if value is None or not math.isfinite(value) else value


def validation_row(found: Validation) -> dict[str, Any]:
    """A validation as plain data: the entry `validation` of a log line.

    Errors are means over the bins of time of `error_by_t`, None where a bin is empty. A number that
    is not finite is None. `nll`, its standard error and its unit are there if they were measured.
    A classifier has `accuracy`, and `accuracy_by_t` in the same bins, as 1 − `error_by_t`.
    """
    row: dict[str, Any] = {
        "loss": _json(found.loss),
        "std_error": _json(found.std_error),
        "training_loss": _json(found.training_loss),
        "n": len(found.errors),
    }
    for name, errors in (("", found.errors), ("training_", found.training_errors)):
        there = errors.isfinite()
        sums, counts = _by_time(found.t[there], errors[there])
        row[f"{name}error_by_t"] = [_json(mean) for mean in (sums / counts).tolist()]
    if found.accuracy is not None:
        row["accuracy"] = _json(found.accuracy)
        row["accuracy_by_t"] = [None if e is None else 1 - e for e in row["error_by_t"]]
    if found.nll is not None:
        row |= {"nll": _json(found.nll), "nll_std_error": _json(found.nll_std_error)}
        row["unit"] = found.unit
    return row


class Log:
    """The log file: the lines up to the checkpoint from which a run resumes, then new lines.

    Args:
        path: The file. It is only read here; `begin` and `write` change it.
        done: Steps done.
        batch: Images per step.
        parts: What a loss consists of, if it does not depend on a time: from the mean loss and the
            mean error to entries that take the place of the errors by time; otherwise None.

    Attributes:
        rows: The lines, as dicts.
    """

    def __init__(self, path: Path, done: int, batch: int, parts: Parts | None = None) -> None:
        self.path, self.batch, self._parts = path, batch, parts
        # Lines of steps after the checkpoint will be written again.
        self.rows = list(takewhile(lambda row: row["step"] <= done, _rows(path)))
        self._mark = done, time.monotonic()
        self._latest: tuple[float, float] | None = None

    def begin(self) -> None:
        """Remove the lines of steps after the checkpoint, which will be written again."""
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.rows)

    def write(
        self, step: int, seconds: float, means: Means, validation: Validation | None = None
    ) -> None:
        """Append a line, and begin the means of the next line.

        Args:
            step: Steps done.
            seconds: Time of these steps.
            means: Means of the steps since the latest line.
            validation: The validation of this step, if there was one.
        """
        rate = self._rate(step)
        row = {"step": step, **self._in_parts(means.row(), means.mean_error)}
        row |= {"images_per_second": round(rate, 1), "seconds": round(seconds, 1)}
        if validation is not None:
            error = float(validation.errors.mean())
            row["validation"] = self._in_parts(validation_row(validation), error)
        self.rows.append(row)
        self._mark = step, time.monotonic()
        self._latest = means.mean_loss, rate
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _in_parts(self, row: dict[str, Any], error: float) -> dict[str, Any]:
        """A line with the parts of its loss, if it has such parts, and without errors by time."""
        if self._parts is None:
            return row
        loss = math.nan if row["loss"] is None else row["loss"]
        parts = {name: _json(value) for name, value in self._parts(loss, error).items()}
        return {k: v for k, v in row.items() if not k.endswith("error_by_t")} | parts

    def shown(self, step: int, means: Means) -> tuple[float, float]:
        """Mean loss and images per second, for a progress bar.

        Both come from the latest line. Before this process has written a line, they are the means
        of the steps so far. The loss is NaN if all these steps were skipped.
        """
        return self._latest or (means.mean_loss, self._rate(step))

    @property
    def validation(self) -> dict[str, Any] | None:
        """The latest validation, as `validation_row` gives it; None if there was none."""
        return next((r["validation"] for r in reversed(self.rows) if "validation" in r), None)

    def _rate(self, step: int) -> float:
        """Images per second since the latest line, or since the start."""
        before, then = self._mark
        # A coarse clock may still show the same time.
        return (step - before) * self.batch / max(time.monotonic() - then, 1e-3)


def is_log(path: Path) -> bool:
    """Whether a file is the log of a run: empty, or its first line has the form of `Log.write`."""
    if not path.is_file():
        return False
    return not path.stat().st_size or not _MARKS.isdisjoint(next(_rows(path), ()))


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
