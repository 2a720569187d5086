"""`scoresde import`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options
from .command import Command
from .output import say

__all__ = ["import_"]


@click.command("import", cls=Command)
@click.argument("source", metavar="SOURCE", type=click.Path(exists=True, path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--time-label",
    "label",
    type=click.Choice(["index", "rounded_index"]),
    help="Of discrete labels: index also evaluates the network between those it was trained on, "
    "rounded_index at these alone.  [default: index, if the network can]",
)
@click.option(
    "--settings",
    metavar="NAME|FILE",
    help="Of a checkpoint of score_sde_pytorch or guided-diffusion, which does not hold them: the "
    "name of published settings, such as vp/cifar10_ddpmpp_continuous or 64x64_diffusion, or a "
    "TOML or JSON file.  [default: a file of the checkpoint's name with .toml or .json, or the "
    "name that its folders or the file have]",
)
@click.option(
    "--weights",
    type=click.Choice(["ema", "model"]),
    help="Of a checkpoint of score_sde_pytorch: the averaged weights or the last ones.  "
    "[default: ema]",
)
@options.as_json
def import_(source: Path, out: Path, as_json: bool, **given: str | None) -> None:
    """Write a model of another library as a checkpoint of scoresde.

    SOURCE is a folder of diffusers, of a pipeline or a network, or a checkpoint of
    score_sde_pytorch, guided-diffusion, improved-diffusion or EDM. OUT is the file to write. Each
    key of the source's config is printed with what became of it. No code of SOURCE is run. All
    other commands also take SOURCE itself, as --checkpoint.

    Example: scoresde import benchmarks/models/tiny-ddpm imported.safetensors
    """
    from scoresde.tasks.importing import import_model

    chosen = {name: value for name, value in given.items() if value is not None}
    found = import_model(source, out, chosen)
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in found["report"]:
        say(line)
    say(f"{out}: {found['weights']:,} weights, of the format {found['format']}")
