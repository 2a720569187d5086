"""Printing: control characters in text from outside do not reach the terminal."""

from __future__ import annotations

import click

from scoresde._text import printable

__all__ = ["say"]


def say(text: object, err: bool = False) -> None:
    """Print to stdout, or to stderr; unprintable characters except line breaks are escaped."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
