"""`scoresde report --diff`: why two folders of results differ, and in which numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._text import printable
from ..output.files import read_json
from ..output.manifest import Manifest
from ..output.result_folder import SUMMARY, check_whole
from .number_diff import Number, numbers_of

__all__ = ["Cause", "FolderDiff", "diff_folders"]

KINDS = {"sample": "sample", "likelihood": "likelihood", "bench": "bench", "demo": "bench"}
PAIRED = "likelihood --against"
LONGEST = 40  # letters of a value in the table
# Settings that cannot change a number, because a content is compared instead, or that only permit
# or add something.
NAMES = ("checkpoint", "against", "data_root", "models", "command")
EXTRA = ("force", "plot", "samplers", "grids", "tolerances", "plan")
BENCH_EXTRA = ("nfe", "t_mins", "metrics", "quality", "likelihood")  # more cells, or more columns
ROUNDING = ("batch", "device", "torch", "platform", "cpu", "gpu", "python", "threads", "compiled")
WHY = {
    "no": "no number depends on it",
    "rounding": "rounding, and step sizes that a batch shares",
    "yes": "it can change the numbers",
}


@dataclass(frozen=True)
class Cause:
    """One respect in which two results were not made alike.

    Attributes:
        key: What differs: a setting, a version, a content or something of the machine.
        a: Its value for the first folder.
        b: Its value for the second folder.
        matters: "yes", "rounding" (only the last digits, except for adaptive methods, whose step
            sizes depend on the batch), or "no".
    """

    key: str
    a: str
    b: str
    matters: str


@dataclass(frozen=True)
class FolderDiff:
    """The differences of two folders of results of one kind.

    Attributes:
        kind: "sample", "likelihood", "likelihood --against" or "bench".
        folders: The two folders.
        causes: All respects in which they were not made alike, those that matter first.
        numbers: All numbers that are not equal, those beyond their errors first.
        compared: Number of compared numbers.
    """

    kind: str
    folders: tuple[Path, Path]
    causes: list[Cause]
    numbers: list[Number]
    compared: int

    def plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = dict(zip("ab", map(str, self.folders), strict=True))
        causes, numbers = ([asdict(one) for one in many] for many in (self.causes, self.numbers))
        about = {"kind": self.kind, "folders": names, "compared": self.compared}
        return {**about, "equal": self.equal, "causes": causes, "numbers": numbers}

    @property
    def equal(self) -> bool:
        """Whether settings, contents, versions and numbers are all equal."""
        return not self.causes and not self.numbers

    def __str__(self) -> str:
        a, b = (printable(str(folder)) for folder in self.folders)
        lines = [f"{self.kind}: A = {a}, B = {b}", ""]
        if self.equal:
            numbers = f"all {self.compared} numbers are the same"
            return "\n".join(
                [*lines, f"The folders are equal: they were made alike, and {numbers}."]
            )
        if self.causes:
            table = [("what differs", "A", "B", "can it change the numbers?")]
            table += [(c.key, c.a, c.b, f"{c.matters}: {WHY[c.matters]}") for c in self.causes]
            lines += _aligned(table)
        else:
            lines += ["Both were made alike: settings, contents, versions and machine are equal."]
        return "\n".join([*lines, "", *self._told()])

    def _told(self) -> Iterator[str]:
        """The numbers, and a sentence about them."""
        beyond = [number for number in self.numbers if number.beyond]
        if not self.compared:
            yield "They have no number in common."
            return
        if not self.numbers:
            yield f"All {self.compared} numbers are the same."
            return
        yield (
            f"{len(self.numbers)} of {self.compared} numbers are not the same; {len(beyond)} "
            "differ beyond their errors (together at 95 %):"
        )
        if beyond:
            table = [("number", "A", "B", "B − A", "")]
            table += [(n.name, n.a, n.b, n.difference, n.how) for n in beyond]
            yield from _aligned(table)


def diff_folders(a: Path, b: Path) -> FolderDiff:
    """Compare two folders of results of the same kind.

    Args:
        a: Folder of `scoresde bench`, `demo`, `likelihood` or `sample`.
        b: Another one.

    Raises:
        FileNotFoundError: If one of them holds no results.
        ValueError: If they are of different kinds or of another command, not finished or damaged.
    """
    folders = (a, b)
    manifests = [_manifest(folder) for folder in folders]
    kinds = [_kind(folder, m) for folder, m in zip(folders, manifests, strict=True)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"--diff: {a} holds results of {kinds[0]}, and {b} of {kinds[1]}; give two folders of "
            "the same kind"
        )
    for folder in folders:
        check_whole(folder)
    order = list(WHY)[::-1]
    causes = sorted(_causes(folders, manifests), key=lambda cause: order.index(cause.matters))
    compared, numbers = numbers_of(kinds[0], folders, manifests)
    numbers.sort(key=lambda number: not number.beyond)
    return FolderDiff(kinds[0], folders, causes, numbers, compared)


def _manifest(folder: Path) -> Manifest:
    found = Manifest.read(folder)
    if not found.finished:
        raise ValueError(f"--diff: {folder} is not finished; the same command finishes it")
    return found


def _kind(folder: Path, manifest: Manifest) -> str:
    """The kind of results, by which only equal kinds are compared."""
    command = manifest.settings.get("command")
    if command not in KINDS:
        also = "; give the folder of one of its cases" if command and "several" in command else ""
        raise ValueError(
            f"--diff: {folder} holds results of {command}, not of {', '.join(KINDS)}{also}"
        )
    return PAIRED if manifest.settings.get("against") is not None else KINDS[command]


def _causes(folders: tuple[Path, Path], manifests: list[Manifest]) -> Iterator[Cause]:
    """Settings, versions, contents and the machine, where they differ."""
    one, other = (_flat(m.settings) for m in manifests)
    one_machine, other_machine = (_about(folder) for folder in folders)
    bench = KINDS[manifests[0].settings["command"]] == "bench"
    for a, b in ((one, other), (one_machine, other_machine)):
        for key in sorted(a.keys() | b.keys()):
            if key != "sha256" and a.get(key) != b.get(key):
                yield Cause(key, *_texts(a.get(key), b.get(key)), _matters(key, bench))
    for what in sorted(manifests[0].sources.keys() | manifests[1].sources.keys()):
        a, b = (m.sources.get(what) for m in manifests)
        if a is None or b is None or a.sha256 != b.sha256:
            shown = ["none" if s is None else f"{_short(s.name)} {s.sha256[:8]}" for s in (a, b)]
            yield Cause(f"content of {what}", *shown, "yes")
        elif a.name != b.name:
            yield Cause(f"name of {what}", *_texts(a.name, b.name), "no")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what is compared elsewhere; versions and what data are one by one."""
    found = dict(settings)
    versions = found.pop("versions", None) or {}
    if isinstance(found.get("data"), dict):
        found |= {f"data.{key}": value for key, value in found.pop("data").items()}
    return found | versions


def _about(folder: Path) -> dict[str, Any]:
    """Versions and machine, which are no settings, as far as the folder holds them."""
    found: dict[str, Any] = {}
    for name in (SUMMARY, "machine.json"):
        path = folder / name
        values = read_json(path) if path.is_file() else {}
        if isinstance(values, dict):
            found |= values.get("versions", {}) if name == SUMMARY else values
    return {key: value for key, value in found.items() if key != "scoresde"}


def _matters(key: str, bench: bool) -> str:
    """Whether a difference in this setting can change a number; unknown settings can."""
    extra = BENCH_EXTRA if bench else ("data", "split")
    if key in (*NAMES, *EXTRA, *extra):
        return "no"
    return "rounding" if key in ROUNDING else "yes"


def _texts(a: Any, b: Any) -> list[str]:
    """Two values as short texts, of which at least the part where they differ is shown."""
    texts = [printable("none" if value is None else str(value)) for value in (a, b)]
    same = len(os.path.commonprefix(texts))
    if max(map(len, texts)) > LONGEST and same > LONGEST // 2:
        texts = ["…" + text[same - 8 :] for text in texts]
    return [t if len(t) <= LONGEST else t[: LONGEST - 1] + "…" for t in texts]


def _short(name: str) -> str:
    """The end of a long name or path."""
    name = printable(name)
    return name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    """The rows with columns of equal width, two blanks between them."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
