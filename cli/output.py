"""Printing: control characters in text from outside do not reach the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scoresde._text import printable

__all__ = ["say", "share_in_words"]


def say(text: object, err: bool = False) -> None:
    """Print to stdout, or to stderr; unprintable characters except line breaks are escaped."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)


def share_in_words(summary: dict[str, Any], out: Path) -> str:
    """What the summary of a share says."""
    n = summary["batches"]
    batches = "1 batch" if n == 1 else f"{n} batches"
    return f"share {summary['shard']}: {batches} in {out}, for scoresde merge"
