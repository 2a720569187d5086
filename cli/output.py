"""What a command prints: text from outside cannot command the terminal."""

from __future__ import annotations

import click

from scoresde._text import printable

__all__ = ["say"]


def say(text: object, err: bool = False) -> None:
    """Print to stdout, or to stderr; characters that do not print are escaped, save line breaks."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
