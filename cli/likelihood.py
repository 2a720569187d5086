"""`scoresde likelihood`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import (
    Integer,
    Real,
    checkpoint_option,
    data_root_option,
    device_option,
    json_option,
    known,
    out_option,
    overwrite_option,
    seed_option,
)

__all__ = ["likelihood"]

# What `scoresde.tasks.protocols` knows, for help that must not import torch; a test compares them.
PROTOCOLS = (
    *("pf-ode/continuous", "pf-ode/uniform", "pf-ode/truncated-normal"),
    *("pf-ode/decoder", "pf-ode/uniform+decoder", "vlb-continuous", "vlb-ddpm"),
)
METHODS = ("auto", "path", "dopri8", "dopri5", "bosh3", "adaptive_heun", "dop853")


def _trace(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return value if value == "auto" else known("parse_trace")(ctx, param, value)


_tolerance = Real(0, 1, min_open=True, max_open=True)


@click.command()
@checkpoint_option
@click.option("--data", help="Data set or path; the data it was trained on if not given.")
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="test if not given; all of a file given by --data.",
)
@data_root_option
@click.option("--levels", type=Integer(2), help="Number of levels of a file's data.")
@click.option("--n", type=Integer(1), default=128, show_default=True, help="How many images.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help="What the number is; pf-ode/uniform, or pf-ode/continuous, if not given.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="path: few evaluations, random nodes, corrected; others: an ODE solver to a tolerance. "
    "auto is path above 16 dimensions, dopri5 else.",
)
@click.option("--per-sample", is_flag=True, help="ODE methods: a step size for each image.")
@click.option(
    "--trace",
    default="auto",
    show_default=True,
    callback=_trace,
    help="exact, hutchinson:probes=2, probing:colours=8:blocks=2, xtrace, hutch++; auto measures "
    "which is cheapest (path), or is exact up to 16 dimensions and one probe above.",
)
@click.option("--force", is_flag=True, help="Allow an exact trace above 4096 dimensions.")
@click.option(
    "--image-error",
    type=Real(0, min_open=True),
    default=0.05,
    show_default=True,
    help="Standard error of each image that --trace auto aims at, bits/dim.",
)
@click.option(
    "--steps", type=Integer(1, 100_000), help="Of the path (32) or of vlb-ddpm's chain (1000)."
)
@click.option(
    "--nodes", type=Integer(1, 100_000), help="Of the path (measured) or strata of a VLB (64)."
)
@click.option(
    "--variance",
    type=click.Choice(["beta", "beta_tilde"]),
    default="beta_tilde",
    show_default=True,
    help="Of vlb-ddpm's reverse steps.",
)
@click.option(
    "--draws", type=Integer(1), default=1, show_default=True, help="Dequantizations per image."
)
@click.option(
    "--rtol", type=_tolerance, default=1e-6, show_default=True, help="Relative tolerance, ODE."
)
@click.option(
    "--atol", type=_tolerance, default=1e-6, show_default=True, help="Absolute tolerance, ODE."
)
@click.option(
    "--t-min",
    type=_tolerance,
    help="Time the data are put in at. Default: 1e-5, or that of the first discrete label; a VLB's "
    "own.",
)
@click.option(
    "--measured",
    type=Integer(0),
    default=8,
    show_default=True,
    help="Images scored again with a finer solver and in float64, to measure those errors.",
)
@click.option("--batch", type=Integer(1), default=64, show_default=True, help="Images at a time.")
@seed_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of data and network; the solver's state is float64 in any case.",
)
@device_option
@click.option("--budget", is_flag=True, help="Print the whole error budget, not just its head.")
@out_option("Folder for the results, one row per image in per_image.csv.")
@overwrite_option
@json_option
def likelihood(out: Path, overwrite: bool, as_json: bool, budget: bool, **options: Any) -> None:
    """Likelihood of held-out data in bits/dim, with an error budget. Stopped, it resumes.

    Example: scoresde likelihood --checkpoint digits-vp --n 128 --budget --out out/bits
    """
    from scoresde.tasks.scoring import ScoreRequest, score_data

    from .progress import follow

    with follow("likelihood") as on_progress:
        summary = score_data(ScoreRequest(**options), out, overwrite, on_progress)
    if as_json:
        click.echo(json.dumps(summary))
        return
    table = (out / "budget.txt").read_text(encoding="utf-8")
    click.echo(table if budget else table.partition("\n")[0])
    click.echo(f"{out / 'per_image.csv'}, budget.txt, budget.png; {summary['seconds']:.1f} s")
