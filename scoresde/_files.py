"""Writing files: a crash at any time leaves the old file or the new one, never half a file.

The bytes go to a temporary file in the target's own folder, are flushed to the disk, and only
then take the target's name with one atomic `rename`; the folder is flushed last, so that the
new name survives a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

__all__ = [
    "atomic_write",
    "check_writable",
    "clean_folder",
    "existing_folder",
    "is_temporary",
]

# Characters of a file's name kept in the temporary name: enough to recognise the file, and below
# the usual limit of 255 bytes even at 4 bytes per character.
_KEPT_CHARACTERS = 40

_TEMPORARY = re.compile(r"(\..{1,40}\.)(\d{1,9})\.[0-9a-f]{8}\.tmp", re.DOTALL)

# A restarted container often gets its old process id back: a file with our own process id is stale
# unless it is one of these.
_being_written: set[str] = set()


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: Literal["wb", "w"] = "wb") -> Iterator[IO]:
    """Yield a file object whose content replaces `path` when the block ends without exception.

    On any exception, `KeyboardInterrupt` included, the temporary file is removed and `path` is
    as it was. A symlink is followed: its target is replaced and the link stays. Permissions are
    those of an ordinary `open`: an existing file keeps its mode, a new one gets 0o666 less the
    umask.

    Args:
        path: File to write; its folder must exist.
        mode: "wb" for bytes, "w" for UTF-8 text with newlines written as they are.

    Yields:
        A file object open for writing.

    Raises:
        OSError: If the file cannot be written (disk full, read-only, no such folder, a folder or
            a device at `path`); the message names `path`.
    """
    # realpath, not Path.resolve: the latter raises RuntimeError on a loop of links.
    target = Path(os.path.realpath(path))
    unique = f"{os.getpid()}.{secrets.token_hex(4)}"
    temporary = target.with_name(f"{_prefix(target.name)}{unique}.tmp")
    text = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
    _being_written.add(temporary.name)
    try:
        with _naming(path, target, temporary):
            permissions = _replaceable(target)
            # "x": never open an existing file. `tempfile` would give mode 0o600 for every umask.
            with open(temporary, mode.replace("w", "x"), **text) as file:
                if permissions is not None:
                    os.chmod(temporary, permissions)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the file or its folder does not exist
            temporary.unlink()
        raise
    finally:
        _being_written.discard(temporary.name)
    _sync_folder(target.parent)


def clean_folder(folder: str | Path, name: str | None = None) -> list[Path]:
    """Remove the temporary files that killed processes left behind in a folder.

    A file is stale if the process whose id is in its name is not alive. Files of other users, in
    folders that we may not change, and in subfolders are left alone. Process ids mean nothing on
    another machine: two machines must not write the same path of a shared disk at once.

    Args:
        folder: The folder; need not exist.
        name: Name of the file that was being written; None for every file.

    Returns:
        The files removed.
    """
    removed = []
    # A missing or read-only folder is not an error here: the later write will report it.
    with contextlib.suppress(OSError):
        for found in os.listdir(folder):
            match = _TEMPORARY.fullmatch(found)
            if match is None or (name is not None and match[1] != _prefix(name)):
                continue
            if _is_stale(found, int(match[2])):
                with contextlib.suppress(OSError):
                    (Path(folder) / found).unlink()
                    removed.append(Path(folder) / found)
    return removed


def is_temporary(name: str) -> bool:
    """Whether the name is that of a temporary file of `atomic_write`."""
    return _TEMPORARY.fullmatch(name) is not None


def _prefix(name: str) -> str:
    return f".{name[:_KEPT_CHARACTERS]}."


def _is_stale(name: str, pid: int) -> bool:
    if pid == os.getpid():
        return name not in _being_written
    if os.name != "posix":  # on Windows os.kill(pid, 0) would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # alive, but of another user
        return False
    return False


def _replaceable(target: Path) -> int | None:
    """Permission bits of the existing file, None if there is none; OSError if not replaceable."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    # A rename would silently replace /dev/null itself, or a write-protected file.
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied")
    return stat.S_IMODE(found.st_mode)


@contextlib.contextmanager
def _naming(path: str | Path, target: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError name `path` if it names no file (write, fsync) or the temporary file."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else str(error.filename)
        if error.errno is None or named not in (None, str(target), str(temporary)):
            raise
        reason = f"{error.strerror} (nothing was written; an earlier file is unchanged)"
        raise OSError(error.errno, reason, str(path)) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened for fsync
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder with permission to write but not to list
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot sync folders
            raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise unless a folder for results can be made, or written in; changes nothing.

    Args:
        folder: The folder, which need not exist.

    Raises:
        ValueError: If the path or a part of it is a file.
        PermissionError: If it cannot be written.
    """
    parent = existing_folder(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder}: {parent} is not writable")


def existing_folder(folder: Path) -> Path:
    """The folder itself if it exists, otherwise the nearest existing folder above it.

    Raises:
        ValueError: If the path or a part of it is a file.
    """
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise ValueError(f"--out {folder}: {parent} is there already, and is a file")
    return parent
