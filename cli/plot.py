"""`scoresde plot`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import options
from .command import Command
from .lookups import ClassPlace
from .output import say
from .types import Integer

__all__ = ["plot"]


@click.command(cls=Command)
@click.argument("run", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--nfe", type=Integer(1, 1000), default=32, help="Evaluations of the animated sampling."
)
@click.option(
    "--net", type=ClassPlace("network"), help="Class of the run's network if it is your own."
)
@click.option("--sde", type=ClassPlace("SDE"), help="Class of its SDE if it is your own.")
@click.option(
    "--ema",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Results of `scoresde ema` for this run, besides those in its subfolders; repeatable.",
)
@click.option("--tensorboard", is_flag=True, help="Write an event file for TensorBoard as well.")
@options.data_root
@options.seed
@options.device
@options.results("Folder for the pictures and plots.html.")
def plot(run: Path, out: Path, overwrite: bool, as_json: bool, **settings: Any) -> None:
    """Draw the pictures of a training run, and a page with all of them.

    RUN is a folder of `scoresde train`. The pictures are the curves of the log (with the
    irreducible loss where the exact score of the data is known), the grids of samples over the
    steps, denoising at eight noise levels, results of `scoresde ema` in subfolders of RUN, and an
    animated PNG of sampling, which browsers play.

    Example: scoresde plot runs/digits-vp --out out/plots
    """
    from scoresde.tasks.plot import PAGE, plot_run

    from .progress import follow

    with follow("plot") as on_progress:
        summary = plot_run(run, out, overwrite, on_progress, **settings)
    if as_json:
        click.echo(json.dumps(summary))
        return
    least = summary["irreducible"]
    known = "" if least is None else f", irreducible {least['loss']:.4g} ± {least['std_error']:.1g}"
    say(f"loss {summary['loss']:.4g} after {summary['steps']} steps{known}")
    say(out / PAGE)
