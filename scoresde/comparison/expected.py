"""The plan of a comparison with the time that it is expected to take, before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .case import Case
from .insights import INSIGHTS
from .origin import LIKELIHOOD
from .report import report_files
from .stages import STAGE, start_solver

__all__ = ["duration", "likelihood_evaluations", "plan_of", "plan_sentence", "plan_table"]

# Evaluations of the network per datum for a likelihood, with derivative passes counted as two: the
# method `path` with its default settings takes about as many. Data that are scored again with twice
# the steps and in float64 cost four times as much.
LIKELIHOOD_EVALUATIONS, AGAIN = 140, 4
# Seconds of one figure of the page, as SVG and as PDF, and of the rest of the page, on one core.
FIGURE_SECONDS, PAGE_SECONDS = 0.45, 1.0
SOLUTION = "reference solution"
WITHOUT = {SOLUTION: "--reference-tolerance none leaves it out"}  # remarks on parts of a plan


def likelihood_evaluations(case: Case) -> float:
    """Expected cost of the likelihood, in evaluations of the network for all samples of a cell."""
    if case.likelihood is None:
        return 0.0
    n, measured = case.likelihood.n, min(case.likelihood.measured, case.likelihood.n)
    return LIKELIHOOD_EVALUATIONS * (n + AGAIN * measured) / case.sweep.settings.n


def plan_of(cases: Mapping[str, Case]) -> dict[str, Any]:
    """The plan as plain data: every cell with its evaluations, its state and expected seconds.

    The seconds are those after everything is read and checked. Network and metrics are timed on
    this machine, and the evaluations of the reference solution are found by a short run of it.
    Evaluations of other adaptive methods and of the likelihood, and the seconds of the page, are
    estimates.

    Args:
        cases: The cases by name.
    """
    found = [{"case": name, **_case(case)} for name, case in cases.items()]
    return {"seconds": sum(one["seconds"] for one in found), "cases": found}


def _case(case: Case) -> dict[str, Any]:
    """The plan of one case."""
    sweep, missing = case.sweep, {cell.name for cell in case.missing}
    if missing:
        sweep.compile()
    cells = []
    for cell in case.cells:
        state = "cannot run" if cell.ts is None else "to do" if cell.name in missing else "done"
        about = {"cell": cell.name, "evaluations": cell.cost, "steps": cell.steps, "state": state}
        seconds = sweep.cost.of_cell(cell) if state == "to do" else 0.0
        cells.append(about | {"seconds": seconds, "reason": cell.reason})
    parts = {"cells": sum(cell["seconds"] for cell in cells)}
    if any(map(sweep.is_paired, case.missing)) and sweep.solver.find(case.places) is None:
        parts[SOLUTION] = sweep.cost.of_solution(sweep.solver)
        if (further := start_solver(sweep)) is not None:
            parts[STAGE] = sweep.cost.of_solution(further)
    if case.likelihood is not None and not case.results.finished and case.wants(LIKELIHOOD):
        network = sweep.cost.evaluation_seconds * likelihood_evaluations(case)
        parts[LIKELIHOOD] = network + PAGE_SECONDS  # its own figures
    if not case.results.finished:
        if case.insights.missing(case.places):
            parts[INSIGHTS] = sweep.cost.evaluation_seconds * case.insights.evaluations
        parts["report"] = _report_seconds(case)
    return {
        "model": case.given.name,
        "seed": sweep.settings.seed,
        "labels": case.data.how,
        "n": sweep.settings.n,
        "seconds_per_evaluation": sweep.cost.evaluation_seconds if missing else None,
        "seconds": sum(parts.values()),
        "parts": parts,
        "cells": cells,
    }


def _report_seconds(case: Case) -> float:
    """Expected seconds of the page of a case, which are mostly those of its figures."""
    quality, paired = case.sweep.quality, any(map(case.sweep.is_paired, case.cells))
    metrics = [*(() if quality is None else quality.metrics), *(["paired_rmse"] if paired else [])]
    figures = sum(name.endswith(".svg") for name in report_files(metrics))
    return PAGE_SECONDS + FIGURE_SECONDS * figures


def plan_sentence(plan: Mapping[str, Any]) -> str:
    """The plan in one sentence."""
    cells = [cell for case in plan["cases"] for cell in case["cells"]]
    to_do = [cell for cell in cells if cell["state"] == "to do"]
    rest = {part for case in plan["cases"] for part in case["parts"]} - {"cells", "report"}
    also = "".join(f" and the {part}" for part in sorted(rest, reverse=True))
    return (
        f"plan: {len(to_do)} of {len(cells)} cells to do, "
        f"{sum(cell['evaluations'] for cell in to_do)} evaluations of each sample{also}; "
        f"about {duration(plan['seconds'])}"
    )


def plan_table(plan: Mapping[str, Any]) -> str:
    """The plan as lines of text: every cell, and the sum of each case."""
    lines = []
    for case in plan["cases"]:
        title = case["case"] or case["model"]
        lines.append(f"{title}: {case['n']} samples per cell, seed {case['seed']}")
        for cell in case["cells"]:
            if cell["state"] == "to do":
                state = f"{cell['evaluations']} evaluations, {duration(cell['seconds'])}"
            else:
                state = f"cannot run: {cell['reason']}" if cell["reason"] else "done"
            lines.append(f"  {cell['cell']}: {state}")
        for part, seconds in case["parts"].items():
            remark = f" ({WITHOUT[part]})" if part in WITHOUT else ""
            lines.append(f"  {part}: {duration(seconds)}{remark}")
    return "\n".join([*lines, plan_sentence(plan)])


def duration(seconds: float) -> str:
    """Seconds in words, such as "2 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
