"""`scoresde export`."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command
from .lookups import Located
from .output import say

__all__ = ["export"]


@click.command(cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT", type=Located("checkpoints"))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "layout",
    type=click.Choice(["diffusers"]),
    default="diffusers",
    help="Library that can load the result.",
)
def export(checkpoint: str, out: Path, layout: str) -> None:
    """Write a checkpoint as a folder that another library loads.

    OUT must not exist. A network or an SDE that the other library cannot express is refused.

    Example: scoresde export benchmarks/models/tiny-ddpm out/diffusers
    """
    from scoresde.tasks.importing import export_model

    for line in export_model(checkpoint, out, layout):
        say(line)
