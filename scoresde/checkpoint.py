"""Checkpoints as plain data: one safetensors file, written atomically, verified when read.

The safetensors header carries one metadata entry, `scoresde`, holding canonical JSON:

    {"format": 1, "metadata": {...}, "sha256": "..."}

`metadata` is the plain data that the caller gives (config, data specification, provenance).
`sha256` covers the metadata and the name, dtype, shape and bytes of every tensor, so that a flipped
bit anywhere gives an error and not a slightly different network. It guards against damage, not
against forgery. Nothing in the file is ever executed: weights are data, not code.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ._envelope import FORMAT_VERSION, KEY, canonical, read_envelope
from ._files import atomic_write, clean_folder
from ._tensor import check_fits
from ._text import printable, reason_of

__all__ = [
    "CheckpointError",
    "RawCheckpoint",
    "in_memory",
    "load_into",
    "read_checkpoint",
    "save_checkpoint",
]

_LONGEST = 1000  # characters of a message
_WRAPPERS = {"module", "_orig_mod"}  # added by DistributedDataParallel and torch.compile
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_DTYPES = _FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line with the path (if known) and the reason."""

    def __init__(self, reason: str, path: str | Path | None = None) -> None:
        super().__init__(reason, path)  # both, so that the exception can be pickled
        self.reason = reason
        self.path = path

    def __str__(self) -> str:
        reason = self.reason if len(self.reason) <= _LONGEST else f"{self.reason[:_LONGEST]} ..."
        return printable(reason if self.path is None else f"{self.path}: {reason}")


@dataclass(frozen=True, eq=False)
class RawCheckpoint:
    """The content of a checkpoint file, as plain data.

    Attributes:
        path: The file that was read.
        tensors: Tensors by name, on the CPU.
        metadata: Plain JSON data (dict, list, str, int, float, bool, None).
        sha256: Digest of tensors and metadata, 64 hexadecimal digits. It depends on nothing else:
            the same content written again has the same digest.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    sha256: str

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with the prefix, by their names without the prefix."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def save_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write tensors and metadata to one file, atomically: a crash leaves the old file or the new.

    Equal content gives equal bytes. Temporary files of killed processes are removed.

    Args:
        path: File to write, usually with the suffix `.safetensors`; its folder must exist.
        tensors: Tensors by name, on any device, any shape and stride; stored as CPU copies.
        metadata: Plain JSON data with string keys; tuples become lists.

    Raises:
        ValueError: If a tensor holds NaN or an infinity, if a name is empty or carries the prefix
            of a DistributedDataParallel or compiled wrapper, or if a number in the metadata is
            not finite.
        TypeError: If a value is not a dense tensor of a storable dtype, or the metadata are not
            plain data.
        OSError: If the file cannot be written; the old file is then unchanged.
    """
    raw = in_memory(path, tensors, metadata)
    envelope = {"format": FORMAT_VERSION, "metadata": raw.metadata, "sha256": raw.sha256}
    # A single entry, because safetensors writes several entries in random order.
    blob = safetensors.torch.save(raw.tensors, metadata={KEY: canonical(envelope)})
    clean_folder(*os.path.split(os.path.realpath(path)))  # first: stale files may fill the disk
    with atomic_write(path) as file:
        file.write(blob)


def in_memory(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> RawCheckpoint:
    """A checkpoint that is not in a file of this format, with the digest it would have there.

    Args:
        path: Where the content comes from, for messages.
        tensors: As for `save_checkpoint`.
        metadata: As for `save_checkpoint`.

    Raises:
        ValueError: As for `save_checkpoint`.
        TypeError: As for `save_checkpoint`.
    """
    stored = {name: _storable(name, tensor) for name, tensor in tensors.items()}
    content = _plain(metadata, "metadata")
    if not isinstance(content, dict):
        raise TypeError(f"metadata must be a dict, got {type(metadata).__name__}")
    return RawCheckpoint(Path(path), stored, content, _digest(stored, content))


@torch.inference_mode(False)  # inference tensors could not become parameters
def read_checkpoint(path: str | Path) -> RawCheckpoint:
    """Read a checkpoint and verify every byte of it; nothing in the file is executed.

    Args:
        path: File written by `save_checkpoint`.

    Returns:
        The tensors (on the CPU), metadata and digest of the file.

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
    except ValueError as error:
        raise CheckpointError(str(error), path) from error


def load_into(module: nn.Module, raw: RawCheckpoint, prefix: str = "") -> None:
    """Copy tensors of a checkpoint into a module; all must match, or nothing changes.

    Values are cast to the module's dtypes and moved to its devices. A module on the "meta" device
    has shapes but no memory: it takes over the tensors themselves, on their present device.

    Args:
        module: Receives the tensors, in place.
        raw: From `read_checkpoint`.
        prefix: Only names that start with the prefix are used, and the prefix is removed from them
            ("net." turns "net.0.weight" into "0.weight").

    Raises:
        CheckpointError: If a name is missing or unexpected, or a shape or a dtype does not fit; the
            message lists the first five differences.
    """
    given = raw.below(prefix)
    expected = module.state_dict()
    try:
        check_fits(given, expected, type(module).__name__)
    except ValueError as error:
        raise CheckpointError(str(error), raw.path) from error
    cast = {name: value.to(expected[name].dtype) for name, value in given.items()}
    module.load_state_dict(cast, assign=any(value.is_meta for value in expected.values()))


def _storable(name: str, tensor: Tensor) -> Tensor:
    """A contiguous CPU copy of one tensor, or an error if a checkpoint cannot hold it."""
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


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of the content: canonical JSON of everything but the bytes, then the bytes.

    The first line fixes every length that follows, so that two contents never give one input.
    """
    names = sorted(tensors)
    kinds = [
        [n, str(tensors[n].dtype).removeprefix("torch."), list(tensors[n].shape)] for n in names
    ]
    described = {"format": FORMAT_VERSION, "metadata": metadata, "tensors": kinds}
    digest = hashlib.sha256(canonical(described).encode() + b"\n")
    for name in names:
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> RawCheckpoint:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("is a folder, not a checkpoint file")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        envelope = read_envelope(file)  # before the rest of a possibly huge file
        file.seek(0)
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the parser may raise anything on damaged bytes
        raise ValueError(f"damaged or truncated: {reason_of(error)}") from error
    if _digest(tensors, envelope["metadata"]) != envelope["sha256"]:
        raise ValueError("damaged: the SHA-256 checksum does not match the content")
    return RawCheckpoint(path, tensors, envelope["metadata"], envelope["sha256"])
