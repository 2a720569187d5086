"""The manifest of a folder of results, scoresde.json: its origin, and the files scoresde wrote.

A folder of results holds this file, the results that it lists, and in `parts/` the finished parts
of a computation that is not complete. No other file is ever removed or replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .. import __version__
from ..fingerprint import difference, fingerprint
from ..noise import NOISE_VERSION
from .files import write_json

__all__ = ["MANIFEST", "DamagedManifestError", "Manifest", "Origin", "Source"]

MANIFEST = "scoresde.json"
FORMAT = "scoresde results"
VERSION = 1  # version of the format of results


class DamagedManifestError(ValueError):
    """The manifest is damaged, so that nothing in it can be trusted."""


class Source(NamedTuple):
    """One input of results: its name for messages, and its content."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """Everything that determines results. Results are used again only for an equal origin.

    Contents are compared; names and paths are only shown. The same data under another path have
    the same origin, and other data under the same path have another origin. The versions of this
    package and of its noise are part of every origin, because a new version may correct a number.
    The version of torch is not part of it, because it changes only the last bits.

    Attributes:
        command: The command that makes the results.
        settings: Plain data.
        sources: Kind of each source ("data", "checkpoint") -> its name and content.
        cells: Name of each cell of a comparison -> fingerprint of the settings of this cell alone.
            Cells may be added to a comparison.
        shown: Names of the settings that are only shown.
    """

    command: str
    settings: Mapping[str, Any]
    sources: Mapping[str, Source] = field(default_factory=dict)
    cells: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    @cached_property
    def plain(self) -> dict[str, Any]:
        """All settings in the form read from JSON: tuples become lists."""
        versions = {"scoresde": __version__, "noise": NOISE_VERSION}
        values = {"command": self.command, **versions, **self.settings}
        return json.loads(json.dumps(values, allow_nan=False))

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits for sources and compared settings, without the cells."""
        compared = {key: value for key, value in self.plain.items() if key not in self.shown}
        contents = {what: source.sha256 for what, source in self.sources.items()}
        return fingerprint({"settings": compared, "sources": contents})


@dataclass(frozen=True)
class Manifest:
    """The content of scoresde.json.

    Attributes:
        settings: All settings of the results, the command included.
        sources: As in `Origin`.
        cells: As in `Origin`.
        files: Path of each file in the folder that scoresde wrote -> SHA-256 of its bytes; None
            for a file that may be missing or may change.
        parts: Paths of files that may exist while a computation is not finished.
        finished: Whether the results are complete.
    """

    settings: dict[str, Any]
    sources: dict[str, Source] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    finished: bool = False

    @classmethod
    def of(cls, origin: Origin) -> Manifest:
        """The manifest of results that do not exist yet."""
        return cls(origin.plain, dict(origin.sources), dict(origin.cells))

    @property
    def names(self) -> set[str]:
        """Paths of all files that scoresde wrote or may write."""
        return {*self.files, *self.parts}

    def has_all_of(self, origin: Origin) -> bool:
        """Whether the cells are exactly those of the origin, in the same order."""
        return list(self.cells.items()) == list(origin.cells.items())

    def difference(self, origin: Origin) -> str | None:
        """The first difference between these results and those of an origin, in words.

        Returns:
            The difference; None if there is none, or if the origin only has more cells.
        """
        return next(self._differences(origin), None)

    def _differences(self, origin: Origin) -> Iterator[str]:
        for what in sorted(self.sources.keys() & origin.sources.keys()):
            old, new = self.sources[what], origin.sources[what]
            if old.sha256 != new.sha256:
                other = "other" if what.endswith(("data", "features")) else "another"
                same = old.name == new.name
                how = f"{new.name} has changed since" if same else f"{old.name}, not {new.name}"
                yield f"results made from {other} {what} ({how})"
        command = {"command": self.settings.get("command")}
        setting = difference(command, {"command": origin.command})
        setting = setting or difference(self.settings, origin.plain, free=origin.shown)
        if setting is not None:
            yield f"results with {setting}"
        for what in sorted(self.sources.keys() ^ origin.sources.keys()):
            word = "with" if what in self.sources else "without"
            source = self.sources.get(what) or origin.sources[what]
            yield f"results made {word} {what} ({source.name})"
        for name, content in self.cells.items():
            if name not in origin.cells:
                yield f"results of {name}, which is not asked for now"
            elif origin.cells[name] != content:
                yield f"results of {name} on another grid or of another sampler"

    def save(self, folder: Path) -> None:
        """Write the file atomically."""
        values = {"format": FORMAT, "version": VERSION, **vars(self)}
        values["sources"] = {what: source._asdict() for what, source in self.sources.items()}
        values["digest"] = fingerprint(values)
        write_json(folder / MANIFEST, values)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the file.

        Raises:
            FileNotFoundError: If there is no such folder, or it has no manifest.
            DamagedManifestError: If the manifest is damaged.
            ValueError: If the file has another version of the format, or is not a manifest.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no results of this version of scoresde")
        content = path.read_bytes()
        if FORMAT.encode() not in content:
            raise ValueError(
                f"{path} was not written by scoresde, or is damaged; give another folder, or "
                "remove this one yourself"
            )
        try:
            values = json.loads(content)
            digest, form, version = (values.pop(key) for key in ("digest", "format", "version"))
            whole = digest == fingerprint({"format": form, "version": version, **values})
            values["sources"] = {k: Source(**v) for k, v in values["sources"].items()}
            found = cls(**values | {"parts": tuple(values["parts"])})
            whole = whole and form == FORMAT and all(map(_stays_inside, found.names))
        except Exception:  # damaged bytes may raise any error
            whole = False
        if not whole:
            raise DamagedManifestError(f"{path} is damaged")
        if version != VERSION:
            raise ValueError(
                f"{path} is of another version of scoresde; give another folder, or remove this "
                "one yourself"
            )
        return found


def _stays_inside(name: str) -> bool:
    """Whether a path stays below the folder; a manifest may come from an unknown source."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
