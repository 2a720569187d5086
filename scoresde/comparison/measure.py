"""What drawing samples costs: seconds with their spread, memory, and operations of the network."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._condition import map_condition, take_rows
from ..evaluation import count_nfe, evaluating
from ..score import ScoreModel
from ..score.units import to_units
from .draw import DrawSettings
from .pilot import solution_evaluations
from .plan import Cell, likely_evaluations
from .quality import Quality
from .reference import Reference

__all__ = ["Cost", "Timing", "bare_seconds", "flops_per_evaluation", "machine", "timed", "timing"]

REPEATED_BELOW = 0.5  # seconds; work that takes less is timed again
RUNS = 3  # how often short work is timed
PASSES = 5  # timed evaluations of the bare model
# Seconds of the short run that tells the cost of a reference solution: a share of its likely cost.
PILOT_SHARE, LEAST_PILOT, MOST_PILOT = 0.1, 4.0, 20.0


class Timing(NamedTuple):
    """Seconds of a piece of work that was done once or several times, and its memory.

    Attributes:
        seconds: Median of all runs.
        low: Shortest run.
        high: Longest run.
        memory: Largest memory that tensors took on the GPU in the first run, in bytes, the network
            included; None on the CPU, where the system does not tell what belongs to this work.
    """

    seconds: float
    low: float
    high: float
    memory: int | None


def timed(device: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work`, and its seconds, including those of the GPU."""
    _synchronize(device)
    began = time.perf_counter()
    out = work()
    _synchronize(device)
    return out, time.perf_counter() - began


def timing(device: str, work: Callable[[], Any]) -> tuple[Any, Timing]:
    """The result of `work`, and what it cost; short work is done `RUNS` times.

    Args:
        device: Device of the work.
        work: Function that gives the same result each time.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    out, first = timed(device, work)
    memory = torch.cuda.max_memory_allocated(device) if on_gpu else None
    times = [first]
    while first < REPEATED_BELOW and len(times) < RUNS:
        times.append(timed(device, work)[1])
    return out, Timing(statistics.median(times), min(times), max(times), memory)


def bare_seconds(device: str, model: ScoreModel, x: Tensor) -> float:
    """Seconds of one counted evaluation on x, without a sampler: the median of five.

    An evaluation before them warms up caches and thread pools. A guided model has several networks,
    whose mean it is.
    """
    with evaluating(model):
        passes = [timed(device, lambda: _bare_pass(model, x)) for _ in range(1 + PASSES)]
    counts, times = zip(*passes, strict=True)
    return statistics.median(times[1:]) / counts[0]


def flops_per_evaluation(model: ScoreModel, x: Tensor, compiled: bool = False) -> int | None:
    """Floating point operations of one evaluation for one sample, as torch counts them.

    Those of a compiled network are counted without the compiler, which hides them.

    Products of matrices, convolutions and attention are counted, a multiplication and an addition
    as two operations; elementwise operations are not. None if there are none of these.

    Args:
        model: The score model.
        x: Samples on the device of the model, shape (B, *D), as many as `NetworkScore.rows` if the
            network fills up batches.
        compiled: Whether the network is compiled.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    counter = FlopCounterMode(display=False)
    # Its tracker of modules cannot follow `torch.autograd.grad`, and only the sum is needed.
    counter.mod_tracker = _WholeModel()
    with eager, evaluating(model), counter:
        counted = _bare_pass(model, x)
    return int(counter.get_total_flops()) // (len(x) * counted) or None


class _WholeModel(nullcontext):
    """In place of torch's tracker of modules: all operations are counted together."""

    parents = ("Global",)


@dataclass(frozen=True)
class Cost:
    """What a model and the metrics of its samples cost on this machine, measured when asked for.

    Attributes:
        model: Score model, on the device of the settings.
        settings: The settings of all draws.
        start: x_T, shape (n, *D).
        quality: The metrics; None for none.
        solutions: Evaluations per sample of each reference solution that was asked for.
    """

    model: ScoreModel
    settings: DrawSettings
    start: Tensor
    quality: Quality | None
    solutions: dict[str, float] = field(default_factory=dict)

    def first(self, n: int) -> tuple[ScoreModel, Tensor]:
        """The model with the condition of the first n rows, and x_T of these on its device."""
        y, device, x = self.settings.y, self.settings.device, self.start[:n]
        if y is None:
            return self.model, x.to(device)
        y = map_condition(lambda leaf: leaf.to(device), take_rows(y, slice(len(x))))
        return self.model.given(y), x.to(device)

    @cached_property
    def evaluation_seconds(self) -> float:
        """Seconds of one evaluation of the bare model for all samples, from the first batch."""
        model, x = self.first(self.settings.batch)
        return bare_seconds(self.settings.device, model, x) * self.settings.n / len(x)

    @cached_property
    def flops(self) -> int | None:
        """Floating point operations of one evaluation for one sample; None if none are counted."""
        compiled = self.settings.compiled
        return flops_per_evaluation(*self.first(self.settings.batch if compiled else 1), compiled)

    @cached_property
    def metric_seconds(self) -> float:
        """Seconds of the metrics of one cell, measured on x_T."""
        if self.quality is None:
            return 0.0
        x = to_units(self.model, self.start.to(self.settings.device))  # decodes latents
        return timed("cpu", lambda: self.quality.measure(x))[1]

    def flops_of(self, evaluations: int) -> int | None:
        """Floating point operations of some evaluations of one sample, if they are counted."""
        return None if self.flops is None else self.flops * evaluations

    def of_cell(self, cell: Cell) -> float:
        """Expected seconds of a cell that must be measured, with its metrics.

        Short work is timed several times; see `timing`.
        """
        once = self.evaluation_seconds * likely_evaluations(cell)
        return once * (RUNS if once < REPEATED_BELOW else 1) + self.metric_seconds

    def of_solution(self, solver: Reference) -> float:
        """Expected seconds of the reference solution, with its metrics, from a short run of it."""
        if solver.fingerprint not in self.solutions:
            likely = solver.likely_evaluations(self.model.sde) * self.model.evaluations
            likely *= self.evaluation_seconds
            allowed = min(max(PILOT_SHARE * likely, LEAST_PILOT), MOST_PILOT)
            self.solutions[solver.fingerprint] = solution_evaluations(solver, self.model, allowed)
        evaluations = self.solutions[solver.fingerprint]
        return self.evaluation_seconds * evaluations + self.metric_seconds


@torch.no_grad()
def _bare_pass(model: ScoreModel, x: Tensor) -> int:
    """One evaluation of the model, without a sampler; returns how many were counted."""
    with count_nfe(model) as counted:
        model.eps(x, model.t_most)
    return counted.forward


def machine(device: str) -> dict[str, Any]:
    """The machine and Python, on which times depend, as plain data."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
