"""`scoresde data`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from . import options
from .command import Command
from .output import say

__all__ = ["data"]


@click.command(cls=Command)
@options.as_json
def data(as_json: bool) -> None:
    """List the data sets: their sizes, their places, and how to get a missing one.

    Example: scoresde data
    """
    from scoresde.data import dataset_status

    rows = dataset_status()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    line = "{:<15}{:<9}{:<21}{:<38}{}".format
    click.echo(line("name", "shape", "train + test", "where", "licence"))
    for row in rows:
        shape = "×".join(str(size) for size in row.shape)
        counts = f"{row.train:,} + {row.test:,}"
        where = row.where or "missing"
        if row.entropy is not None:
            where = f"{where}, entropy {row.entropy:.4f} nats"
        say(line(row.name, shape, counts, where, row.licence))
        if row.where is None:
            say(f"{'':<15}get it: {row.get}")
    click.echo(
        "A path may stand for a name: of a folder of images, a .npy, .npz, .csv or .tsv file."
    )
    click.echo("Files are looked for in --data-root, $SCORESDE_DATA, the usual places and ./data.")
