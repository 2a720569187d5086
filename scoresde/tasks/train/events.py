"""The log and the grids of samples of a run as an event file for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from ...output.tensorboard import EVENTS, EventFile, numbers_of
from .files import LOG, sample_grids
from .run import Progress, Run

__all__ = ["add_run", "steps_with_events"]


def steps_with_events(run: Run) -> Iterator[Progress]:
    """The steps of a run; its folder gets an event file, to which new lines of the log are added.

    The file begins with the lines from before a resumption, and replaces the file of an earlier
    process. So each step is in the folder once.

    Args:
        run: The run. Its loop, log and checkpoints are as without the event file.
    """
    with closing(run.steps()) as steps, ExitStack() as stack:
        add_new = None
        for progress in steps:
            if add_new is None:  # the first step has succeeded, and the log is prepared
                add_new = stack.enter_context(_followed(run))
            add_new()
            yield progress


@contextmanager
def _followed(run: Run) -> Iterator[Callable[[], None]]:
    """Make the event file; the function that is yielded adds the new lines of the log."""
    for path in run.folder.glob(f"{EVENTS}*"):
        path.unlink()
    path = run.folder / f"{EVENTS}{time.time_ns() // 1_000_000}"
    began = time.time() - run.seconds
    with open(run.folder / LOG, encoding="utf-8") as log, EventFile(path) as events:
        added = 0

        def add_new() -> None:
            nonlocal added
            for line in log:
                row = json.loads(line)
                add_run(events, run.folder, [row], began, after=added)
                added = row["step"]

        try:
            yield add_new
        finally:
            add_new()


def add_run(
    events: EventFile,
    folder: Path,
    rows: list[Mapping[str, Any]],
    began: float,
    after: int = 0,
) -> None:
    """Add lines of a log, and the grids of samples up to the last of these lines.

    A log holds the time of training and not that of the day. The wall time of a line is `began`
    plus its seconds of training, so that the pauses of a run that was stopped are left out.

    Args:
        events: The event file.
        folder: The run's folder.
        rows: Lines of the log, in order.
        began: Wall time of the first step of a run without pauses, in seconds since 1970.
        after: Step of the line before the first one; grids of samples up to it are left out.
    """
    grids = [(step, path) for step, path in sample_grids(folder) if step > after]
    for row in rows:
        step, wall_time = row["step"], began + row["seconds"]
        events.numbers(step, wall_time, numbers_of(row))
        while grids and grids[0][0] <= step:
            events.picture(grids[0][0], wall_time, "pictures/samples", grids[0][1])
            grids.pop(0)
