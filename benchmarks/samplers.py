"""Our deterministic samplers and those of diffusers and azula, at equal evaluations.

    python benchmarks/samplers.py --json mixture.json --figure out/samplers.png
    python benchmarks/samplers.py --checkpoint fashion-mnist-vp

Every sampler starts from the same x_T on the same model. The exact end point is the solution of the
probability-flow ODE at σ = 0. The error is the root mean square distance to this end point, over
samples and coordinates. Evaluations are counted at the model, for all libraries in the same way. A
column holds the runs within a number of evaluations. For each column and library the setting with
the smallest error is shown.

`recommended` is `scoresde.sample` with the number of evaluations as its only setting. Below the
errors stand its ratios to the best setting of each peer, for each number of evaluations.

Without `--checkpoint` the model is the exact score of a random mixture of Gaussians in 16
dimensions under DDPM's linear β: 8 components, weights uniform on [0.5, 1.5] and then normalised,
means N(0, I), covariances A Aᵀ/64 + 0.01 I with A_ij ~ N(0, 1). `--seed` draws mixture and x_T,
`--dim` and `--std` give other dimensions, with A Aᵀ/(4 dim), and scales; `--ve` puts the mixture
under VE(0.01, 50). A model that is not under VP is given to the peers, and to our settings, as a
VP of equal σ/α.
With `--checkpoint` the model is a trained network. Then a pilot run on two samples chooses the
settings that are tried on all samples.

diffusers has its own grids; azula's noise schedules are its grids. `peers, our grids` are the
samplers of both libraries that accept any noise levels, on our grids.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import click
import torch
from paired import OURS, RECOMMENDED, Levels, PairedProblem, Setting, mixture, network, rmse
from paired_report import PairedResult, figure, leaders, table
from script import print_header, write
from torch import Tensor

from scoresde.grid import uniform
from scoresde.names.grids import parse_grid
from scoresde.names.samplers import parse_sampler, sampler_label
from scoresde.samplers import sample
from scoresde.samplers.steps import largest_steps
from scoresde.score import count_nfe
from scoresde.sde import SDE, VP

BUDGETS = (5, 6, 8, 10, 15, 20, 30)

SAMPLERS = (
    *("ddim", "heun", "rk4", "dpm-2", "dpmpp-3s"),
    *("dpmpp-2m", "dpmpp-2m:lower_order_final=true", "dpmpp-3m:lower_order_final=true"),
    *("unipc:order=2:prediction=eps", "unipc:lower_order_final=true"),
    *("deis", "deis:order=3", "deis-rho", "ipndm", "ipndm:order=3", "exp-ab:prediction=x0"),
    *(f"angular:order={p}" for p in (2, 3, 4)),
    *(f"angular:order={p}:corrector=false" for p in (2, 3)),
    *(f"sa-solver:eta=0:predictor_order={p}:corrector_order={p + 1}" for p in (2, 3)),
    "sa-solver:eta=0:predictor_order=2:corrector_order=3:lower_order_final=false",
)
# The steps in σ/α are finest near a scale d of the data: `arctan:data_std=d` or
# `logit:shift=log d`. d is about the standard deviation along the leading principal component: 1
# for the mixture and 8 for Fashion-MNIST.
COMMON = ("uniform", "quadratic", "log_snr", "karras:rho=7")
GRIDS = (*COMMON, "arctan", "arctan:power=1.2", "arctan:power=1.4", "logit")
NETWORK_GRIDS = (*COMMON, "arctan:data_std=8:power=2", "logit:shift=2")
# (t_min, final denoise). At t = 1e-6, σ is 3e-4. No network was trained there.
ENDS = ((1e-6, False), (1e-3, False), (1e-2, False), (1e-2, True), (3e-2, True))
NETWORK_ENDS = ENDS[1:]

# Settings of each family in each column that --json keeps, and that pass a pilot run.
KEPT = 2
PILOT, PILOT_BUDGETS = 2, (5, 12)


def our_settings(grids: Sequence[str], ends: Sequence[tuple[float, bool]]) -> list[Setting]:
    """Each of our deterministic samplers above × grids × ends."""
    return [
        Setting(
            OURS,
            text.partition(":")[0],
            f"{text} {grid} t_min={t_min:g}{' denoised' * denoise}",
            partial(_run_ours, text, grid, t_min, denoise),
        )
        for text in SAMPLERS
        for grid in grids
        for t_min, denoise in ends
    ]


def peer_settings() -> list[Setting]:
    """The settings of the peers that are installed."""
    settings = []
    if importlib.util.find_spec("diffusers"):
        from peers_diffusers import diffusers_settings

        settings += diffusers_settings()
    if importlib.util.find_spec("azula"):
        from peers_azula import azula_settings

        settings += azula_settings()
    return settings


def _run_ours(
    text: str, grid: str, t_min: float, denoise: bool, levels: Levels, x: Tensor, nfe: int
) -> Tensor | None:
    steps = _steps(text, nfe - denoise)
    if steps < 1:
        return None
    ts = _grid(grid, levels.model.sde, steps, t_min)
    done = sample(
        levels.model,
        parse_sampler(text),
        ts,
        x.shape,
        seed=0,
        x_init=x,
        denoise=denoise,
        dtype=x.dtype,
    )
    return done.x


@cache
def _grid(text: str, sde: SDE, steps: int, t_min: float) -> Tensor:
    return parse_grid(text)(sde, steps, t_min)


@cache
def _steps(text: str, budget: int) -> int:
    """The most steps within `budget` evaluations, without the final denoising."""
    return largest_steps(VP(), parse_sampler(text), uniform, budget + 1, 1e-3)


def recommended_samples(problem: PairedProblem, nfe: int) -> PairedResult:
    """`sample` with the number of evaluations as its only setting, from the same x_T."""
    model, top = problem.model, problem.levels.top
    scale = model.sde.nodes([1.0])[0].alpha / top.alpha
    done = sample(model, nfe=nfe, x_init=problem.x * scale, dtype=problem.x.dtype)
    setting = f"{sampler_label(done.sampler)} {done.grid}"
    error = rmse(done.x, problem.exact)
    return PairedResult(RECOMMENDED, RECOMMENDED, setting, nfe, done.nfe, error)


@torch.no_grad()
def run(problem: PairedProblem, setting: Setting, budget: int) -> PairedResult | str | None:
    """One result; the name of the error if it failed; None if it needs more evaluations."""
    try:
        with count_nfe(problem.levels.model) as counted, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = setting.solve(problem.levels, problem.x, budget)
    except Exception as error:  # a peer's error is a result
        return type(error).__name__
    if x is None or counted.forward > budget:
        return None
    distance = rmse(x, problem.exact)
    if not math.isfinite(distance):
        return "not finite"
    where = (setting.library, setting.family, setting.label)
    return PairedResult(*where, budget, counted.forward, distance)


def compare(
    problem: PairedProblem, settings: Sequence[Setting], budgets: Sequence[int]
) -> tuple[list[PairedResult], Counter]:
    """All results, and the number of failures of each kind."""
    results, failures = [], Counter()
    for budget in budgets:
        began = time.perf_counter()
        results.append(recommended_samples(problem, budget))
        for setting in settings:
            result = run(problem, setting, budget)
            if isinstance(result, PairedResult):
                results.append(result)
            elif result is not None:
                failures[f"{setting.library} {setting.family}: {result}"] += 1
        print(f"NFE {budget}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return results, failures


def promising(problem: PairedProblem, settings: Sequence[Setting]) -> list[Setting]:
    """The settings to try on a costly model, by the same rule for every library.

    A pilot run on two samples selects the best two of each family at few and at more evaluations,
    if their error is within a factor of 2 of the best of their library.
    """
    few = slice(PILOT)
    pilot = replace(problem, x=problem.x[few], exact=problem.exact[few])
    results, _ = compare(pilot, settings, PILOT_BUDGETS)
    best = {(r.library, r.budget): r for r in leaders(results, lambda r: (r.library, r.budget))}
    kept = {
        (r.library, r.family, r.setting)
        for r in leaders(results, lambda r: (r.library, r.family, r.budget), KEPT)
        if r.rmse <= 2 * best[r.library, r.budget].rmse
    }
    return [s for s in settings if (s.library, s.family, s.label) in kept]


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", help="A trained network, by name or path, instead of the mixture.")
@click.option("--seed", default=0, show_default=True, help="Draws the mixture and x_T.")
@click.option("--n", type=click.IntRange(2), help="Starting points; 256, or 16 for a network.")
@click.option("--nfe", multiple=True, type=click.IntRange(1), default=BUDGETS, show_default=True)
@click.option("--dim", default=16, show_default=True, help="Dimensions of the mixture.")
@click.option("--std", default=1.0, show_default=True, help="Scale of the mixture.")
@click.option("--ve", is_flag=True, help="The mixture under VE(0.01, 50) instead of VP.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the leaders here.")
@click.option("--figure", "picture", type=click.Path(path_type=Path), help="Draw them, PNG.")
def main(
    checkpoint: str | None,
    seed: int,
    n: int | None,
    nfe: tuple[int, ...],
    dim: int,
    std: float,
    ve: bool,
    out: Path | None,
    picture: Path | None,
) -> None:
    """Run, print the table, and write the requested files."""
    torch.set_num_threads(1)
    header = print_header("diffusers", "azula", seed=seed)
    if checkpoint is None:
        problem = mixture(seed, n or 256, dim, std, ve)
        name = f"mixture of seed {seed}, {dim} dimensions, scale {std:g}, {'VE' if ve else 'VP'}"
        ours = our_settings(GRIDS, ENDS)
    else:
        problem, name = network(checkpoint, seed, n or 16), f"{checkpoint}, x_T of seed {seed}"
        ours = our_settings(NETWORK_GRIDS, NETWORK_ENDS)
    settings = tried = ours + peer_settings()
    if checkpoint is not None:
        tried = promising(problem, settings)
    results, failures = compare(problem, tried, nfe)
    print(f"{name}: {len(problem.x)} samples of {problem.x[0].numel()} numbers, {problem.x.dtype}")
    print(f"error of the reference: {problem.error:.1e}")
    counts = Counter(setting.library for setting in settings)
    print("settings:", "; ".join(f"{v} of {k}" for k, v in counts.items()), end="; ")
    print(f"{len(tried)} of them tried on all samples\n")
    print(table(results, nfe))
    if failures:
        print("\nfailed runs:", *(f"  {v:4d}  {k}" for k, v in failures.items()), sep="\n")
    if picture is not None:
        write(picture, figure(results, name))
    if out is not None:
        best = leaders(results, lambda r: (r.library, r.family, r.budget), KEPT)
        report = header | {"model": name, "failures": failures}
        report["reference_error"] = problem.error
        report["leaders"] = [asdict(result) for result in best]
        write(out, json.dumps(report, indent=1).encode())


if __name__ == "__main__":
    main()
