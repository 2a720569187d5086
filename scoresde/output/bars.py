"""Progress bars, on stderr; without a terminal none are drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from .._rows import watched
from .._text import printable
from .progress import Tell

__all__ = ["progress_bar", "stage_bars", "update"]


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Progress]:
    """A bar with count, remaining time and a note, on stderr; not shown without a terminal.

    In this block, each reading of all data that are not in memory has a bar of its own.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=sys.stderr),
        disable=not shown or sys.stderr is None or not sys.stderr.isatty(),
    )
    with bar, watched(partial(_reading, bar, {})):
        yield bar


def _reading(bar: Progress, tasks: dict[str, TaskID], name: str, done: int, total: int) -> None:
    if name not in tasks:
        tasks[name] = bar.add_task(printable(f"reading {name}"), total=total, note="")
    bar.update(tasks[name], completed=done)


@contextmanager
def stage_bars(announce: Callable[[str], None] | None = None, shown: bool = True) -> Iterator[Tell]:
    """Show a bar for each stage; the function it yields takes (stage, number done, total, note).

    Args:
        announce: Called once with the name of each stage if there is no terminal.
        shown: Whether there are bars on a terminal.
    """
    tasks: dict[str, TaskID] = {}
    with progress_bar(shown) as bar:

        def tell(stage: str, done: int, total: int | None, note: str) -> None:
            if stage not in tasks:
                name = printable(stage)
                tasks[stage] = bar.add_task(name, total=total, note="")
                if bar.disable and announce is not None:
                    announce(name)
            update(bar, tasks[stage], done, total, note)

        yield tell


def update(bar: Progress, task: TaskID, done: int, total: int | None, note: str) -> None:
    """Set the counts and the note of one bar."""
    bar.update(task, completed=done, total=total, note=printable(note))
