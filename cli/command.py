"""The class of all commands: reading of options, and layout of the help."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import click

from scoresde._torchrun import Place

from .types import Commas, OptionType

__all__ = ["Command", "refuse_torchrun"]

HELP_COLUMN = 30  # largest column at which help texts begin; click's own limit


class Command(click.Command):
    """A command that takes each option once, and runs the quick checks before the slow ones.

    Attributes:
        groups: Heading in the help -> names of the options below it. Options without a group come
            last.
    """

    groups: ClassVar[Mapping[str, Sequence[str]]] = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; a repeated option is refused (click would take the last value)."""
        if not ctx.resilient_parsing:
            _refuse_repeated(self.make_parser(ctx).parse_args(args=list(args))[2])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the checks of options that need the library, then the command."""
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(param.type, OptionType) and value is not None:
                param.type.checked(param.type.verify, value, param, ctx)
                ctx.params[param.name] = param.type.replaced(value)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each group under its heading, with all help texts in one column."""
        records = {p.opts[0]: p.get_help_record(ctx) for p in self.get_params(ctx)}
        rest = {name: record for name, record in records.items() if record is not None}
        width = min(max(len(left) for left, _ in rest.values()), HELP_COLUMN)
        sections = {
            title: [rest.pop(name) for name in names] for title, names in self.groups.items()
        }
        for title, rows in (sections | {"Options": list(rest.values())}).items():
            with formatter.section(title):
                formatter.write_dl([(left.ljust(width), text) for left, text in rows])


def _refuse_repeated(order: Sequence[click.Parameter]) -> None:
    """Raise for an option that occurs more than once and takes one value."""
    options = [p for p in order if isinstance(p, click.Option) and not p.multiple]
    if any(option.is_eager for option in options):  # --help wins over all other options
        return
    for option in options:
        if (times := options.count(option)) > 1:
            hint = "separate values by commas" if isinstance(option.type, Commas) else "give one"
            raise click.BadParameter(f"is given {times} times; {hint}", param=option)


def refuse_torchrun(what: str) -> None:
    """End with exit status 2 if torchrun has started several processes; rank 0 says why.

    Args:
        what: The command, which runs in one process.
    """
    place = Place.read(os.environ)
    if place is None:
        return
    if place.rank > 0:
        raise click.exceptions.Exit(2)
    raise click.UsageError(
        f"{what}: runs in one process, and torchrun started {place.size}; start it without torchrun"
    )
