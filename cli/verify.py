"""`scoresde verify`."""

from __future__ import annotations

import json
from typing import Any

import click

from .command import Command
from .names import SDES
from .options import SAMPLER, json_option, overwrite_option, seed_option
from .output import say
from .types import Commas, Located, Named, OutFolder

__all__ = ["verify"]


@click.command(cls=Command)
@click.option(
    "--samplers",
    type=Commas(SAMPLER),
    help="Samplers to check, by name or with parameters; all if not given.",
)
@click.option(
    "--sdes",
    type=Commas(Named("SDE", SDES)),
    help="Of vp, subvp, ve, cosine, tabulated; else all, or vp if --quick.",
)
@click.option("--quick", is_flag=True, help="A short form, in half a minute.")
@click.option(
    "--checkpoint",
    type=Located("checkpoints"),
    help="Measure on this network instead: a file, or a shipped one by name.",
)
@click.option(
    "--out",
    "folder",
    type=OutFolder(),
    help="Folder for results.csv, results.json and errors.png.",
)
@seed_option
@overwrite_option
@json_option
def verify(as_json: bool, **options: Any) -> None:
    """Measure whether the samplers converge as their papers say; exit 1 if one does not.

    Orders are observed on data whose solutions are known exactly: of ODE solvers by their end
    points, of stochastic ones by exact moments (weak) and along Brownian paths (strong). Where
    nobody has proven an order it is reported and cannot fail; so is all on a network, whose
    score is only as smooth as the network.

    Example: scoresde verify --quick --samplers ddim,dpmpp-3m
    """
    from scoresde.study.verdicts import missed_text, text_table
    from scoresde.tasks.verification import prepare_verification

    from .progress import follow_stages

    run = prepare_verification(**options)
    with follow_stages() as tell:
        rows = run.run(tell)
    say(json.dumps(run.report(rows)) if as_json else text_table(rows))
    if missed := missed_text(rows):
        raise RuntimeError(f"missed: {missed}")
