"""Types of options: what an option takes, and the error that names value and what is allowed.

A check has up to two parts. `convert` is the first, at once and without torch, which takes seconds
to import: names and files. What needs the library, such as the parameters of a sampler, is the
second (`Checked.verify`), which the command runs when all its options have passed the first.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from scoresde.plain import nearest

from .names import DATA_SETS

__all__ = [
    "Checked",
    "Commas",
    "Data",
    "Device",
    "GridName",
    "Integer",
    "Located",
    "Named",
    "OutFolder",
    "Real",
]


class Integer(click.IntRange):
    """An integer in a range; an error names value and range whatever is wrong.

    `note` is what the error adds if the value is too large: why.
    """

    def __init__(self, min: int | None = None, max: int | None = None, note: str = "") -> None:
        super().__init__(min, max)
        self.note = note

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The integer, or `click.BadParameter`."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not {_allowed(self, 'an integer')}", param, ctx)
        too_large = self.max is not None and number > self.max
        if too_large or (self.min is not None and number < self.min):
            note = self.note if too_large else ""
            self.fail(f"{value} is not {_allowed(self, 'an integer')}{note}", param, ctx)
        return number


class Real(click.FloatRange):
    """A finite number in a range; unlike click's, it refuses NaN and infinity."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or `click.BadParameter`."""
        try:
            number = float(value)
            if math.isfinite(number):
                return super().convert(number, param, ctx)
        except (ValueError, click.BadParameter):
            pass
        noun = "a finite number" if self.max is None else "a number"
        self.fail(f"{value} is not {_allowed(self, noun)}", param, ctx)


def _allowed(kind: click.IntRange | click.FloatRange, noun: str) -> str:
    """The range in words: `a number above 0 and below 1`."""
    low = "above" if kind.min_open else "at least"
    high = "below" if kind.max_open else "at most"
    ends = [(low, kind.min), (high, kind.max)]
    return noun + " " + " and ".join(f"{word} {end}" for word, end in ends if end is not None)


class Checked(click.ParamType, ABC):
    """A type whose value is checked a second time, when all options have been read."""

    @abstractmethod
    def verify(self, value: Any, param: click.Parameter, ctx: click.Context) -> None:
        """Raise `click.BadParameter` for what only the library can tell; may import torch."""


class Commas(Checked):
    """Values of one type, separated by commas."""

    name = "a,b,..."

    def __init__(self, item: click.ParamType) -> None:
        self.item = item

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """The values, or `click.BadParameter`."""
        texts = [text.strip() for text in value.split(",")]
        if not all(texts):
            self.fail(f"{value!r} has an empty entry; write a,b,c", param, ctx)
        return tuple(self.item.convert(text, param, ctx) for text in texts)

    def verify(self, value: tuple[Any, ...], param: click.Parameter, ctx: click.Context) -> None:
        """Each value by its own type."""
        if isinstance(self.item, Checked):
            for one in value:
                self.item.verify(one, param, ctx)


class Named(Checked):
    """A name with parameters, `name:key=value`: the name is looked up at once.

    Args:
        noun: What it is a name of.
        names: The known ones.
        parse: Function of `scoresde.registry` that checks the parameters; "" for names without.
    """

    name = "text"

    def __init__(self, noun: str, names: Iterable[str], parse: str = "") -> None:
        self.noun, self.names, self.parse = noun, tuple(names), parse

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or `click.BadParameter` if its name is unknown."""
        name = value.strip().partition(":")[0] if self.parse else value
        if name not in self.names:
            self.fail(f"{self.noun} {name!r} is unknown; {nearest(name, self.names)}", param, ctx)
        return value

    def verify(self, value: str, param: click.Parameter, ctx: click.Context) -> None:
        """Refuse parameters that the parser refuses."""
        if not self.parse:
            return
        from scoresde import registry
        from scoresde.plain import ConfigError

        try:
            getattr(registry, self.parse)(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class GridName(Named):
    """A grid by name, or a JSON file of times, which must exist."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or `click.BadParameter`."""
        text = value.strip()
        if not (text.startswith("list:") or text.endswith(".json")):
            return super().convert(value, param, ctx)
        path = text.removeprefix("list:")
        if not Path(path).exists():
            self.fail(f"{path}: no such file", param, ctx)
        return value


class Located(click.ParamType):
    """A file, given by its path or by the name of one that comes with the package.

    Args:
        what: "checkpoints" or "configs".
    """

    name = "text"

    def __init__(self, what: str) -> None:
        self.what = what

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or `click.BadParameter` if there is no such file."""
        from scoresde.shipped import locate

        try:
            path = locate(self.what, value)
            if not path.exists():
                self.fail(f"{value}: no such file", param, ctx)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            self.fail(f"{value}: {reason}", param, ctx)
        if path.is_dir():
            self.fail(f"{value}: is a folder, not a file", param, ctx)
        return value


class Data(click.ParamType):
    """A data set by name, or the path of a file or folder."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or `click.BadParameter` if it is neither."""
        try:
            found = value in DATA_SETS or Path(value).exists()
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", param, ctx)
        if not found:
            what = f"{value!r} is neither a data set nor a path that exists"
            self.fail(f"{what}; {nearest(value, DATA_SETS)}", param, ctx)
        return value


class Device(Checked):
    """cpu, cuda or cuda:N."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or `click.BadParameter` if it is another."""
        if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", value):
            self.fail(f"{value!r} is not a device; cpu, cuda or cuda:N", param, ctx)
        return value

    def verify(self, value: str, param: click.Parameter, ctx: click.Context) -> None:
        """Refuse a GPU that this machine has not."""
        if value == "cpu":
            return
        import torch

        count = torch.cuda.device_count()
        if int(value.partition(":")[2] or 0) >= count:
            self.fail(f"{value!r} is not here: {count} CUDA devices; use cpu", param, ctx)


class OutFolder(click.Path):
    """A folder for results, which is there or can be made."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, or an error if it cannot be made."""
        from scoresde._files import check_writable

        try:
            path = super().convert(value, param, ctx)
            if not path.is_dir():  # one that exists may hold the results already
                check_writable(path)
        except PermissionError:
            raise  # it says more
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", param, ctx)
        return path
