"""Measure whether claims about samplers hold: from trials to measurements with verdicts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from ..output.progress import Tell
from ..samplers import Sampler
from .claims import CHECKED_GRIDS, CHECKED_SDES, Claim
from .orders import OdeProblem, gaussian, mixture, ode_errors, slope, starts, weak_errors
from .strong import strong_errors

__all__ = ["Measurement", "Trial", "run_trials"]

STAGES = {
    "ode": "orders of ODE solvers",
    "weak": "weak orders",
    "strong": "strong orders",
    "tolerance": "tolerances",
    "none": "no order",
}
PATHS, REFERENCE_STEPS = 1000, 1024  # for strong errors
VERDICTS = {True: "ok", False: "MISSED", None: "no claim"}


@dataclass(frozen=True)
class Trial:
    """One claim under one SDE.

    Attributes:
        claim: The claim.
        sampler: The sampler of the claim.
        sde: Name in `CHECKED_SDES`, or of the network's SDE.
        steps: Numbers of steps, or tolerances. The last ones are those of the claim; earlier ones
            are only drawn in the figure.
        network: The ODE of a network; None for the exact model of the SDE.
    """

    claim: Claim
    sampler: Sampler
    sde: str
    steps: tuple[float, ...]
    network: OdeProblem | None = None


@dataclass(frozen=True)
class Measurement:
    """The measurement of a trial: a row of the results.

    Attributes:
        sampler: Text of the sampler.
        kind: The kind of claim.
        sde: Name of the SDE.
        grid: Name of the grid.
        expected: The claimed order, or None; for kind "tolerance" the largest allowed
            error/tolerance.
        band: The largest allowed |observed − expected|.
        observed: Least-squares slope over the claim's steps; for kind "tolerance" the largest
            error/tolerance; None if nothing was measured.
        last: The slope between the last two steps.
        verdict: "ok", "MISSED" or "no claim".
        steps: Numbers of steps, or tolerances.
        nfe: Evaluations for each of `steps`; empty if they are not counted.
        errors: Error for each of `steps`.
        seconds: Time of the measurement.
        paper: Source of the claim.
        note: A remark.
    """

    sampler: str
    kind: str
    sde: str
    grid: str
    expected: float | None
    band: float
    observed: float | None
    last: float | None
    verdict: str
    steps: list[float] = field(default_factory=list)
    nfe: list[int] = field(default_factory=list)
    errors: list[float | None] = field(default_factory=list)
    seconds: float = 0.0
    paper: str = ""
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the claim was missed."""
        return self.verdict == VERDICTS[False]


def run_trials(trials: Sequence[Trial], tell: Tell) -> list[Measurement]:
    """Measure all trials, kind after kind.

    Args:
        trials: The trials.
        tell: Called with (stage, done, total, note) during the work.

    Raises:
        RuntimeError: If a reference solution fails.
    """
    rows = []
    for kind in dict.fromkeys(trial.claim.kind for trial in trials):
        some = [trial for trial in trials if trial.claim.kind == kind]
        began = time.perf_counter()
        for i, trial in enumerate(some):
            tell(STAGES[kind], i, len(some), f"{trial.sde}, {trial.claim.sampler}")
            rows.append(_measured(trial))
        tell(STAGES[kind], len(some), len(some), f"{time.perf_counter() - began:.1f} s")
    return rows


def _measured(trial: Trial) -> Measurement:
    claim, began = trial.claim, time.perf_counter()
    errors, nfe = _errors(trial)
    observed = last = holds = None
    if claim.kind == "tolerance":
        observed = max(e / tol for e, tol in zip(errors, trial.steps, strict=True))
    elif errors:
        window = len(claim.steps)
        observed = slope(trial.steps[-window:], errors[-window:])
        last = slope(trial.steps[-2:], errors[-2:])
    if observed is not None and trial.network is None:
        holds = claim.holds(observed)
    return Measurement(
        sampler=claim.sampler,
        kind=claim.kind,
        sde=trial.sde,
        grid=claim.grid,
        expected=claim.order,
        band=claim.band,
        observed=_finite_or_none(observed),
        last=_finite_or_none(last),
        verdict=VERDICTS[holds],
        steps=list(trial.steps),
        nfe=nfe,
        errors=[_finite_or_none(e) for e in errors],
        seconds=round(time.perf_counter() - began, 3),
        paper=claim.paper,
        note=claim.note,
    )


def _errors(trial: Trial) -> tuple[list[float], list[int]]:
    """The error for each of the trial's steps; for ODE solvers also the evaluations."""
    kind, sampler, grid = trial.claim.kind, trial.sampler, CHECKED_GRIDS[trial.claim.grid]
    if kind == "none":
        return [], []
    if kind in ("ode", "tolerance"):
        problem = trial.network or _exact_problem(trial.sde, grid.t_min)
        sde = problem.model.sde
        if kind == "ode":
            return ode_errors(problem, [(sampler, grid(sde, n)) for n in trial.steps])
        tuned = [replace(sampler, rtol=tol, atol=tol) for tol in trial.steps]
        return ode_errors(problem, [(solver, grid(sde, 1)) for solver in tuned])
    sde = CHECKED_SDES[trial.sde]
    grids = [grid(sde, n) for n in trial.steps]
    if kind == "weak":
        return weak_errors(sde, sampler, grids), []
    finest = grid(sde, REFERENCE_STEPS)
    return strong_errors(gaussian(sde), sampler, grids, finest, (PATHS, 1)), []


@cache
def _exact_problem(sde: str, t_min: float) -> OdeProblem:
    """The ODE of the mixture; all samplers share its solution."""
    model = mixture(CHECKED_SDES[sde])
    return OdeProblem(model, starts(model.sde), t_min)


def _finite_or_none(value: float | None) -> float | None:
    """The number, or None if it is not finite: JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
