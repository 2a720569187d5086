"""Reading PyTorch files and pickles without running anything that they name.

    read_pickle("checkpoint.pth")["ema"]["shadow_params"]      # tensors

A pickle is a program, and Python's and PyTorch's readers can be made to run any code with it. Here
tensors, arrays, numbers, text, lists, tuples and dictionaries are rebuilt by our own code. Every
other class or function that the file names becomes an inert `Record`.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
from torch import Tensor

from .._text import reason_of
from ..checkpoint import CheckpointError
from .opcodes import Budget, Record, Refusal, interpret
from .rebuild import Rebuilder, storage_dtype

__all__ = ["Record", "foreign_names", "read_pickle"]

_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of PyTorch's older format
_PROTOCOL = 1001
_SHORT = 1 << 20  # bytes that may be read without a look at what is left
_LONGEST_INDEX = 16 << 20  # bytes of the table of contents of a zip file
_DEEPEST = 200
_MOST_OBJECTS = 5_000_000  # of the result; one that occurs twice counts twice
_VIEWS = 8  # tensors may show each byte of the file this many times
_SPARE = 64 << 20
_END = object()
_TOO_DEEP = f"its objects are nested more than {_DEEPEST} deep"

_OTHERS = [
    (b"version https://git-lfs", "a pointer of Git LFS; the file itself was not downloaded"),
    (b"<!DOCTYPE", "a web page; the download failed"),
    (b"<!doctype", "a web page; the download failed"),
    (b"<html", "a web page; the download failed"),
    (b"\x93NUMPY", "an array of NumPy (.npy)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
]
# What the parts of the standard library raise for damaged data.
_DAMAGES = (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, Warning)


def read_pickle(path: str | Path) -> Any:
    """The content of a PyTorch file or a pickle, as plain data; nothing in the file is run.

    It reads PyTorch's zip format (`torch.save` since 1.6), its older stream format, and pickles of
    all protocols, also with PyTorch tensors inside.

    Args:
        path: The file.

    Returns:
        A tree of dict, list, tuple, str, bytes, int, float, complex, bool, None, tensors and
        `Record`. Tensors are on the CPU and need no gradients; those of one storage share it.
        Parameters and arrays of NumPy are tensors as well. All kinds of dictionaries are dict.

    Raises:
        CheckpointError: In one line, what the file is and what is wrong: it cannot be read, is
            damaged, is of another format, or would take much more memory than its size; or
            its objects are nested more than 200 deep or contain themselves.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError("is not a file", path)
        with open(path, "rb") as file:
            return _read(_Bounded(file, os.fstat(file.fileno()).st_size), path)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", path) from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", path) from error


def foreign_names(tree: Any) -> dict[str, int]:
    """The classes and functions that a file names and that were not rebuilt, with their numbers.

    Args:
        tree: What `read_pickle` returned.
    """
    found, seen, waiting = Counter(), set(), [tree]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend(_children(value))
            if isinstance(value, Record):
                found[f"{value.module}.{value.name}"] += 1
    return dict(found)


def _read(file: _Bounded, path: Path) -> Any:
    head = file.read(512)
    file.seek(0)
    kind, read = _kind(head)
    if read is None:
        raise CheckpointError(f"is {kind}", path)
    budget = Budget(memory=_VIEWS * file.size + _SPARE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pickletools warns of text that it cannot decode
            tree = read(file, budget)
        _check_shape(tree)
    except (Refusal, *_DAMAGES) as error:
        sentence = (
            reason_of(error) if isinstance(error, Refusal) else f"damaged: {reason_of(error)}"
        )
        raise CheckpointError(f"is {kind}, but {sentence}", path) from error
    return tree


def _kind(head: bytes) -> tuple[str, Callable[[_Bounded, Budget], Any] | None]:
    """What a file is by its first bytes, and the function that reads it."""
    if not head:
        return "empty", None
    if head.startswith(b"PK"):
        return "a PyTorch file (zip)", _read_zip
    for start, what in _OTHERS:
        if head.startswith(start):
            return what, None
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first", None
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file, not a PyTorch file or a pickle", None
    if _MAGIC.to_bytes(10, "little") in head[:20]:
        return "a PyTorch file (older format)", _read_stream
    if head[0] == 0x80:
        return "a pickle", _read_plain
    if head[:1] in b"(]}cNIFSVUXTKMJGi":
        return "perhaps a pickle of protocol 0", _read_plain
    return "not a PyTorch file and not a pickle", None


class _Bounded:
    """A file of which no read allocates more than is there, or more than `most` at once."""

    def __init__(self, file: IO[bytes], size: int, most: int | None = None) -> None:
        self.file, self.size, self.most = file, size, most
        self.tell, self.seek, self.seekable = file.tell, file.seek, file.seekable

    def read(self, n: int = -1) -> bytes:
        if 0 <= n <= _SHORT:
            return self.file.read(n)
        left = max(0, self.size - self.tell())
        n = left if n < 0 else min(n, left)
        if self.most is not None and n > self.most:
            raise Refusal(f"its table of contents has {n:,} bytes")
        return self.file.read(n)

    def readline(self) -> bytes:
        return self.file.readline(_SHORT)

    def fill(self, raw: Tensor) -> None:
        """Read into a tensor of bytes."""
        if self.file.readinto(raw.numpy()) != len(raw):
            _ended()


def _ended() -> NoReturn:
    raise Refusal("it ends inside a tensor")


def _run(file: IO[bytes], budget: Budget, persistent: Callable[[Any], Any]) -> Any:
    """The object of one pickle in which `persistent` finds the storages."""

    def nested(data: bytes) -> Any:
        if budget.inside:
            raise Refusal("a PyTorch file inside it holds a further one")
        budget.inside = True
        read = _read_zip if data.startswith(b"PK") else _read_stream
        tree = read(_Bounded(io.BytesIO(data), len(data)), budget)
        budget.inside = False
        return tree

    rebuilder = Rebuilder(budget, nested)
    return interpret(file, budget, rebuilder.call, rebuilder.build, persistent)


def _read_plain(file: _Bounded, budget: Budget) -> Any:
    tree = _run(file, budget, _unknown_id)
    if file.tell() < file.size:
        raise Refusal(f"{file.size - file.tell():,} bytes follow its end")
    return tree


def _unknown_id(identifier: Any) -> Record:
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


def _read_zip(file: _Bounded, budget: Budget) -> Any:
    """PyTorch's zip format: `NAME/data.pkl`, and one member `NAME/data/KEY` for each storage."""
    with zipfile.ZipFile(_Bounded(file, file.size, _LONGEST_INDEX)) as archive:
        members = _members(archive, file.size)
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refusal("it has no single data.pkl, so torch.save has not written it")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
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
        return _run(io.BytesIO(data), budget, persistent)


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
            filled += member.readinto(view[filled : filled + (1 << 20)]) or _ended()
    return raw


def _read_stream(file: _Bounded, budget: Budget) -> Any:
    """PyTorch's older format: five pickles, then the numbers of each storage."""
    head = [_run(file, budget, _unknown_id) for _ in range(3)]
    if head[0] != _MAGIC or head[1] != _PROTOCOL or not isinstance(head[2], dict):
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

    tree = _run(file, budget, persistent)
    keys = _run(file, budget, _unknown_id)
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


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, Record):
        yield from (value.args, value.kwargs, value.state, value.items)


@dataclass(slots=True)
class _Visit:
    """An object on the way from the root: what of it is left, and the size of what was seen."""

    value: Any
    children: Iterator[Any]
    objects: int = 1
    height: int = 1


def _check_shape(tree: Any) -> None:
    """Raise Refusal unless the objects form a tree of limited depth and size.

    Objects that occur several times are counted each time, because a program that walks through
    the tree meets them as often.
    """
    done: dict[int, _Visit] = {}
    path = [_Visit(tree, _children(tree))]
    on_path = {id(tree)}
    while path:
        top = path[-1]
        child = next(top.children, _END)
        if child is _END:
            done[id(top.value)] = path.pop()
            on_path.discard(id(top.value))
            if path:
                _count(path, top)
        elif not isinstance(child, (list, tuple, dict, Record)):
            top.objects += 1
        elif id(child) in on_path:
            raise Refusal("one of its objects contains itself")
        elif id(child) in done:
            _count(path, done[id(child)])
        else:
            on_path.add(id(child))
            path.append(_Visit(child, _children(child)))
            if len(path) > _DEEPEST:
                raise Refusal(_TOO_DEEP)


def _count(path: list[_Visit], child: _Visit) -> None:
    """Add a finished object to the last one of the path."""
    top = path[-1]
    top.objects += child.objects
    top.height = max(top.height, child.height + 1)
    if top.objects > _MOST_OBJECTS:
        raise Refusal(f"it stands for more than {_MOST_OBJECTS:,} objects")
    if top.height > _DEEPEST:
        raise Refusal(_TOO_DEEP)
