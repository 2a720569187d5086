"""`scoresde verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .names import SDES
from .output import say
from .types import Commas, Integer, Named

__all__ = ["verify"]


@click.command(cls=Command)
@click.option(
    "--samplers",
    type=Commas(options.SAMPLER),
    help="Samplers to check, by name or with parameters; all if not given.",
)
@click.option(
    "--sdes",
    type=Commas(Named("SDE", SDES)),
    help="Some of vp, subvp, ve, cosine, tabulated; all if not given, or vp with --quick.",
)
@click.option(
    "--order", type=Integer(1, 20), help="Claimed order of samplers that are classes of your own."
)
@click.option("--quick", is_flag=True, help="Measure a selection, in half a minute.")
@options.checkpoint(required=False, use="Measure on this network instead. ")
@options.out("Folder for results.csv, results.json and errors.png.", required=False)
@options.seed
@options.overwrite
@options.as_json
def verify(
    out: Path | None,
    as_json: bool,
    checkpoint: str | None,
    net: str | None,
    sde: str | None,
    **settings: Any,
) -> None:
    """Measure whether the samplers converge as their papers say; exit 1 if one does not.

    Orders are measured on data whose exact solutions are known. ODE solvers are compared by their
    end points, stochastic samplers by the moments of their output (weak order) and along Brownian
    paths (strong order). If no order is proven, the measured order is only reported and nothing can
    fail. The same holds on a network, whose score may not be smooth enough.

    Example: scoresde verify --quick --samplers ddim,dpmpp-3m
    """
    from scoresde.tasks.request import StoredModel
    from scoresde.verification.prepare import prepare_verification
    from scoresde.verification.verdicts import missed_text, text_table

    from .progress import follow_stages

    given = None if checkpoint is None else StoredModel.read(checkpoint, net, sde)
    run = prepare_verification(given=given, folder=out, **settings)
    with follow_stages() as tell:
        rows = run.run(tell)
    say(json.dumps(run.report(rows)) if as_json else text_table(rows))
    if missed := missed_text(rows):
        raise RuntimeError(f"missed: {missed}")
