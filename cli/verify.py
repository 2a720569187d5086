"""`scoresde verify`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import options
from .command import Command
from .lookups import Named
from .names import SAMPLERS, SDES
from .output import say
from .types import Commas, Integer, Real

__all__ = ["verify"]


@click.command(cls=Command)
@click.option(
    "--samplers",
    type=Commas(options.SAMPLER),
    help="Samplers to check, by name or with parameters; all if not given.",
)
@click.option(
    "--sampler",
    type=Named("sampler", SAMPLERS, "verification.named.named_sampler", own=True),
    help="Certify one sampler of any library instead: package.module:Name of a scheduler of "
    "diffusers, a sampler of azula, or a function of (denoiser, x, sigmas) as in k-diffusion, with "
    "parameters package.module:Name:key=value. This runs the code of that module.",
)
@click.option(
    "--like",
    type=options.SAMPLER,
    help="The deterministic sampler of this package that --sampler claims to be: shows where they "
    "first differ.",
)
@click.option(
    "--sdes",
    type=Commas(Named("SDE", SDES)),
    help="Some of vp, subvp, ve, cosine, tabulated; all if not given, or vp with --quick.",
)
@click.option(
    "--order", type=Integer(1, 20), help="Claimed order of --sampler, or of your own classes."
)
@click.option(
    "--limit",
    type=Real(0, min_open=True),
    default=300.0 if hasattr(signal, "setitimer") else None,  # Windows has none
    help="Seconds after which --sampler is given up.",
)
@click.option("--quick", is_flag=True, help="Measure a selection, in half a minute.")
@options.checkpoint(required=False, use="Measure on this network instead. ")
@options.out("Folder for results.csv, results.json and errors.png.", required=False)
@options.seed
@options.overwrite
@options.as_json
@click.pass_context
def verify(
    context: click.Context,
    out: Path | None,
    as_json: bool,
    sampler: str | None,
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

    With --sampler, one sampler of any library is measured: its order with an error bar or the
    moments of its output, the noise level at which it ends, its last step, evaluations, dependence
    on the batch, and repeatability. Each line is one law with its verdict; exit 1 if a law fails.

    Example: scoresde verify --quick --samplers ddim,dpmpp-3m
    """
    claims = {"order": settings["order"], "like": settings.pop("like")}
    claims["limit"] = settings.pop("limit")
    if sampler is not None:
        _certify(context, sampler, claims, as_json)
        return
    for name in ("like", "limit"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} needs --sampler")
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


def _certify(context: click.Context, sampler: str, claims: dict[str, Any], as_json: bool) -> None:
    """Measure one sampler of any library."""
    from scoresde.verification import certify

    for name in context.params:
        if name in {"sampler", "as_json", *claims}:
            continue
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(p.opts[0] for p in context.command.params if p.name == name)
            raise click.UsageError(f"{option} has no effect with --sampler; leave it out")
    report = certify(sampler, **claims)
    say(json.dumps(report.plain()) if as_json else report)
    if not report.passed:
        raise RuntimeError(f"failed: {', '.join(report.failures)}")
