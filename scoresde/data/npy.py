"""Arrays of `.npy` and `.npz` files, whose sizes are checked before memory is taken."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from .._text import reason_of
from .mapped import Place
from .memory import check_memory, megabytes

__all__ = [
    "is_archive",
    "members_of",
    "opened",
    "read_array",
    "read_arrays",
    "read_member",
    "read_place",
]

# A compressed member that is larger than this and expands by more than this factor is refused:
# deflate reaches a factor of 1,030 on zeros, useful data stay far below 100.
_BOMB_BYTES = 1 << 26
_BOMB_RATIO = 100

_CHUNK = 1 << 20

_HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file by name, or the array of a `.npy` file as "y".

    Raises:
        ValueError: If the file is damaged or not such a file, or does not fit into memory.
    """

    def content(file: IO[bytes]) -> dict[str, np.ndarray]:
        if not is_archive(file):
            return {"y": read_array(path, file, path.stat().st_size)}
        with zipfile.ZipFile(file) as archive:
            members = members_of(archive)
            return {name: read_member(path, archive, info) for name, info in members.items()}

    try:
        return opened(path, content)
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into memory") from error


def opened(path: Path, read: Callable[[IO[bytes]], Any]) -> Any:
    """What `read` makes of the open file, with one line for every error of a damaged file."""
    try:
        with path.open("rb") as file:
            return read(file)
    except MemoryError:
        raise
    # On damaged bytes NumPy, zipfile and zlib raise a dozen types, some of which are neither
    # ValueError nor OSError.
    except Exception as error:
        raise ValueError(
            f"{path} is not a .npy or .npz file of plain numbers: {reason_of(error)}"
        ) from error


def is_archive(file: IO[bytes]) -> bool:
    """Whether an open file is an archive (`.npz`); if it is no `.npy` file either, raise."""
    magic = file.read(6)
    file.seek(0)
    if not magic.startswith((b"PK", np.lib.format.MAGIC_PREFIX)):
        raise ValueError("it does not begin as one")
    return magic.startswith(b"PK")


def members_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a `.npz` file by the names of their arrays."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise ValueError("it holds two arrays of one name")
    return members


def read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of a `.npz` file, unless it expands too much."""
    packed = min(info.compress_size, path.stat().st_size)
    if info.file_size > max(_BOMB_BYTES, _BOMB_RATIO * packed):
        raise ValueError(
            f"{info.filename} expands from {megabytes(packed)} to {megabytes(info.file_size)}, "
            f"more than {_BOMB_RATIO} fold; if it is sound, save it with np.savez"
        )
    with archive.open(info) as file:
        return read_array(f"{path} ({info.filename})", file, info.file_size)


def read_place(path: Path, file: IO[bytes], size: int) -> Place | None:
    """Where in a file an array in NumPy's format lies; None if its last axis is the slowest.

    Args:
        path: The file.
        file: The open file, at the beginning of the array's header.
        size: Position in the file where the array must end.
    """
    shape, fortran, dtype = _read_header(file, size)
    return None if fortran else Place(path, file.tell(), shape, dtype)


def read_array(source: str | Path, file: IO[bytes], size: int) -> np.ndarray:
    """One array in NumPy's format from `file`, which holds `size` bytes.

    `np.load` takes the memory that the header claims before it checks that the data exist.
    """
    shape, fortran, dtype = _read_header(file, size)
    check_memory(source, math.prod(shape) * dtype.itemsize)
    flat = np.empty(math.prod(shape), dtype)
    left = memoryview(flat.view(np.uint8))
    while len(left):
        read = file.readinto(left[:_CHUNK])
        if not read:
            raise ValueError(f"{len(left)} bytes are missing at its end")
        left = left[read:]
    file.read(1)  # a member's checksum is compared at its end
    if dtype.kind == "U":
        flat.tolist()  # raises if the bytes are not characters
    return flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)


def _read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the last axis is the slowest, and dtype; the rest must hold such an array."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"it has version {version} of the .npy format, not 1.0 or 2.0")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.kind not in "buifcU":
        raise ValueError(f"it holds {'objects' if dtype.hasobject else dtype}, not numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there:
        raise ValueError(f"its header claims {claimed} bytes, but {there} bytes follow")
    return shape, fortran, dtype
