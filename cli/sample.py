"""`scoresde sample`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import Command
from .options import (
    checkpoint_option,
    compile_option,
    device_option,
    grid_option,
    json_option,
    out_option,
    overwrite_option,
    sampler_option,
    seed_option,
    steps_option,
)
from .output import say
from .types import Integer, Real

__all__ = ["sample"]


@click.command(cls=Command)
@checkpoint_option
@sampler_option
@grid_option
@steps_option
@click.option(
    "--nfe", type=Integer(1, 100_000), help="As many steps as this many evaluations allow."
)
@click.option("--n", type=Integer(1), default=64, show_default=True, help="Number of samples.")
@click.option("--batch", type=Integer(1), default=256, show_default=True, help="Samples at a time.")
@seed_option
@click.option(
    "--t-min",
    type=Real(0, 1, min_open=True, max_open=True),
    help="Time to stop at; 0 is data, 1 is noise. 1e-3, or that of a grid from a file.",
)
@click.option(
    "--denoise/--no-denoise",
    default=True,
    show_default=True,
    help="Finish with E[x0 | x], one evaluation more.",
)
@click.option("--label", type=Integer(0), help="Class, of a conditional model; else all in turn.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 is for the network alone.",
)
@device_option
@compile_option
@out_option("Folder for samples.npz, grid.png and summary.json.")
@overwrite_option
@json_option
def sample(out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Draw samples from a checkpoint.

    Example: scoresde sample --checkpoint digits-vp --sampler ddim --nfe 20 --out out/ddim
    """
    from scoresde.tasks.sampling import SampleRequest, draw_samples

    from .progress import follow

    with follow("sample") as on_progress:
        summary = draw_samples(SampleRequest(**options), out, overwrite, on_progress)
    if as_json:
        click.echo(json.dumps(summary))
        return
    steps = "its own steps" if summary["steps"] is None else f"{summary['steps']} steps"
    if summary["snapped"]:
        steps += " on the network's discrete times"
    say(
        f"{summary['n']} samples by {summary['sampler']} in {steps}: "
        f"{summary['nfe']} NFE counted, {summary['seconds']:.1f} s"
    )
    if summary.get("nfe_per_sample"):
        least, most = summary["nfe_per_sample"]
        say(f"{least} to {most} NFE per sample (sample_evaluations in samples.npz)")
    for name in summary["files"]:
        say(out / name)
