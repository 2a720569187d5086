"""`scoresde report`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options
from .command import Command
from .output import say

__all__ = ["report"]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(cls=Command)
@click.option("--run", type=FOLDER, help="A folder of `scoresde bench` or `scoresde demo`.")
@click.option(
    "--diff",
    nargs=2,
    type=FOLDER,
    metavar="A B",
    help="Two folders of bench, of likelihood or of sample: say why their results differ.",
)
@options.as_json
def report(run: Path | None, diff: tuple[Path, Path] | None, as_json: bool) -> None:
    """Write report.html again from the stored results, or compare two results.

    No network is run. With --diff: what was not made alike, whether it can change the numbers, and
    the numbers that differ beyond their errors.

    Example: scoresde report --run bench
    """
    if (run is None) == (diff is None):
        raise click.UsageError("--run: give either --run or --diff, and not both")
    if as_json and diff is None:
        raise click.UsageError("--json: goes with --diff; --run writes results.json")
    if diff is None:
        from scoresde.comparison.index import rebuild

        say(rebuild(run))
        return
    from scoresde.comparison.folder_diff import diff_folders

    found = diff_folders(*diff)
    say(json.dumps(found.plain()) if as_json else found)
