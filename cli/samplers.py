"""`scoresde samplers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from . import options
from .command import Command
from .lookups import Named
from .names import SAMPLERS
from .output import say

__all__ = ["samplers"]


@click.command(cls=Command)
@click.option(
    "--sampler", type=Named("sampler", SAMPLERS), help="Explain the parameters of this sampler."
)
@options.as_json
def samplers(sampler: str | None, as_json: bool) -> None:
    """List the samplers, each with its parameters and their defaults.

    A parameter is set after a colon, as in `scoresde sample --sampler ddim:eta=0.5`. Methods for
    inverse problems (PiGDM, DPS, DDRM, …) are those of `scoresde restore --method`.

    Example: scoresde samplers --sampler edm
    """
    from scoresde.tasks.sampler_list import list_samplers

    found = list_samplers(sampler)
    if as_json:
        say(json.dumps(found, default=str))
    elif sampler is None:
        say("\n".join(f"{row['name']:<18}{', '.join(_settings(row))}".rstrip() for row in found))
    else:
        say(_in_words(found[0]))


def _settings(row: Mapping[str, Any]) -> list[str]:
    return [f"{p['name']}={_value(p['default'])}" for p in row["parameters"]]


def _value(default: object) -> str:
    """The value in the form of the command line."""
    return str(default).lower() if isinstance(default, bool) else f"{default}"


def _in_words(row: Mapping[str, Any]) -> str:
    meanings = [parameter["meaning"] for parameter in row["parameters"]]
    rows = zip(_settings(row), meanings, strict=True)
    return "\n".join([f"{row['name']}: {row['about']}", *(f"  {s:<28} {m}" for s, m in rows)])
