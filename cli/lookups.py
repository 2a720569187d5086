"""Types of options whose values are looked up: names, classes, files, data and devices."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import click

from scoresde.plain import is_class_path, nearest

from .names import DATA_SETS, GUIDANCES
from .types import OptionType

__all__ = [
    "ClassPlace",
    "Data",
    "Device",
    "GridName",
    "GuidanceName",
    "Located",
    "ModelName",
    "Named",
    "NamedCheckpoint",
    "OutFolder",
]


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


class GuidanceName(Named):
    """Guidance by its name, or by a number, its scale."""

    def __init__(self) -> None:
        super().__init__("guidance", GUIDANCES, "names.guidance.parse_guidance")

    def read(self, value: str) -> str:
        """The text, if it begins with a number or a known name."""
        try:
            float(value.strip().partition(":")[0])
        except ValueError:
            return super().read(value)
        return value


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
