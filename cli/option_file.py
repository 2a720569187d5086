"""Options from a TOML file: every key is the option of that name."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from scoresde.plain import nearest
from scoresde.shipped import locate

from .lookups import Located
from .types import Commas

__all__ = ["option_file"]


def option_file(what: str, keys: Sequence[str], text: str) -> Any:
    """`--config`: a file whose keys give the options that the command line does not give.

    Args:
        what: Kind of the shipped files, for `locate`.
        keys: Names of the options that the file may give, with _ for -.
        text: The help text.
    """

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None and not ctx.resilient_parsing:
            path = locate(what, value)
            ctx.default_map = _options(path, keys, ctx)
        return value

    return click.option("--config", type=Located(what), is_eager=True, callback=read, help=text)


def _options(path: Path, keys: Sequence[str], ctx: click.Context) -> dict[str, Any]:
    """The options in a file, as texts that the types of the options read."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: is not TOML: {error}") from error
    params = {param.name: param for param in ctx.command.params}
    found = {}
    for key, value in values.items():
        if key not in keys:
            raise click.UsageError(f"{path}: {key} is unknown; {nearest(key, keys)}")
        several = isinstance(params[key].type, Commas) or params[key].multiple
        listed = value if isinstance(value, list) else [value]
        if not several and isinstance(value, list):
            raise click.UsageError(f"{path}: {key} must be one value, got a list")
        if any(isinstance(one, (dict, list, bool)) for one in listed):
            raise click.UsageError(f"{path}: {key} must be texts or numbers, got {value!r}")
        if not listed:
            raise click.UsageError(f"{path}: {key} must have at least one value, got []")
        found[key] = [str(one) for one in listed] if several else str(value)
    return found
