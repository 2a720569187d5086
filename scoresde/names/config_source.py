"""The source of a config: a TOML file, and changes of single keys as `--set` gives them."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plain import ConfigError
from ..shipped import locate

__all__ = ["ConfigSource"]

_KEY = re.compile(r"[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True)
class ConfigSource:
    """A config before it is read.

    Args:
        place: A TOML file, or the name of a shipped config, such as "digits_vp".
        changes: Values that replace those of the file or are added to them, each as
            `table.key=value`: `train.batch=64`, `net.multipliers=[1,2]`. A value is written as in
            TOML; text needs no quotes unless it would be read as something else.
        data_root: Folder of the data set, in place of `data.root`; None to keep that.
        tables: The tables of the config, if they are known; then the file is not read.
    """

    place: str | Path
    changes: tuple[str, ...] = ()
    data_root: str | Path | None = None
    tables: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        """The place and the changes, for messages."""
        said = ", ".join(f"--set {change}" for change in self.changes)
        return f"{self.place} with {said}" if said else str(self.place)

    @property
    def options(self) -> str:
        """The options of `scoresde train` that give this config."""
        words = ["--config", str(self.place)]
        for change in self.changes:
            words += ["--set", change]
        return shlex.join(words)

    def read(self) -> dict[str, Any]:
        """The tables of the file with the changes.

        Raises:
            ValueError: If the place looks like a name but is unknown; the message gives the nearest
                name.
            ConfigError: If the file cannot be read, or a change is not `table.key=value`; one line
                with the file or the change, and the reason.
        """
        if self.tables is None:
            values = _tables(locate("configs", self.place))
        else:
            values = copy.deepcopy(dict(self.tables))
        keys: set[str] = set()
        for change in self.changes:
            key, value = _parsed(change)
            if key in keys:
                raise ConfigError(f"--set {change}: {key} is given twice")
            keys.add(key)
            _put(values, key.split("."), value, change)
        if self.data_root is not None and isinstance(values.get("data"), dict):
            values["data"]["root"] = str(self.data_root)
        return values


def _tables(path: Path) -> dict[str, Any]:
    """The content of a TOML file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"{path}: not UTF-8 text ({where})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not values:
        raise ConfigError(f"{path}: empty; a config needs data, sde, net and train")
    return values


def _parsed(change: str) -> tuple[str, Any]:
    """Key path and value of `table.key=value`."""
    key, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not text or not _KEY.fullmatch(key):
        raise ConfigError(f"--set {change}: must be table.key=value, such as train.batch=64")
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return key, text
    # A line break would begin further keys.
    return key, found["value"] if found.keys() == {"value"} else text


def _put(values: dict[str, Any], path: list[str], value: Any, change: str) -> None:
    """Set the value at a key path; missing tables are made."""
    *tables, last = path
    for depth, name in enumerate(tables, 1):
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ConfigError(
                f"--set {change}: {'.'.join(path[:depth])} is {values!r}, not a table of keys"
            )
    values[last] = value
