"""Checkpoints as plain data: one safetensors file, written atomically, verified when read.

The safetensors header carries one metadata entry, `scoresde`, holding canonical JSON:

    {"format": 1, "metadata": {...}, "sha256": "..."}

`metadata` is whatever plain data the caller gives (config, data specification, provenance).
`sha256` covers it and the name, dtype, shape and bytes of every tensor, so a flipped bit anywhere
is an error and not a slightly different network. It guards against damage, not against forgery.
Nothing in the file is ever executed: weights are data, not code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn

from ._files import atomic_write, clean_stale
from ._text import printable, reason_of

__all__ = [
    "FORMAT_VERSION",
    "CheckpointError",
    "RawCheckpoint",
    "load_into",
    "read_checkpoint",
    "save_checkpoint",
]

FORMAT_VERSION = 1

_KEY = "scoresde"
_LENGTH_BYTES = 8  # the header's length, little-endian, opens the file
_SHOWN = 5  # differences listed before "and n more"
_LONGEST = 1000  # characters of a message
_WRAPPERS = {"module", "_orig_mod"}  # added by DistributedDataParallel and torch.compile
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_DTYPES = _FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line with the path (where there is one) and why."""

    def __init__(self, reason: str, path: str | Path | None = None) -> None:
        super().__init__(reason, path)  # both, so that the exception can be pickled
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        reason = self.reason if len(self.reason) <= _LONGEST else f"{self.reason[:_LONGEST]} ..."
        return printable(reason if self.path is None else f"{self.path}: {reason}")


@dataclass(frozen=True, eq=False)
class RawCheckpoint:
    """What a checkpoint file holds, as plain data.

    Attributes:
        path: The file it was read from.
        tensors: Tensors by name, on the CPU.
        metadata: Plain JSON data (dict, list, str, int, float, bool, None).
        sha256: Digest of tensors and metadata, 64 hexadecimal digits; it names the content, not
            the file, so re-packing the same content keeps it.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    sha256: str


def save_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and metadata to one file, atomically: a crash leaves the old file or the new.

    Equal content gives equal bytes. Temporary files left by killed processes are removed.

    Args:
        path: File to write, `.safetensors` by custom; its folder must exist.
        tensors: Tensors by name, on any device, any shape and stride; stored as CPU copies.
        metadata: Plain JSON data with string keys; tuples become lists.

    Raises:
        ValueError: If a tensor holds NaN or an infinity, if a name is empty or carries the prefix
            of a DistributedDataParallel or compiled wrapper, or if a number in the metadata is
            not finite.
        TypeError: If a value is not a dense tensor of a storable dtype, or the metadata are not
            plain data.
        OSError: If the file cannot be written; the old file is then intact.
    """
    stored = {name: _storable(name, tensor) for name, tensor in tensors.items()}
    content = _plain(metadata, "metadata")
    if not isinstance(content, dict):
        raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}")
    sha256 = _digest(stored, content)
    envelope = {"format": FORMAT_VERSION, "metadata": content, "sha256": sha256}
    # A single entry, because safetensors writes several in random order.
    blob = safetensors.torch.save(stored, metadata={_KEY: _canonical(envelope)})
    clean_stale(path)  # first: it may be what fills the disk
    with atomic_write(path) as file:
        file.write(blob)


@torch.inference_mode(False)  # its tensors could not become parameters
def read_checkpoint(path: str | Path) -> RawCheckpoint:
    """Read a checkpoint and verify every byte of it; nothing in the file is executed.

    Args:
        path: File written by `save_checkpoint`.

    Returns:
        Its tensors (on the CPU), metadata and digest.

    Raises:
        CheckpointError: If the file is missing, not a regular file, empty, truncated, damaged, of
            another format (text, PyTorch pickle, another project's safetensors), or written in
            another format version.
    """
    path = Path(path)
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", path) from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    except CheckpointError as error:
        raise CheckpointError(error.reason, path) from error


def load_into(module: nn.Module, raw: RawCheckpoint, prefix: str = "") -> None:
    """Copy tensors of a checkpoint into a module; all must match, or nothing changes.

    Values are cast to the module's dtypes and moved to its devices. A module on the "meta" device
    has shapes but no memory: it takes over the tensors themselves, on the device they are on.

    Args:
        module: Receives the tensors, in place.
        raw: From `read_checkpoint`.
        prefix: Only names that start with it are used, without it ("net." finds "net.0.weight").

    Raises:
        CheckpointError: If a name is missing or unexpected, or a shape or a dtype does not fit;
            lists the first five.
    """
    given = {k.removeprefix(prefix): v for k, v in raw.tensors.items() if k.startswith(prefix)}
    expected = module.state_dict()
    differences = _differences(given, expected)
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise CheckpointError(
            f"the tensors do not fit {type(module).__name__}: "
            f"{'; '.join(differences[:_SHOWN])}{more}",
            raw.path,
        )
    cast = {name: value.to(expected[name].dtype) for name, value in given.items()}
    module.load_state_dict(cast, assign=any(value.is_meta for value in expected.values()))


def _differences(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    found = []
    for name in [name for name in expected if name in given]:
        have, want = given[name], expected[name]
        if have.shape != want.shape:
            found.append(f"{name} has shape {tuple(have.shape)}, not {tuple(want.shape)}")
        elif not torch.can_cast(have.dtype, want.dtype):
            found.append(f"{name} has dtype {have.dtype}, not {want.dtype}")
    found += [f"missing {name}" for name in expected if name not in given]
    return found + [f"unexpected {name}" for name in given if name not in expected]


def _storable(name: str, tensor: Tensor) -> Tensor:
    """A contiguous CPU copy of one tensor, refused unless it is fit for a checkpoint."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise TypeError(f"tensors must map str to Tensor, got {name!r}: {type(tensor).__name__}")
    if not name:
        raise ValueError("tensor names must not be empty")
    if _WRAPPERS & set(name.split(".")[:2]):
        raise ValueError(
            f"tensor {name!r} carries a wrapper's prefix: save the bare module, not the "
            "DistributedDataParallel or compiled one around it"
        )
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        raise TypeError(
            f"tensor {name!r} must be dense and of a storable dtype, got {tensor.dtype}, "
            f"{tensor.layout} on {tensor.device}"
        )
    if tensor.is_floating_point():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ValueError(f"tensor {name!r} holds {bad} non-finite values, not saved")
    return tensor.detach().to("cpu", copy=True).contiguous()


def _plain(value: Any, where: str) -> Any:
    """`value` as plain JSON data (tuples as lists), or an error with the key path."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, got {value}")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} must have string keys, got {key!r}")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"{where} must be plain JSON data, got {type(value).__name__}")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of the content: canonical JSON of everything but the bytes, then the bytes.

    The first line fixes every length that follows, so no two contents share an input.
    """
    names = sorted(tensors)
    kinds = [
        [n, str(tensors[n].dtype).removeprefix("torch."), list(tensors[n].shape)] for n in names
    ]
    described = {"format": FORMAT_VERSION, "metadata": metadata, "tensors": kinds}
    digest = hashlib.sha256(_canonical(described).encode() + b"\n")
    for name in names:
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> RawCheckpoint:
    if "\0" in str(path):
        raise CheckpointError("a path cannot hold a null character")
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise CheckpointError("is a folder, not a checkpoint file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise CheckpointError("not a regular file")
    with open(path, "rb") as file:
        envelope = _envelope(_header(file))  # before the rest of a possibly huge file
        file.seek(0)
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # hostile bytes: whatever the parser raises, the verdict is this
        raise CheckpointError(f"damaged or truncated: {reason_of(error)}") from error
    if _digest(tensors, envelope["metadata"]) != envelope["sha256"]:
        raise CheckpointError("damaged: the SHA-256 checksum does not match the content")
    return RawCheckpoint(path, tensors, envelope["metadata"], envelope["sha256"])


def _header(file: BinaryIO) -> Any:
    """The safetensors header: its length in 8 bytes, then JSON."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(512)
    if not start:
        raise CheckpointError("empty file")
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise CheckpointError(f"not a scoresde checkpoint: {_looks_like(start)}")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > size - _LENGTH_BYTES:  # before a flipped bit asks for exabytes
        raise CheckpointError(f"damaged or truncated: {size} bytes, header of {length} bytes")
    file.seek(_LENGTH_BYTES)
    try:
        return json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged: header is not JSON, {reason_of(error)}") from error


def _envelope(header: Any) -> dict[str, Any]:
    """Our own entry of the header, checked for version and form."""
    entries = header.get("__metadata__") if isinstance(header, dict) else None
    text = entries.get(_KEY) if isinstance(entries, dict) else None
    if not isinstance(text, str):
        raise CheckpointError("not a scoresde checkpoint: safetensors without scoresde metadata")
    try:
        envelope = json.loads(text)
        # Two spellings of one value would let a flipped bit pass (an escape in capitals).
        sound = _canonical(envelope) == text and isinstance(envelope["metadata"], dict)
        version, _ = envelope["format"], envelope["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError("damaged: its scoresde metadata cannot be parsed") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"written in format version {version} by a newer scoresde; this one reads "
            f"{FORMAT_VERSION}, please upgrade"
        )
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(f"format version {version!r} cannot be read, only {FORMAT_VERSION}")
    if not sound:
        raise CheckpointError("damaged: its scoresde metadata are not canonical")
    return envelope


def _looks_like(start: bytes) -> str:
    if re.match(rb"PK\x03\x04.{26}[^/]*?\.npy", start, re.DOTALL):
        return "looks like a .npz file of arrays"
    # torch.save writes a zip, too; \x80 and a protocol number open an older or a bare pickle.
    if re.match(rb"PK\x03\x04|\x80[\x01-\x05]", start):
        return "looks like a PyTorch pickle, which can run code; it was not opened"
    if len(start) <= _LENGTH_BYTES:
        return f"only {len(start)} bytes, perhaps truncated"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in start):
        return "looks like text"
    return "not a safetensors file"
