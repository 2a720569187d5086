"""Log-likelihoods at equal total error: the cost of `Path` and of the standard method.

    python benchmarks/likelihood.py                            # a random mixture, D = 16
    python benchmarks/likelihood.py --modes                    # four modes far apart, D = 32
    python benchmarks/likelihood.py --checkpoint digits-vp --truth digits.json
    python benchmarks/likelihood.py --checkpoint fashion-mnist-vp --truth fashion.json

The standard is dopri5 on [t, x, log p] at 1e-5 with one fixed Rademacher probe and one
vector–Jacobian product at every evaluation. All other methods are measured in the same run on the
same points:

    units      forward passes + c · derivative passes per sample, both counted at the model; c is
               timed on the given network (0.97 for a mixture, whose score is not a network)
    RMS        root mean square error of one sample, bits/dim, over points and seeds, after
               subtracting the standard error of the truth if it has one
    bias       mean error over points and seeds, with its standard error
    path bias  the part of the bias from the path's steps, measured as the difference to a path of
               96 steps with the same nodes and probes
    stated     root mean square of the standard errors stated by the method
    cover      share of the stated 95 % intervals that hold the truth

A grid of paths is tried. Paths with a path bias of at most 1e-3 bits/dim are run on some of the
points (pilot). The paths on the Pareto front of this pilot run, and the cheapest paths with about
the standard's error, are measured with other seeds on all points. The winners are measured again
with eight times as many new seeds, because the best of many may be best by luck. If other paths win
then, they are measured again, too. The verdict uses only rows that were measured again.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch
from likelihood_methods import Candidate, PathBias, by_path, measure, standards
from likelihood_problems import Problem, exact_problem, network_problem
from likelihood_report import ALLOWED, Row, figure, table, verdict, winners
from script import print_header, write

from scoresde.likelihood import Hutchinson, Probing, TraceSearch, choose_trace
from scoresde.likelihood import Path as PathMethod

# Steps, nodes, traces and κ of the grid.
GRID = (
    (8, 12, 16, 20, 24, 32),
    (4, 6, 8, 12, 16),
    (Hutchinson(), Hutchinson(probes=2), Probing(4), Probing(4, 2), Probing(8)),
    (1 / 6, 0.25, 0.5),
)
NETWORK_GRID = (*GRID[:3], (1 / 6,))
# Paths that cost more than this share of the standard's cost are not tried.
DEAREST = 1 / 3

PILOT_SEEDS = range(10**6, 10**6 + 2)
AGAIN = 8  # factor of the number of draws for the rows of the verdict
KEPT = 10  # number of cheapest paths with the standard's error that are kept


def promising(problem: Problem, methods: Sequence[Candidate], rms: float) -> list[Candidate]:
    """The candidates on the front of a pilot run, and the cheapest near the wanted error."""
    rows = [measure(problem, method, PILOT_SEEDS) for method in methods]
    order = sorted(range(len(rows)), key=lambda i: rows[i].units)
    kept, best = set(), math.inf
    for i in order:
        if rows[i].rms < best:
            best = rows[i].rms
            kept.add(i)
    # an RMS over a few points is inaccurate
    near = [i for i in order if rows[i].rms < 1.15 * rms]
    return [methods[i] for i in sorted(kept | set(near[:KEPT]), key=order.index)]


def chosen(problem: Problem, rms: float) -> tuple[Candidate, str]:
    """A path with the trace that `choose_trace` selects for an error, and a remark on its cost."""
    x = problem.x[:10]
    search = TraceSearch(std_error=rms / problem.bits, evaluations=8, pass_cost=problem.pass_cost)
    known = {"t_min": problem.t_min, "control": problem.control}
    found = choose_trace(problem.model, x, search, seed=0, **known)
    passes = search.times * search.repeats * sum(row.passes for row in found.table)
    said = f"auto picks {found.rule}{' with control' * found.controlled} for the standard's RMS, "
    said += f"once, after {passes} derivative passes on {len(x)} points"
    path = PathMethod(nodes=found.table[0].evaluations, trace=found.rule)
    return by_path(path, found.controlled, "auto: "), said


def grid(axes: Sequence[Sequence[Any]]) -> list[Candidate]:
    """Every path, with and without control."""
    return [
        by_path(PathMethod(n, m, trace, spread=k), controlled)
        for n, m, trace, k, controlled in itertools.product(*axes, (False, True))
    ]


def compare(
    problem: Problem, methods: Sequence[Candidate], draws: int, pilot: int
) -> tuple[list[Row], list[str]]:
    """Measure all; return the rows, the standard's first, and remarks."""
    seeds = range(1, draws + 1)
    # other errors vary at most as much as the standard's, so that two draws are enough
    solves = standards(problem)
    rows = [measure(problem, m, seeds[: None if m is solves[0] else 2]) for m in solves]
    progress(f"{len(rows)} by the ODE")
    bias = PathBias(problem, seeds[:4])
    fair = [m for m in methods if abs(bias.of(m)[0]) <= ALLOWED]
    progress(f"{len(fair)} of {len(methods)} paths without much bias")
    tried = [m for m in fair if cost(problem, m) <= DEAREST * rows[0].units]
    kept = promising(problem.first(pilot), tried, rows[0].rms)
    progress(f"{len(kept)} of {len(tried)} paths kept")
    auto, remark = chosen(problem, rows[0].rms)
    default = PathMethod(trace=Hutchinson(probes=2))  # what it takes above 3 dimensions
    defaults = [by_path(default, c, "default: ") for c in (False, True)]
    measured = {method.label: method for method in (*defaults, auto, *kept)}
    for method in measured.values():
        mean, error = bias.of(method)
        row = measure(problem, method, seeds)
        rows.append(replace(row, path_bias=mean, path_bias_error=error))
        progress(method.label)
    confirm(problem, rows, measured, draws)
    said = f"{len(fair)} of {len(methods)} paths have a path bias of at most {ALLOWED:g}, "
    said += f"{len(tried)} were tried on {min(pilot, len(problem.x))} points, {len(kept)} kept"
    return rows, [*bias.said(), said, remark]


def confirm(problem: Problem, rows: list[Row], methods: dict[str, Candidate], draws: int) -> None:
    """Measure the winners again with more and new seeds, until all winners were measured so."""
    more = range(draws + 1, draws + 1 + AGAIN * draws)
    while True:
        new = [row for row in winners(rows).values() if row.draws < len(more)]
        if not new:
            return
        at = rows.index(new[0])
        row = measure(problem, methods[new[0].label], more)
        known = {"path_bias": new[0].path_bias, "path_bias_error": new[0].path_bias_error}
        rows[at] = replace(row, **known)
        progress(f"again: {row.label}")


def cost(problem: Problem, candidate: Candidate) -> float:
    """The units that a path will take."""
    path = candidate.method
    passes = path.trace.cost(problem.dims)
    return path.steps + 1 + path.nodes * (1 + problem.pass_cost * passes)


def progress(text: str) -> None:
    """Print a line to stderr."""
    print(f"{time.process_time():6.0f} s  {text}", file=sys.stderr, flush=True)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", help="A shipped name or a file; a mixture if not given.")
@click.option("--modes", is_flag=True, help="The mixture of four modes far apart.")
@click.option("--seed", default=0, show_default=True, help="Seed of the mixture and the data.")
@click.option("--n", type=click.IntRange(1), help="Points  [default: 1000, network: 32]")
@click.option("--draws", type=click.IntRange(2), default=8, show_default=True, help="Seeds.")
@click.option("--pilot", type=click.IntRange(1), help="Points  [default: 100, network: 4]")
@click.option("--t-min", default=1e-5, show_default=True)
@click.option("--steps", type=click.IntRange(1), multiple=True, help="Steps in the grid of paths.")
@click.option("--nodes", type=click.IntRange(3), multiple=True, help="Nodes in the grid of paths.")
@click.option("--tolerance", default=1e-6, show_default=True, help="Of a network's truth.")
@click.option("--truth", type=click.Path(path_type=Path), help="File that keeps the truth.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write all rows here.")
@click.option("--figure", "picture", type=click.Path(path_type=Path), help="Draw them here.")
def main(
    checkpoint: str | None,
    modes: bool,
    seed: int,
    n: int | None,
    draws: int,
    pilot: int | None,
    t_min: float,
    steps: tuple[int, ...],
    nodes: tuple[int, ...],
    tolerance: float,
    truth: Path | None,
    out: Path | None,
    picture: Path | None,
) -> None:
    """Measure, print the table, and write the requested files."""
    torch.set_num_threads(1)
    header = print_header(seed=seed)
    if checkpoint is None:
        problem = exact_problem(modes, seed, n or 1000, t_min)
        axes, pilot = GRID, pilot or 100
    else:
        problem = network_problem(checkpoint, seed, n or 32, t_min, tolerance, file=truth)
        axes, pilot = NETWORK_GRID, pilot or 4
    progress("truth found")
    methods = grid((steps or axes[0], nodes or axes[1], *axes[2:]))
    rows, remarks = compare(problem, methods, draws, pilot)
    about = header | {
        "model": problem.name,
        "points": len(problem.x),
        "draws": draws,
        "t_min": t_min,
        "truth": problem.about,
        "truth_error": float(problem.truth_error.square().mean().sqrt()) * problem.bits,
        "pass_cost": problem.pass_cost,
        "remarks": remarks,
        "seconds": time.process_time(),
    }
    print("{model}: {points} points, t_min {t_min:g}, {draws} draws of the probes".format(**about))
    print("{seconds:.0f} s".format(**about))
    print("truth: {truth}; standard error {truth_error:.1e} bits/dim".format(**about))
    print("a derivative pass is {pass_cost:.2f} forward passes".format(**about))
    print(*remarks, sep="\n")
    print(f"\n{table(rows)}\n\n{verdict(rows)}")
    if picture is not None:
        write(picture, figure(rows, f"{problem.name}, {len(problem.x)} points"))
    if out is not None:
        report = about | {"rows": [asdict(row) for row in rows]}
        write(out, json.dumps(report, indent=1).encode())


if __name__ == "__main__":
    main()
