"""`scoresde demo`."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Our samplers and the classical ones on shipped models of images, in three minutes on a CPU.

    Needs no data and no network. Ends with the path of a page to open in a browser.

    Example: scoresde demo --out demo
    """
    from scoresde.comparison.demo import DIGITS, FASHION, prepare_demo
    from scoresde.comparison.expected import duration

    from .progress import follow_stages

    click.echo(
        click.wrap_text(
            f"{len(DIGITS.samplers)} samplers draw handwritten digits (8×8 pixels) from one model, "
            f"with {_listed(DIGITS.nfe)} evaluations of its network per image: {DIGITS.n} images "
            "for each setting, all from the same noise. It is measured how far these images are "
            f"from real digits, and how likely the model finds {DIGITS.likelihood} test digits. "
            f"Then {len(FASHION.samplers)} samplers draw {FASHION.n} images of clothes "
            "(Fashion-MNIST) each."
        )
    )
    run = prepare_demo(out, overwrite=overwrite)
    if not run.finished:
        click.echo(f"Expected time on this machine: {duration(sum(run.seconds.values()))}.")
    with follow_stages(resumes=True) as tell:
        report = run.run(tell)
    click.echo("Done. Open this page in a browser. Its first table names the sampler to take for")
    click.echo("each number of evaluations, and says how sure that is. Read it first.")
    say(report.resolve())


def _listed(numbers: Sequence[int]) -> str:
    """Numbers in words: 5, 10 and 20."""
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last
