"""A lock on a folder: two commands never write the results in one folder at the same time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such lock, so folders are not locked there
    fcntl = None

__all__ = ["LOCK", "lock_folder"]

LOCK = ".scoresde.lock"

# Errors of a file system without locks: nothing is locked there either.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Keep all other processes from writing the folder until the block ends.

    The folder is made if it does not exist. The kernel releases the lock when the process ends,
    even if it is killed. When the block ends, the lock file is removed, and folders that were made
    here are removed if they are empty.

    Args:
        folder: The folder; missing parents are made as well.

    Raises:
        RuntimeError: If another process, or another thread of this one, holds the lock.
        OSError: If the folder or the lock file cannot be made.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        # The file is removed while the lock is held. Later another process could have locked it
        # already, and would then hold the lock of a file without a name.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):  # stops at the first folder that is not empty
            for path in made:
                path.rmdir()


def _acquire(folder: Path) -> int:
    """The descriptor of the locked lock file."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            _lock(descriptor, folder)
            # The file may have been removed between our opening and locking it.
            if _has_its_name(descriptor, folder / LOCK):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 20).decode(errors="replace")
        who = f" (pid {pid})" if pid.isdecimal() else ""
        raise RuntimeError(
            f"--out {folder}: another scoresde process{who} is writing here; wait until it ends, "
            "or give another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _has_its_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
