"""The stages of an error that the reference solution shows, see `decomposition`.

The solution from the common x_T, and from noised real data instead of the prior. The second is
computed if it is expected to take at most a fifth of the whole comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..fingerprint import fingerprint
from ..grid import uniform
from ..output.parts import load_part
from ..output.progress import Tell
from ..samplers import ProbabilityFlowODE, sample
from ..score import ScoreModel
from .decomposition import SOLUTION, TRUE_START, read_solution, save_solution
from .draw import DrawSettings
from .limit import OutOfTimeError, TimeLimit
from .measure import Cost
from .plan import Cell, likely_evaluations
from .quality import Quality
from .reference import METHOD, Reference

__all__ = ["STAGE", "noised_data", "save_stages", "stage_files", "start_solver"]

TOLERANCE = 1e-3  # for the digits 94 evaluations and an RMSE of 5e-4, far below any metric's noise
LARGEST_SHARE = 0.2  # of the evaluations of the whole comparison
STAGE = "solution from noised data"


class Solved(Protocol):
    """What is needed of a sweep (`Sweep`, which imports this file)."""

    model: ScoreModel
    cells: list[Cell]
    settings: DrawSettings
    quality: Quality | None
    solver: Reference | None
    measures: str
    start: Tensor
    cost: Cost


def stage_files(sweep: Solved) -> list[str]:
    """Paths of the files that `save_stages` writes."""
    if sweep.quality is None or sweep.solver is None:
        return []
    return [SOLUTION, *([TRUE_START] if start_solver(sweep) is not None else [])]


def start_solver(sweep: Solved) -> Reference | None:
    """The solver from noised data; None if it costs too much, or there are no such data.

    Samples of a conditional model have conditions, which held-out data need not share. A model of
    latents does not start from noised data.
    """
    if sweep.quality is None or sweep.solver is None or sweep.settings.y is not None:
        return None
    if sweep.model.decoder is not None:
        return None
    solver = replace(sweep.solver, tolerance=max(TOLERANCE, sweep.solver.tolerance))
    own, exact = (each.likely_evaluations(sweep.model.sde) for each in (solver, sweep.solver))
    cells = sum(likely_evaluations(cell) for cell in sweep.cells if cell.ts is not None)
    cells /= sweep.model.evaluations  # as the solutions, in evaluations of the model
    return solver if own <= LARGEST_SHARE * (own + exact + cells) else None


def noised_data(sweep: Solved) -> Tensor:
    """x_T = α(1) x_0 + σ(1) ε of held-out data, with the ε of the common x_T, shape (n, *D).

    If there are fewer held-out data than samples, they are repeated in turn, with other ε.
    """
    x0 = sweep.quality.real.fresh.to(sweep.start)
    x0 = x0[torch.arange(len(sweep.start)) % len(x0)]
    sde = sweep.model.sde
    return sde.perturb(x0, sde.t_regular, sweep.start / sde.start_std(sde.t_regular))


def save_stages(
    sweep: Solved,
    folder: Path,
    places: Sequence[Path],
    solved: Tensor,
    tell: Tell,
    limit: TimeLimit,
) -> None:
    """Write the metrics of the solution, and of that from noised data if there is time for it.

    Args:
        sweep: The sweep; it has quality metrics and a reference solution.
        folder: Folder to write to.
        places: Folders that may hold the second of the files already.
        solved: The solution from the common x_T, shape (n, *D).
        tell: Called with (stage, done, total, note) during the work.
        limit: The time at which the work ends.
    """
    save_solution(folder, sweep.measures, sweep.quality.measure(solved))
    solver = start_solver(sweep)
    if solver is None:
        return
    made_from = fingerprint([sweep.measures, solver.fingerprint, sweep.quality.real.fresh])
    for place in places:
        if load_part(place / TRUE_START, made_from) is not None:
            save_solution(folder, made_from, read_solution(place, TRUE_START), TRUE_START)
            return
    if not limit.allows(sweep.cost.of_solution(solver)):
        return
    on_progress = partial(tell, STAGE)
    on_progress(0, 100, "")
    try:
        out = sample(
            sweep.model,
            ProbabilityFlowODE(METHOD, solver.tolerance, solver.tolerance),
            uniform(sweep.model.sde, 1, solver.settings.t_min),
            x_init=noised_data(sweep).double(),
            seed=solver.settings.seed,
            batch=solver.settings.batch,
            device=solver.settings.device,
            dtype=torch.float64,
            on_step=lambda *_: limit.check(),
        )
    except OutOfTimeError:
        return
    on_progress(100, 100, "")
    save_solution(folder, made_from, sweep.quality.measure(out.x.float()), TRUE_START)
