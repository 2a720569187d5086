"""`scoresde demo`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .command import Command
from .lookups import OutFolder
from .output import say

__all__ = ["demo"]


@click.command(cls=Command)
@click.option(
    "--out",
    type=OutFolder(),
    default="demo",
    help="Folder of the results; an interrupted demonstration in it is completed.",
)
@options.overwrite
def demo(out: Path, overwrite: bool) -> None:
    """Ten samplers on shipped checkpoints of real images, in about three minutes on a CPU.

    Needs no data and no network. Ends with the path of a page to open in a browser.

    Example: scoresde demo --out demo
    """
    from scoresde.comparison.demo import prepare_demo

    from .progress import follow_stages

    click.echo("Ten samplers on 8×8 digits at 5, 10, 20 and 50 network evaluations per sample,")
    click.echo("128 samples each from the same noise; bits/dim of 128 test digits; and 16 images")
    click.echo("of Fashion-MNIST by three samplers. One to three minutes on two cores.")
    run = prepare_demo(out, overwrite=overwrite)
    with follow_stages(resumes=True) as tell:
        report = run.run(tell)
    click.echo("Done. Open this page in a browser:")
    say(report.resolve())
