"""Measure whether samplers converge as they promise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from torch import Tensor

from ..exact import GaussianMixture
from ..samplers import Sampler
from .claims import GRIDS, SDES, Claim
from .orders import (
    exact_flow,
    gaussian,
    mixture,
    ode_errors,
    slope,
    starts,
    tolerance_errors,
    weak_errors,
)
from .strong import strong_errors

__all__ = ["TITLES", "Row", "Trial", "finite_or_none", "run_trials", "trials_of"]

PATHS, REFERENCE_STEPS = 1000, 1024  # of strong errors
WORDS = {True: "ok", False: "MISSED", None: "no claim"}


@dataclass(frozen=True)
class Trial:
    """One claim in one setting, with the sampler that its text names."""

    claim: Claim
    sampler: Sampler
    sde: str
    grid: str
    ladder: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """What was measured in a trial.

    Attributes:
        sampler: Its text.
        kind: The kind of claim.
        sde: Name of the SDE.
        grid: Name of the grid.
        expected: The order claimed, or None; of kind "tolerance" the largest error/tolerance.
        band: How far the observed order may be off.
        observed: Least-squares slope over the claim's steps; of kind "tolerance" the largest
            error/tolerance; None if nothing was measured.
        last: The slope between the last two steps.
        verdict: "ok", "MISSED" or "no claim".
        steps: Numbers of steps, or tolerances.
        nfe: Evaluations at each; empty where they are not counted.
        errors: Errors at each.
        seconds: What it took.
        paper: Who claims it.
        note: What else to know.
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
        """Whether a promise was broken."""
        return self.verdict == WORDS[False]


def trials_of(
    claims: Iterable[Claim],
    sdes: Sequence[str],
    make: Callable[[str], Sampler],
    quick: bool = False,
) -> list[Trial]:
    """The settings in which to measure some claims.

    Args:
        claims: The claims.
        sdes: Names in `SDES`; a claim is measured under those that it names, too.
        make: The sampler of a text.
        quick: Measure claims marked so alone, without the steps that only the figure shows.
    """
    out = []
    for claim in claims:
        if quick and not claim.quick:
            continue
        ladder = claim.steps if quick or claim.kind != "ode" else _from_ten(claim.steps)
        out += [
            Trial(claim, make(claim.sampler), sde, grid, ladder)
            for sde in sdes
            if sde in claim.sdes
            for grid in claim.grids
        ]
    return out


def run_trials(trials: Sequence[Trial], tell: Callable[[str, int, int, str], None]) -> list[Row]:
    """Measure all.

    Args:
        trials: What.
        tell: Called with (kind, done, total, note) as the work goes on.

    Raises:
        RuntimeError: If a reference solution fails.
    """
    rows = []
    for kind in dict.fromkeys(trial.claim.kind for trial in trials):
        some = [trial for trial in trials if trial.claim.kind == kind]
        began = time.perf_counter()
        for i, trial in enumerate(some):
            tell(TITLES[kind], i, len(some), f"{trial.sde}, {trial.claim.sampler}")
            rows.append(_measured(trial))
        tell(TITLES[kind], len(some), len(some), f"{time.perf_counter() - began:.1f} s")
    return rows


TITLES = {
    "ode": "orders of ODE solvers",
    "weak": "weak orders",
    "strong": "strong orders",
    "tolerance": "tolerances",
    "none": "no order",
}


def _measured(trial: Trial) -> Row:
    claim, began = trial.claim, time.perf_counter()
    errors, nfe = MEASURES[claim.kind](trial)
    observed = last = None
    if claim.kind == "tolerance":
        observed = max(e / tol for e, tol in zip(errors, trial.ladder, strict=True))
    elif errors:
        window = len(claim.steps)
        observed = slope(trial.ladder[-window:], errors[-window:])
        last = slope(trial.ladder[-2:], errors[-2:])
    return Row(
        sampler=claim.sampler,
        kind=claim.kind,
        sde=trial.sde,
        grid=trial.grid,
        expected=claim.order,
        band=claim.band,
        observed=finite_or_none(observed),
        last=finite_or_none(last),
        verdict=WORDS[None if observed is None else claim.holds(observed)],
        steps=list(trial.ladder),
        nfe=nfe,
        errors=[finite_or_none(e) for e in errors],
        seconds=round(time.perf_counter() - began, 3),
        paper=claim.paper,
        note=claim.note,
    )


def _ode(trial: Trial) -> tuple[list[float], list[int]]:
    where = GRIDS[trial.grid]
    model, start, exact = _problem(trial.sde, where.t_min)
    grids = [where.grid(model.sde, n, where.t_min) for n in trial.ladder]
    return ode_errors(model, trial.sampler, grids, start, exact)


def _tolerance(trial: Trial) -> tuple[list[float], list[int]]:
    where = GRIDS[trial.grid]
    model, start, exact = _problem(trial.sde, where.t_min)
    ends = where.grid(model.sde, 1, where.t_min)
    return tolerance_errors(model, trial.sampler, trial.ladder, ends, start, exact)


def _weak(trial: Trial) -> tuple[list[float], list[int]]:
    sde, where = SDES[trial.sde], GRIDS[trial.grid]
    grids = [where.grid(sde, n, where.t_min) for n in trial.ladder]
    return weak_errors(sde, trial.sampler, grids), []


def _strong(trial: Trial) -> tuple[list[float], list[int]]:
    model, where = gaussian(SDES[trial.sde]), GRIDS[trial.grid]
    errors = strong_errors(
        model,
        trial.sampler,
        where.grid,
        trial.ladder,
        (PATHS, 1),
        reference_steps=REFERENCE_STEPS,
        t_min=where.t_min,
    )
    return errors, []


MEASURES: dict[str, Callable[[Trial], tuple[list[float], list[int]]]] = {
    "ode": _ode,
    "weak": _weak,
    "strong": _strong,
    "tolerance": _tolerance,
    "none": lambda _: ([], []),
}


@cache
def _problem(sde: str, t_min: float) -> tuple[GaussianMixture, Tensor, Tensor]:
    """The model, the starts, and the exact ends, which are expensive."""
    model = mixture(SDES[sde])
    start = starts(model.sde)
    return model, start, exact_flow(model, start, t_min)


def _from_ten(steps: tuple[float, ...]) -> tuple[float, ...]:
    """The steps, after halves of the first of them down to ten or so, for the figure."""
    before = []
    n = steps[0] // 2
    while n >= 10:
        before.append(n)
        n //= 2
    return (*reversed(before), *steps)


def finite_or_none(value: float | None) -> float | None:
    """The number, or None if it is not finite: JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
