"""What drawing samples costs: seconds with their spread, memory, and operations of the network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..evaluation import evaluating
from ..score import ScoreModel

__all__ = ["Timing", "bare_seconds", "flops_per_evaluation", "timed", "timing"]

REPEATED_BELOW = 0.5  # seconds; work that takes less is timed again
RUNS = 3  # how often short work is timed
PASSES = 5  # timed evaluations of the bare model


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
    """Seconds of one evaluation of the model on x, without a sampler: the median of five.

    An evaluation before them warms up caches and thread pools.
    """
    with evaluating(model):
        times = [timed(device, lambda: _bare_pass(model, x))[1] for _ in range(1 + PASSES)]
    return statistics.median(times[1:])


def flops_per_evaluation(model: ScoreModel, x: Tensor) -> int | None:
    """Floating point operations of one evaluation for one sample, as torch counts them.

    Products of matrices, convolutions and attention are counted, a multiplication and an addition
    as two operations; elementwise operations are not. None if there are none of these.

    Args:
        model: The score model.
        x: One sample on the device of the model, shape (1, *D).
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with evaluating(model), FlopCounterMode(display=False) as counter:
        _bare_pass(model, x)
    return int(counter.get_total_flops()) or None


@torch.no_grad()
def _bare_pass(model: ScoreModel, x: Tensor) -> None:
    """One evaluation of the model, without a sampler."""
    model.eps(x, 1.0)


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
