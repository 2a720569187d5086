"""`scoresde report`."""

from __future__ import annotations

from pathlib import Path

import click

from .command import Command
from .output import say

__all__ = ["report"]


@click.command(cls=Command)
@click.option(
    "--run",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of `scoresde bench` or `scoresde demo`.",
)
def report(run: Path) -> None:
    """Write report.html again from the stored results; no network is run.

    Example: scoresde report --run bench
    """
    from scoresde.comparison.report import build_report

    say(build_report(run))
