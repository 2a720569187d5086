"""What a command prints: text from outside cannot command the terminal."""

from __future__ import annotations

import click

from scoresde._text import printable

__all__ = ["say"]


def say(text: object) -> None:
    """Print to stdout; of characters that do not print, only line breaks remain as they are."""
    click.echo("\n".join(map(printable, str(text).split("\n"))))
