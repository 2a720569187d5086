"""`scoresde likelihood`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .lookups import Located, Named
from .names import METHODS, PROTOCOLS, TRACES
from .output import say, share_in_words
from .types import Integer, Real

__all__ = ["likelihood"]


class _Likelihood(Command):
    groups = {
        "Data": (
            "--checkpoint",
            "--against",
            "--net",
            "--sde",
            "--data",
            "--split",
            "--data-root",
            "--levels",
            "--n",
        ),
        "Definition": ("--guidance", "--protocol", "--t-min", "--draws", "--variance"),
        "Computation": (
            *("--method", "--steps", "--nodes", "--rtol", "--atol", "--per-sample"),
            *("--trace", "--force", "--image-error", "--dtype", "--batch", "--seed", "--device"),
            *("--compile", "--shard"),
        ),
        "Errors": ("--measured", "--budget"),
        "Output": ("--plot", "--out", "--overwrite", "--json"),
    }


@click.command(cls=_Likelihood)
@options.checkpoint()
@click.option(
    "--against",
    type=Located("checkpoints"),
    help="A second checkpoint, B: the result is the difference A − B on the same data with the "
    "same random numbers.",
)
@options.held_out
@click.option("--n", type=Integer(1), default=128, help="Number of data, chosen by the seed.")
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    metavar="NAME",
    help=f"{', '.join(PROTOCOLS)}. Default: pf-ode/uniform, pf-ode/continuous for continuous "
    "data, or for a latent model pf-ode/autoencoder, the bound through its autoencoder.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    metavar="NAME",
    default="auto",
    help=f"{', '.join(METHODS)}. path needs few evaluations, and its error is corrected; the "
    "others solve the ODE to a tolerance. auto is path above 16 dimensions, else dopri5.",
)
@click.option("--per-sample", is_flag=True, help="ODE methods: a step size for each datum.")
@click.option(
    "--trace",
    type=Named("trace", ("auto", *TRACES), "likelihood.trace.names.as_trace"),
    default="auto",
    help="exact, hutchinson:probes=2, probing:colours=8:blocks=2, xtrace, hutch++. auto: for path, "
    "the rule measured to be cheapest; else exact up to 16 dimensions, one probe above.",
)
@click.option("--force", is_flag=True, help="Allow an exact trace above 4096 dimensions.")
@click.option(
    "--image-error",
    type=Real(0, min_open=True),
    default=0.05,
    help="Standard error per datum at which --trace auto aims, in the result's unit.",
)
@click.option(
    "--steps",
    type=Integer(1, 100_000),
    help="Steps of the path (default 32) or of vlb-ddpm's chain (default 1000; a model with its "
    "own chain uses it).",
)
@click.option(
    "--nodes",
    type=Integer(1, 100_000),
    help="Nodes of the path (default: measured) or strata of a VLB (default 64).",
)
@click.option(
    "--variance",
    type=click.Choice(["beta", "beta_tilde", "learned"]),
    default="beta_tilde",
    help="Variance of vlb-ddpm's reverse steps; learned needs a network that says it.",
)
@click.option(
    "--draws",
    type=Integer(1),
    default=1,
    help="Dequantizations (of a latent model, draws of latents) per datum.",
)
@options.tolerances(1e-6, ", ODE")
@options.t_min(
    "Start time of the data. Default: 1e-5, or the time of the first discrete label; for a VLB "
    "the time at which σ/α is half a cell."
)
@click.option(
    "--measured",
    type=Integer(0),
    default=8,
    help="Number of data that are scored again with a finer solver and in float64, to measure "
    "the errors of solver and dtype.",
)
@options.batch(64, "Data")
@options.seed
@click.option(
    "--guidance",
    type=options.GUIDANCE,
    help="Guidance as for `sample`: the density of the guided model, which is not p(x) p(y|x)^w, "
    "by an ODE method.",
)
@options.dtype("Of data and network; the solver's state is always float64.")
@options.device
@options.compiled
@click.option(
    "--budget", is_flag=True, help="Print the whole error budget, not only its first line."
)
@click.option(
    "--plot",
    is_flag=True,
    help="vlb-ddpm: draw L_T, the L_{t-1} and L_0 over t, and their running sum (terms.png).",
)
@options.shard
@options.results("Folder for the results, one row per datum in per_image.csv.")
def likelihood(
    out: Path,
    overwrite: bool,
    as_json: bool,
    budget: bool,
    against: str | None,
    shard: tuple[int, int] | None,
    **settings: Any,
) -> None:
    """Log-likelihood of held-out data with an error budget.

    Of quantized data bits/dim are printed, that is −log2 P per dimension. Of continuous data log p
    is printed, in nats per datum and per dimension, a density in the units of the data. The same
    command continues a run that was stopped. With --against, the paired difference of two
    checkpoints.

    Example: scoresde likelihood --checkpoint digits-vp --n 128 --budget --out out/bits
    """
    from scoresde.output.shared_work import Share
    from scoresde.tasks.likelihood.against import compare_models
    from scoresde.tasks.likelihood.scoring import ScoreRequest, score_data

    from .progress import follow_shared

    request = ScoreRequest(**settings)
    if against is not None and request.guidance is not None:
        raise click.UsageError("--guidance: cannot be given with --against")
    with follow_shared("likelihood", request.device) as (ranks, on_progress):
        common = {"on_progress": on_progress, "share": Share(ranks, shard)}
        if against is None:
            summary = score_data(request, out, overwrite, **common)
        else:
            summary = compare_models(request, against, out, overwrite, **common)
    if ranks.writes:
        files = ", terms.csv, terms.png" if settings["plot"] else ""
        _report(summary, out, "budget" if against is None else "difference", as_json, budget, files)


def _report(
    summary: dict[str, Any], out: Path, stem: str, as_json: bool, whole: bool, files: str
) -> None:
    """Print the first line of the table or all of it, and the names of the files."""
    if as_json:
        click.echo(json.dumps(summary))
        return
    if "shard" in summary:
        say(share_in_words(summary, out))
        return
    table = (out / f"{stem}.txt").read_text(encoding="utf-8")
    say(table if whole else table.partition("\n\n")[0].rstrip("\n"))
    found = f"{stem}.txt, {stem}.png{files}"
    say(f"{out / 'per_image.csv'}, {found}; {summary['seconds']:.1f} s")
