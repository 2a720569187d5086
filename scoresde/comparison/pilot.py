"""How many evaluations the reference solution will take, from a short run on few samples.

An adaptive method takes more evaluations on a network than on N(0, 1), where they can be counted at
no cost: 1.5 to 2.7 times on the shipped checkpoints at 1e-6, and 11 times on a network with random
weights. The method has one step size for all samples, and the mean of their squared errors decides
on it. One image therefore shows nearly the number for many; of points in the plane many are needed.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from ..evaluation import count_nfe
from ..exact import GaussianMixture
from ..score import ScoreModel
from .limit import OutOfTimeError, TimeLimit
from .plan import ADAPTIVE_FACTOR
from .reference import Reference

__all__ = ["solution_evaluations"]

NUMBERS = 1024  # least size of the state in the short run, if there are samples enough

Reached = list[tuple[float, int]]  # times that the solver reached, and evaluations until then


def solution_evaluations(solver: Reference, model: ScoreModel, seconds: float) -> float:
    """Evaluations per sample of the solution and of the check of its error.

    The solver runs on the first samples. If it does not reach the last time in the given seconds,
    the rest is an estimate. It is dearer than on N(0, 1) by the geometric mean of the usual factor
    and of the factor of the part that was done: the first steps on N(0, 1) are very large, so that
    this part alone says too much.

    Args:
        solver: The solver.
        model: Score model, on the device of the solver's settings.
        seconds: Time for the run. At least one step is made.
    """
    shape = solver.settings.data_shape
    most = min(solver.settings.n, solver.settings.batch)
    few = min(most, max(NUMBERS // math.prod(shape), 1))
    t, evaluations = _run(model, solver, few, TimeLimit(time.monotonic() + seconds))[-1]
    free = GaussianMixture(model.sde, [1.0], torch.zeros(1, *shape), [1.0])
    on_cpu = replace(solver, settings=replace(solver.settings, device="cpu", y=None))
    counted = _run(free, on_cpu, few, TimeLimit())
    times, counts = np.array(counted[::-1]).T
    done, every = float(np.interp(t, times, counts)), counted[-1][1]
    rest = (every - done) * math.sqrt(ADAPTIVE_FACTOR * evaluations / done)
    return solver.with_check(evaluations + rest)


def _run(model: ScoreModel, solver: Reference, n: int, limit: TimeLimit) -> Reached:
    """The course of the solution for n samples, until it is complete or the time is over."""
    reached: Reached = []

    def on_step(step: int, t: float, x: object) -> None:
        reached.append((t, counted.forward))
        limit.check()

    with count_nfe(model) as counted:
        try:
            solver.solution(model, solver.tolerance, n, on_step)
        except OutOfTimeError:
            pass
    return reached
