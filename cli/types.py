"""Types of options: the values that an option takes, and errors that name the allowed values.

A value is checked in two steps. `read` comes first and checks names and files. It imports no torch,
which takes seconds. `verify` comes after all options of the command have been read, and checks
what only the library knows, such as the parameters of a sampler, or what depends on another option.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import click

__all__ = [
    "Commas",
    "Duration",
    "Integer",
    "OptionType",
    "OrNone",
    "Real",
    "Shard",
]


class OptionType(click.ParamType, ABC):
    """The type of an option: a subclass defines `read`, and `verify` if it needs the library."""

    name = "text"

    @abstractmethod
    def read(self, value: Any) -> Any:
        """The value of the option from its text, or from its default; imports no torch.

        Raises:
            ValueError: If the value is not allowed; the message names the allowed values.
        """

    def verify(self, value: Any) -> None:
        """Raise ValueError if the library does not accept the value; may import torch."""

    def replaced(self, value: Any) -> Any:
        """What the command gets for a verified value; may import torch."""
        return value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`read`, with its errors turned into click's."""
        return self.checked(self.read, value, param, ctx)

    def checked(
        self,
        check: Callable[[Any], Any],
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """`check(value)`; a ValueError, or an error of the operating system, becomes click's."""
        try:
            return check(value)
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Integer(OptionType, click.IntRange):
    """An integer in a range; every error names the value and the range.

    Args:
        min: Least value.
        max: Largest value.
        note: The reason for the largest value, for the error message.
    """

    name = click.IntRange.name

    def __init__(self, min: int | None = None, max: int | None = None, note: str = "") -> None:
        super().__init__(min, max)
        self.note = note

    def read(self, value: object) -> int:
        """The integer."""
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not {_allowed(self, 'an integer')}") from None
        too_large = self.max is not None and number > self.max
        if too_large or (self.min is not None and number < self.min):
            note = self.note if too_large else ""
            raise ValueError(f"{value} is not {_allowed(self, 'an integer')}{note}")
        return number


class Real(OptionType, click.FloatRange):
    """A finite number in a range; unlike click's type, it refuses NaN and infinity."""

    name = click.FloatRange.name

    def read(self, value: object) -> float:
        """The number."""
        try:
            number = float(value)
            if math.isfinite(number):
                return click.FloatRange.convert(self, number, None, None)
        except (ValueError, click.BadParameter):
            pass
        noun = "a finite number" if self.max is None else "a number"
        raise ValueError(f"{value} is not {_allowed(self, noun)}")


def _allowed(kind: click.IntRange | click.FloatRange, noun: str) -> str:
    """The range in words: `a number above 0 and below 1`."""
    low = "above" if kind.min_open else "at least"
    high = "below" if kind.max_open else "at most"
    ends = [(low, kind.min), (high, kind.max)]
    return noun + " " + " and ".join(f"{word} {end}" for word, end in ends if end is not None)


class Commas(OptionType):
    """Values of one type, separated by commas."""

    name = "a,b,..."

    def __init__(self, item: OptionType) -> None:
        self.item = item

    def read(self, value: str | list[str]) -> tuple[Any, ...]:
        """The values, of one text or of several as a file gives them."""
        parts = value.split(",") if isinstance(value, str) else value
        texts = [text.strip() for text in parts]
        if not all(texts):
            raise ValueError(f"{value!r} has an empty entry; write a,b,c")
        return tuple(map(self.item.read, texts))

    def verify(self, value: tuple[Any, ...]) -> None:
        """Verify each value by its own type."""
        for one in value:
            self.item.verify(one)


class Duration(OptionType):
    """A time such as 90, 90s, 10m or 1.5h, in seconds."""

    name = "time"

    def read(self, value: str | float) -> float:
        """The seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not found or not float(found[1]) > 0:
            raise ValueError(f"{value!r} is not a time above 0, such as 90s, 10m or 1.5h")
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


class Shard(OptionType):
    """A share i/n of some work, i from 1 to n."""

    name = "i/n"

    def read(self, value: str | tuple[int, int]) -> tuple[int, int]:
        """The numbers i and n."""
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", str(value))
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{value!r} is not of the form i/n with i from 1 to n, such as 1/3")
        return int(found[1]), int(found[2])


class OrNone(OptionType):
    """A value of a type, or the word none."""

    def __init__(self, kind: OptionType) -> None:
        self.kind, self.name = kind, f"{kind.name}|none"

    def read(self, value: Any) -> Any:
        """The value, or "none"."""
        try:
            return value if value == "none" else self.kind.read(value)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from error
