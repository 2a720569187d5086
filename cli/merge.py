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
@options.out("Folder of the whole results.")
@options.overwrite
@click.option(
    "--own-code",
    is_flag=True,
    help="Run the classes of your own that the shares name (--net, --sde, --sampler).",
)
def merge(folders: tuple[Path, ...], out: Path, overwrite: bool, own_code: bool) -> None:
    """Join the folders of `--shard 1/n … n/n` of bench, sample or likelihood.

    The folders must be the shares of one command and have all its parts. Nothing is computed, and
    the result is that of a single run, except for seconds and memory. For sample and likelihood,
    checkpoint and data must be where the shares were made from.

    Example: scoresde merge out/part1 out/part2 --out out/whole
    """
    from scoresde.output.shards import made_in_batches

    if out.resolve() in {folder.resolve() for folder in folders}:
        raise click.UsageError(f"--out: {out} is one of the shares; give another folder")
    if made_in_batches(folders[0]):
        from scoresde.tasks.merging import merge_shards

        say(merge_shards(folders, out, overwrite, own_code))
        return
    from scoresde.comparison.merging import merge as join

    say(join(folders, out, overwrite))
