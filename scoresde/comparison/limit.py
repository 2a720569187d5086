"""The time limit of a comparison: work that does not fit into it is left for later."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

__all__ = ["NO_LIMIT", "OutOfTimeError", "TimeLimit"]

REPORT_SHARE = 0.05  # of the limit is kept for the tables and the report,
REPORT_SECONDS = 10.0  # but at most these seconds


class OutOfTimeError(Exception):
    """The time is over; unfinished work is dropped."""


@dataclass(frozen=True)
class TimeLimit:
    """A time on the clock at which the work ends.

    Attributes:
        end: The time, in seconds of `time.monotonic`; infinity for none.
    """

    end: float = math.inf

    @classmethod
    def of(cls, seconds: float | None) -> TimeLimit:
        """The limit `seconds` from now, less what the tables and the report take."""
        if seconds is None:
            return NO_LIMIT
        return cls(time.monotonic() + seconds - min(REPORT_SHARE * seconds, REPORT_SECONDS))

    @property
    def finite(self) -> bool:
        """Whether there is a limit."""
        return self.end < math.inf

    def allows(self, seconds: float) -> bool:
        """Whether work of so many seconds would end in time."""
        return time.monotonic() + seconds <= self.end

    def check(self, *_: object) -> None:
        """Raise if the time is over; the arguments of any report of progress are accepted.

        Raises:
            OutOfTimeError: If the time is over.
        """
        if time.monotonic() > self.end:
            raise OutOfTimeError


NO_LIMIT = TimeLimit()
