"""`scoresde merge`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .command import Command
from .output import say

__all__ = ["merge"]


@click.command(cls=Command)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@options.out("Folder of the whole comparison.")
@options.overwrite
def merge(folders: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Join the folders of `scoresde bench --shard 1/n … n/n` into one comparison.

    The folders must be parts of one plan and have all its cells; no network is run. The result is
    that of a single run, except for seconds and memory.

    Example: scoresde merge out/part1 out/part2 --out out/whole
    """
    from scoresde.comparison.merging import merge as join

    say(join(folders, out, overwrite))
