"""The rows of a run on an unattended machine: printed and stored at once, each on its own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from script import write

from scoresde._text import reason_of

__all__ = ["OutOfTime", "Rows"]


class OutOfTime(Exception):
    """The budget of a table is used up."""


class Rows:
    """The rows of all tables.

    Args:
        path: A JSON file, which is written again after each row; None for no file.
        about: Command, versions and machine, for the file.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        self.rows: list[dict[str, Any]] = []
        self._end = time.monotonic()  # of the present table, or of the latest one

    @property
    def failed(self) -> list[str]:
        """The names of the rows that have no numbers, or numbers that disagree."""
        return [f"{row['table']} {row['row']}" for row in self.rows if "error" in row]

    def table(self, name: str, seconds: float, measure: Callable[[], None]) -> None:
        """Measure a table within a budget; what the tables before it have left over is added.

        A row that is being measured when the time is over fails, and the rows after it are left
        out. An error between two rows ends the table. Neither ends the run.
        """
        print(f"\n{name}", flush=True)
        self._end += seconds
        previous = signal.signal(signal.SIGALRM, _raise)
        try:
            left = self._end - time.monotonic()
            if left <= 0:
                raise OutOfTime("out of time")
            signal.setitimer(signal.ITIMER_REAL, left)
            measure()
        except Exception as error:
            self._add({"table": name, "row": "the rest", "error": reason_of(error)})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    @contextmanager
    def row(self, table: str, name: str) -> Iterator[dict[str, Any]]:
        """A row, to be filled with numbers; an error is stored in it, and the next row may follow.

        Raises:
            OutOfTime: If the time of the table is over before the row begins.
        """
        if time.monotonic() >= self._end:
            raise OutOfTime("out of time")
        row: dict[str, Any] = {"table": table, "row": name}
        try:
            yield row
        except Exception as error:
            row["error"] = reason_of(error)
        self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.path is not None:
            text = json.dumps({**self.about, "rows": self.rows}, indent=1)
            write(self.path, text.encode())
        values = (f"{key} {_short(value)}" for key, value in row.items() if key not in _SHOWN)
        print(f"{row['row']:34s} " + "  ".join(values), flush=True)


_SHOWN = ("table", "row")


def _short(value: object) -> str:
    """A number with few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _raise(number: int, frame: object) -> None:
    raise OutOfTime("out of time")
