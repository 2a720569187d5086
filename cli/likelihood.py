"""`scoresde likelihood`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import Command
from .names import METHODS, PROTOCOLS, TRACES
from .options import (
    batch_option,
    checkpoint_option,
    device_option,
    dtype_option,
    held_out_options,
    result_options,
    seed_option,
    t_min_option,
    tolerance_options,
)
from .output import say
from .types import Integer, Named, Real

__all__ = ["likelihood"]


class _Trace(Named):
    """A trace rule by name with its parameters, or "auto"."""

    def __init__(self) -> None:
        super().__init__("trace", ("auto", *TRACES), "parse_trace")

    def verify(self, value: str) -> None:
        """Refuse parameters that the rule does not have; "auto" is no rule."""
        if value != "auto":
            from scoresde.likelihood import parse_trace

            parse_trace(value)


class _Likelihood(Command):
    groups = {
        "What is scored": (
            *("--checkpoint", "--data", "--split", "--data-root", "--levels", "--n"),
        ),
        "What the number is": ("--protocol", "--t-min", "--draws", "--variance"),
        "How it is computed": (
            *("--method", "--steps", "--nodes", "--rtol", "--atol", "--per-sample"),
            *("--trace", "--force", "--image-error", "--dtype", "--batch", "--seed", "--device"),
        ),
        "How far it is trusted": ("--measured", "--budget"),
        "Where it goes": ("--out", "--overwrite", "--json"),
    }


@click.command(cls=_Likelihood)
@checkpoint_option
@held_out_options
@click.option(
    "--n",
    type=Integer(1),
    default=128,
    show_default=True,
    help="How many data, chosen by the seed.",
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    metavar="NAME",
    help=f"{', '.join(PROTOCOLS)}; pf-ode/uniform, or pf-ode/continuous, if not given.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    metavar="NAME",
    default="auto",
    show_default=True,
    help=f"{', '.join(METHODS)}. path: few evaluations, random nodes, corrected; others: an ODE "
    "solver to a tolerance. auto is path above 16 dimensions, dopri5 else.",
)
@click.option("--per-sample", is_flag=True, help="ODE methods: a step size for each datum.")
@click.option(
    "--trace",
    type=_Trace(),
    default="auto",
    show_default=True,
    help="exact, hutchinson:probes=2, probing:colours=8:blocks=2, xtrace, hutch++; auto measures "
    "which is cheapest (path), or is exact up to 16 dimensions and one probe above.",
)
@click.option("--force", is_flag=True, help="Allow an exact trace above 4096 dimensions.")
@click.option(
    "--image-error",
    type=Real(0, min_open=True),
    default=0.05,
    show_default=True,
    help="Standard error of each datum that --trace auto aims at, in the result's unit.",
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
    "--draws", type=Integer(1), default=1, show_default=True, help="Dequantizations per datum."
)
@tolerance_options(1e-6, ", ODE")
@t_min_option(
    "Time the data are put in at. Default: 1e-5, or that of the first discrete label; a VLB's own."
)
@click.option(
    "--measured",
    type=Integer(0),
    default=8,
    show_default=True,
    help="Data scored again with a finer solver and in float64, to measure those errors.",
)
@batch_option(64, "Data")
@seed_option
@dtype_option("Of data and network; the solver's state is float64 in any case.")
@device_option
@click.option("--budget", is_flag=True, help="Print the whole error budget, not just its head.")
@result_options("Folder for the results, one row per datum in per_image.csv.")
def likelihood(out: Path, overwrite: bool, as_json: bool, budget: bool, **options: Any) -> None:
    """Negative log-likelihood of held-out data per dimension, with an error budget.

    It is in bits/dim, or in nats/dim if the data are continuous. A run that was stopped goes on
    where it was when the same command is given again.

    Example: scoresde likelihood --checkpoint digits-vp --n 128 --budget --out out/bits
    """
    from scoresde.tasks.scoring import ScoreRequest, score_data

    from .progress import follow

    with follow("likelihood", resumes=True) as on_progress:
        summary = score_data(ScoreRequest(**options), out, overwrite, on_progress)
    if as_json:
        click.echo(json.dumps(summary))
        return
    table = (out / "budget.txt").read_text(encoding="utf-8")
    say(table if budget else table.partition("\n")[0])
    say(f"{out / 'per_image.csv'}, budget.txt, budget.png; {summary['seconds']:.1f} s")
