"""A folder of results: all commands open, resume, replace and finish it in the same way.

    results = ResultFolder.open(out, origin, overwrite)  # refuses other results; writes nothing
    if results.finished:
        return results.read()                            # the summary that exists
    with results.write(FILES) as output:                 # locks the folder
        ...                                              # write the files in output.work
        output.finish(summary)                           # they replace earlier results

All files are written to the subfolder `parts` first. If a command stops or fails, earlier results
are unchanged, and the same command continues from the finished parts.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._files import check_writable, clean_folder, existing_folder, is_temporary
from .._lock import LOCK, lock_folder
from ..fingerprint import file_fingerprint
from .files import read_json, write_json
from .manifest import MANIFEST, DamagedManifestError, Manifest, Origin

__all__ = ["PARTS", "SUMMARY", "Output", "ResultFolder", "check_whole", "claim", "remove_results"]

SUMMARY = "summary.json"
PARTS = "parts"
EARLIER = "settings.json"  # marked a folder of results before manifests existed
EARLIER_COMMANDS = ("sample", "likelihood", "latent", "bench", "demo", "verify")


@dataclass(frozen=True)
class ResultFolder:
    """A folder for the results of one origin.

    Attributes:
        path: The folder.
        origin: Everything that determines the results.
        overwrite: Whether results may be replaced, including results of the same origin.
        finished: Whether the folder already holds complete results of this origin.
    """

    path: Path
    origin: Origin
    overwrite: bool = False
    finished: bool = False

    @classmethod
    def open(cls, path: Path, origin: Origin, overwrite: bool = False) -> ResultFolder:
        """Check a folder without changing it.

        Warns:
            UserWarning: If a file of complete results is missing or damaged.

        Raises:
            ValueError: If the folder holds other results and `overwrite` is not set, or if it
                holds files that scoresde did not write.
            PermissionError: If results must be made and the folder cannot be written.
        """
        before = _manifest(path, origin, overwrite)
        if before is not None and before.finished and not overwrite and before.has_all_of(origin):
            damaged = _damaged(path, before)
            if damaged is None:
                return cls(path, origin, overwrite, finished=True)
            warnings.warn(
                f"--out {path}: {damaged} is missing or damaged; the results are made again",
                stacklevel=2,
            )
        check_writable(path)
        return cls(path, origin, overwrite)

    def read(self, name: str = SUMMARY) -> Any:
        """Plain data from one of the results."""
        return read_json(self.path / name)

    @contextlib.contextmanager
    def write(self, files: Sequence[str], parts: Sequence[str] = ()) -> Iterator[Output]:
        """Lock the folder while results are made, and yield the `Output` that writes them.

        If the block ends with an exception, the finished parts stay and everything else is
        unchanged. The same command then continues from these parts.

        Args:
            files: Paths in the folder of all results that may be written.
            parts: Paths in `parts/` of finished parts; a part may also be a result.

        Raises:
            ValueError, PermissionError: As for `open`.
            RuntimeError: If another process writes in the folder.
        """
        folder = self.path
        check_writable(folder)
        with lock_folder(folder):
            before = _manifest(folder, self.origin, self.overwrite)
            claimed = [f"{PARTS}/{name}" for name in (*files, *parts)]
            _check_free(folder, before, (*files, *claimed))
            started = _started(before, self.origin, claimed)
            started.save(folder)
            for place in {folder, *((folder / name).parent for name in started.names)}:
                clean_folder(place)
            try:
                yield Output(folder, self.origin, tuple(files), started)
            except BaseException:
                _remove(folder, [f"{PARTS}/{name}" for name in files if name not in parts])
                _remove_empty(folder, started.parts)
                if before is None and not _foreign(folder):
                    (folder / MANIFEST).unlink()
                raise


@dataclass(frozen=True)
class Output:
    """A locked folder while its results are made.

    Attributes:
        folder: The folder.
        origin: Everything that determines the results.
        files: Paths in the folder of all results that may be written.
        before: The manifest before the results are published.
    """

    folder: Path
    origin: Origin
    files: tuple[str, ...]
    before: Manifest

    @property
    def work(self) -> Path:
        """The subfolder to which all files are written first."""
        path = self.folder / PARTS
        path.mkdir(exist_ok=True)
        return path

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and publish all files."""
        write_json(self.work / SUMMARY, summary)
        self.publish()

    def publish(self, kept: Iterable[str] = (), later: Iterable[str] = ()) -> None:
        """Replace all earlier results by the files in `work`, and remove the parts.

        Args:
            kept: Earlier results that stay, unless `work` holds newer ones.
            later: Files that may be written later; their content is not checked.
        """
        written = [name for name in self.files if (self.work / name).exists()]
        now = dict.fromkeys((*written, *kept))
        later = list(later)
        ours = {*self.before.files, *now, *later}
        manifest = replace(Manifest.of(self.origin), parts=self.before.parts)
        replace(manifest, files=dict.fromkeys(sorted(ours))).save(self.folder)
        _remove(self.folder, self.before.files.keys() - now.keys())
        for name in written:
            (self.folder / name).parent.mkdir(exist_ok=True)
            os.replace(self.work / name, self.folder / name)
        _remove(self.folder, self.before.parts)
        digests = {name: file_fingerprint(self.folder / name) for name in sorted(now)}
        files = digests | dict.fromkeys(later)
        replace(manifest, files=files, parts=(), finished=True).save(self.folder)


def remove_results(folder: Path, command: str) -> None:
    """Remove the results of a command, and no other file.

    Args:
        folder: The folder; it is left alone if it holds no results of this command.
        command: The command that made the results.

    Raises:
        RuntimeError: If another process writes in the folder.
    """
    try:
        manifest = Manifest.read(folder)
    except (FileNotFoundError, ValueError):
        return
    if manifest.settings.get("command") != command:
        return
    with lock_folder(folder):
        _remove(folder, manifest.names)
        (folder / MANIFEST).unlink()
    with contextlib.suppress(OSError):  # the folder holds other files
        folder.rmdir()


def claim(folder: Path, names: Sequence[str]) -> None:
    """Add files that are about to be written to the manifest; their content is not checked later.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If one of the files exists, and scoresde did not write it.
    """
    manifest = Manifest.read(folder)
    new = [name for name in names if name not in manifest.names]
    if new:
        _check_free(folder, manifest, new)
        replace(manifest, files=manifest.files | dict.fromkeys(new)).save(folder)


def check_whole(folder: Path) -> None:
    """Raise unless all results in the manifest exist with unchanged bytes.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If a file is missing or damaged; the message names it.
    """
    name = _damaged(folder, Manifest.read(folder))
    if name is not None:
        raise ValueError(
            f"{folder / name} is missing or damaged; the command that made it makes it again"
        )


def _manifest(folder: Path, origin: Origin, overwrite: bool) -> Manifest | None:
    """The manifest of results that may be continued or replaced; None if the folder has none.

    For a damaged manifest that may be replaced, the result is an empty manifest, because its files
    are not known.
    """
    existing_folder(folder)
    names = _foreign(folder)
    if not (folder / MANIFEST).is_file():
        if names:
            raise ValueError(f"--out {folder}: {_what_is_there(folder)}")
        return None
    try:
        found = Manifest.read(folder)
    except DamagedManifestError as error:
        if overwrite:
            return Manifest({})
        raise ValueError(
            f"--out {folder}: {error}: what the results were made from is not known; give another "
            "folder, or --overwrite to replace them"
        ) from error
    different = None if overwrite else found.difference(origin)
    # After a kill there may be no file that could be lost.
    if different is not None and any((folder / name).exists() for name in found.names):
        raise ValueError(
            f"--out {folder}: holds {different}; give another folder, or --overwrite to replace "
            "them"
        )
    return found


def _started(before: Manifest | None, origin: Origin, claimed: Iterable[str]) -> Manifest:
    """The manifest while results are made: that of complete earlier results if they exist."""
    before = before or Manifest({})
    kept = before if before.finished else replace(Manifest.of(origin), files=before.files)
    return replace(kept, parts=tuple(sorted({*before.parts, *claimed})))


def _foreign(folder: Path) -> list[str]:
    """Names of all entries other than the manifest, the lock and temporary files."""
    if not folder.exists():
        return []
    names = (path.name for path in folder.iterdir())
    return [name for name in names if name not in (MANIFEST, LOCK) and not is_temporary(name)]


def _what_is_there(folder: Path) -> str:
    """Text on the content of a folder without a manifest: earlier results, or other files."""
    with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
        if json.loads((folder / EARLIER).read_bytes())["command"] in EARLIER_COMMANDS:
            return (
                "holds results of an earlier version of scoresde; give another folder, or remove "
                "this one yourself"
            )
    return "holds other files; give a new or an empty folder"


def _check_free(folder: Path, before: Manifest | None, names: Iterable[str]) -> None:
    """Refuse to replace a file that scoresde did not write."""
    if before is not None and not before.settings:  # damaged manifest: its files are not known
        return
    ours = set() if before is None else before.names
    for name in names:
        if name not in ours and os.path.lexists(folder / name):
            raise ValueError(
                f"--out {folder}: holds {name}, which scoresde did not write; move it, or give "
                "another folder"
            )


def _damaged(folder: Path, manifest: Manifest) -> str | None:
    """The first result that is missing or whose bytes have changed; None if there is none."""
    for name, digest in manifest.files.items():
        if digest is not None:
            path = folder / name
            if not path.is_file() or file_fingerprint(path) != digest:
                return name
    return None


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files, and then all empty subfolders."""
    for name in names:
        if (folder / name).parent.resolve().is_relative_to(folder.resolve()):  # never by a link
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                (folder / name).unlink()
    _remove_empty(folder, names)


def _remove_empty(folder: Path, names: Iterable[str]) -> None:
    """Remove the folders of some files if they are empty."""
    places = {above for name in names for above in (folder / name).parents}
    for place in sorted(places, key=lambda path: -len(path.parts)):
        if folder in place.parents and not place.is_symlink():
            with contextlib.suppress(OSError):
                place.rmdir()
