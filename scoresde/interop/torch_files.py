"""PyTorch's two formats of files, and the pickles in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .limits import Bounded, Budget, Refusal, ended
from .opcodes import interpret
from .rebuild import Rebuilder, storage_dtype
from .records import Record

__all__ = ["MAGIC", "head_of", "read_stream", "read_zip", "run", "unknown_id"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first object of the older format
_PROTOCOL = 1001
_LONGEST_INDEX = 16 << 20  # bytes of the table of contents of a zip file


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a file that begins as PyTorch's files or pickles do; otherwise none.

    Args:
        path: Any path. It need not exist.
        size: Number of bytes at most.
    """
    try:
        if not path.is_file():
            return b""
        with open(path, "rb") as file:
            head = file.read(size)
    except OSError:
        return b""
    return head if head[:1] in (b"P", b"\x80") else b""


def run(file: IO[bytes], budget: Budget, persistent: Callable[[Any], Any]) -> Any:
    """The object of one pickle.

    Args:
        file: Is left behind the end of the pickle.
        budget: Is charged for it.
        persistent: Persistent id of a storage ↦ the storage.

    Raises:
        Refusal: If it is damaged, or does what no checkpoint does.
    """

    def nested(data: bytes) -> Any:
        if budget.inside:
            raise Refusal("a PyTorch file inside it holds a further one")
        budget.inside = True
        read = read_zip if data.startswith(b"PK") else read_stream
        tree = read(Bounded(io.BytesIO(data), len(data)), budget)
        budget.inside = False
        return tree

    rebuilder = Rebuilder(budget, nested)
    return interpret(file, budget, rebuilder.call, rebuilder.build, persistent)


def unknown_id(identifier: Any) -> Record:
    """The record of a persistent id whose meaning is not known."""
    return Record("pickle", "persistent_id", (identifier,))


def _storage_id(identifier: Any, most: int) -> tuple[torch.dtype, str, int]:
    """(dtype, key, bytes) of a storage's persistent id, at most `most` bytes."""
    known = isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage"
    _, kind, key, _, count = identifier[:5] if known else [None] * 5
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise Refusal("a tensor's storage is not described as PyTorch does it")
    dtype = storage_dtype(kind)
    size = count * dtype.itemsize
    if size > most:
        raise Refusal(f"storage {key[:40]!r} should have {size:,} bytes, more than there are")
    return dtype, key, size


def read_zip(file: Bounded, budget: Budget) -> Any:
    """The object of a zip file: `NAME/data.pkl`, and a member `NAME/data/KEY` for each storage."""
    with zipfile.ZipFile(Bounded(file, file.size, _LONGEST_INDEX)) as archive:
        members = _members(archive, file.size)
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refusal("it has no single data.pkl, so torch.save has not written it")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith((f"{folder}constants.pkl", f"{folder}code/")) for name in members):
            raise Refusal("it holds a program (TorchScript), not weights")
        order = members.get(f"{folder}byteorder")
        if order is not None and order.file_size < 20 and archive.read(order) == b"big":
            raise Refusal("it was written on a big-endian machine")
        loaded: dict[str, Tensor] = {}

        def persistent(identifier: Any) -> Tensor:
            dtype, key, size = _storage_id(identifier, file.size)
            if key not in loaded:
                budget.take_memory(size)
                loaded[key] = _member(archive, members.get(f"{folder}data/{key}"), key, size)
            if len(loaded[key]) != size:
                raise Refusal(f"storage {key[:40]!r} has two sizes")
            return loaded[key].view(dtype)

        data = archive.read(members[pickles[0]])
        return run(io.BytesIO(data), budget, persistent)


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name: not compressed, and not more than the file holds."""
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise Refusal("it has two members of one name")
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise Refusal("a member is compressed, which torch.save never does")
    if sum(info.file_size for info in members.values()) > size:
        raise Refusal("its members have more bytes than the file")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, key: str, size: int) -> Tensor:
    """The bytes of a storage, compared with their checksum."""
    if info is None or info.file_size != size:
        found = 0 if info is None else info.file_size
        raise Refusal(f"storage {key[:40]!r} has {found:,} bytes of {size:,}")
    raw = torch.empty(size, dtype=torch.uint8, device="cpu")
    view, filled = memoryview(raw.numpy()), 0
    with archive.open(info) as member:
        while filled < size:
            filled += member.readinto(view[filled : filled + (1 << 20)]) or ended()
    return raw


def read_stream(file: Bounded, budget: Budget) -> Any:
    """The object of PyTorch's older format: five pickles, then the numbers of each storage."""
    head = [run(file, budget, unknown_id) for _ in range(3)]
    if head[0] != MAGIC or head[1] != _PROTOCOL or not isinstance(head[2], dict):
        raise Refusal("its first numbers are not those of PyTorch")
    if head[2].get("little_endian") is not True:
        raise Refusal("it was written on a big-endian machine")
    made: dict[str, tuple[torch.dtype, Tensor]] = {}
    left = file.size

    def persistent(identifier: Any) -> Tensor:
        nonlocal left
        dtype, key, size = _storage_id(identifier, file.size)
        if key not in made:
            left -= size
            if left < 0:
                raise Refusal("its storages have more bytes than the file")
            budget.take_memory(size)
            made[key] = dtype, torch.zeros(size, dtype=torch.uint8, device="cpu")
        dtype, raw = made[key]
        return _part(raw.view(dtype), identifier[5] if len(identifier) > 5 else None)

    tree = run(file, budget, persistent)
    keys = run(file, budget, unknown_id)
    if not isinstance(keys, list) or len(keys) != len(made) or set(map(str, keys)) != set(made):
        raise Refusal("its list of storages does not fit its tensors")
    for key in keys:
        dtype, raw = made[str(key)]
        if int.from_bytes(file.read(8), "little") * dtype.itemsize != len(raw):
            raise Refusal(
                f"storage {str(key)[:40]!r} has another number of elements than announced"
            )
        file.fill(raw)
    return tree


def _part(whole: Tensor, described: Any) -> Tensor:
    """A part of a storage, described as (key, offset, count); all of it for None."""
    if described is None:
        return whole
    _, offset, count = described if isinstance(described, tuple) and len(described) == 3 else "???"
    if type(offset) is not int or type(count) is not int or not 0 <= offset <= offset + count:
        raise Refusal("a part of a storage is not described as PyTorch does it")
    if offset + count > len(whole):
        raise Refusal("a part of a storage is outside it")
    return whole[offset : offset + count]
