"""Types of options: the values that an option takes, and errors that name the allowed values.

A value is checked in two steps. `read` comes first and checks names and files. It imports no torch,
which takes seconds. `verify` comes after all options of the command have been read, and checks
what only the library knows, such as the parameters of a sampler, or what depends on another option.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from scoresde.plain import is_class_path, nearest

from .names import DATA_SETS

__all__ = [
    "ClassPlace",
    "Commas",
    "Data",
    "Device",
    "Duration",
    "GridName",
    "Integer",
    "Located",
    "ModelName",
    "Named",
    "NamedCheckpoint",
    "OptionType",
    "OrNone",
    "OutFolder",
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


class Named(OptionType):
    """A name with parameters, `name:key=value`: the name is looked up at once.

    Args:
        noun: The kind of the named object, for messages.
        names: The known names.
        parse: Function of `scoresde` that checks the parameters, such as "names.grids.parse_grid";
            "" for names without parameters.
        own: Whether `package.module:Name`, a class of the user, is allowed too; it is imported.
    """

    def __init__(self, noun: str, names: Iterable[str], parse: str = "", own: bool = False) -> None:
        self.noun, self.names, self.parse, self.own = noun, tuple(names), parse, own

    def read(self, value: str) -> str:
        """The text, if its name is known, or if it is the place of a class."""
        name = value.strip().partition(":")[0] if self.parse else value
        if name not in self.names and not (self.own and is_class_path(value)):
            raise ValueError(f"{self.noun} {name!r} is unknown; {nearest(name, self.names)}")
        return value

    def verify(self, value: str) -> None:
        """Raise if the parser refuses the parameters."""
        if self.parse:
            module, _, function = self.parse.rpartition(".")
            getattr(import_module(f"scoresde.{module}"), function)(value)


class ClassPlace(OptionType):
    """The place of a class of the user, `package.module:Name`, perhaps with `:key=value`.

    Its module is imported by `verify`, which runs its code.

    Args:
        noun: The kind of the class, for messages.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun

    def read(self, value: str) -> str:
        """The text, if it has this form."""
        if not is_class_path(value):
            raise ValueError(f"{value!r} is not of the form package.module:Name or …:key=value")
        return value

    def verify(self, value: str) -> None:
        """Raise if there is no such class."""
        from scoresde.names.importing import import_object

        import_object(":".join(value.strip().split(":")[:2]), self.noun)


class GridName(Named):
    """A grid by name, or a JSON file of times, which must exist."""

    def read(self, value: str) -> str:
        """The text, if the name is known or the file exists."""
        text = value.strip()
        if not (text.startswith("list:") or text.endswith(".json")):
            return super().read(value)
        path = text.removeprefix("list:")
        if not Path(path).exists():
            raise ValueError(f"{path}: no such file")
        return value


class Located(OptionType):
    """A file, given by its path or by the name of a shipped file.

    Args:
        what: "checkpoints" or "configs".
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def read(self, value: str) -> str:
        """The text, if there is such a file."""
        from scoresde.shipped import is_model_folder, locate

        path = locate(self.what, value)
        if not path.exists():
            raise ValueError(f"{value}: no such file")
        if path.is_dir() and not (self.what == "checkpoints" and is_model_folder(path)):
            also = ", and no model of a known format" if self.what == "checkpoints" else ""
            raise ValueError(f"{value}: is a folder, not a file{also}")
        return value


class NamedCheckpoint(Located):
    """A checkpoint, perhaps with a name for the tables before it, A=path."""

    def __init__(self) -> None:
        super().__init__("checkpoints")

    def read(self, value: str) -> str:
        """The text, if there is such a checkpoint."""
        name, equals, path = value.partition("=")
        named = equals and path and not Path(value).exists()
        if named and not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(f"{name!r} is not a name; it must consist of letters, digits and _.+-")
        super().read(path if named else value)
        return value


class ModelName(Located):
    """A checkpoint, or the place `package.module:Name` of a model of the user's own."""

    def __init__(self) -> None:
        super().__init__("checkpoints")

    def read(self, value: str) -> str:
        """The text; a checkpoint must exist. Places are looked up by the library."""
        return value if ":" in value and not Path(value).exists() else super().read(value)


class Data(OptionType):
    """A data set by name, or the path of a file or folder, relative to --data-root or to here."""

    def read(self, value: str) -> str:
        """The text."""
        return value

    def verify(self, value: str) -> None:
        """Refuse a value that is neither a data set nor an existing path; imports no torch."""
        root = click.get_current_context().params["data_root"] or ""
        if value not in DATA_SETS and not (Path(root, value).exists() or Path(value).exists()):
            what = f"{value!r} is neither a data set nor a path that exists"
            raise ValueError(f"{what}; {nearest(value, DATA_SETS)}")


class Device(OptionType):
    """auto, cpu, cuda or cuda:N.

    Args:
        at_once: Whether `auto` is replaced before the command begins. Otherwise the command calls
            `resolve` itself, after what must come before torch is imported.
    """

    def __init__(self, at_once: bool = True) -> None:
        self.at_once = at_once

    def read(self, value: str) -> str:
        """The text, if it is auto, cpu, cuda or cuda:N."""
        allowed = "auto, cpu, cuda or cuda:N"
        if re.fullmatch(r"mps(:\d+)?", value):
            raise ValueError(f"{value!r} has no float64, which times and noise need; {allowed}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", value):
            raise ValueError(f"{value!r} is not a device; {allowed}")
        return value

    def verify(self, value: str) -> None:
        """Refuse a GPU that this machine does not have."""
        if value in ("auto", "cpu"):
            return
        import torch

        count = torch.cuda.device_count()
        if int(value.partition(":")[2] or 0) >= count:
            raise ValueError(f"{value!r} is not here: {count} CUDA devices; use cpu")

    def replaced(self, value: str) -> str:
        """The device that `auto` stands for."""
        return self.resolve(value) if self.at_once else value

    @staticmethod
    def resolve(value: str) -> str:
        """`cuda` or `cpu` for `auto`, whichever this machine has; other devices as they are."""
        if value != "auto":
            return value
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


class OutFolder(click.ParamType):
    """A folder for results, which exists or can be made."""

    name = "directory"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """The path; errors of `check_writable` already name the option and are not changed."""
        from scoresde._files import check_writable

        path = Path(value)
        try:
            if not path.is_dir():  # an existing folder may already hold the results
                check_writable(path)
        except PermissionError:
            raise
        except OSError as error:
            self.fail(f"{value}: {error.strerror}", param, ctx)
        return path
