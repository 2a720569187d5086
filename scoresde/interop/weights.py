"""Files of weights in the folder of a model: one file, or several with an index."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from torch import Tensor

from .._file_kinds import HEAD, kind_of
from .._tensor import NonFiniteError, finite_or_raise
from .._text import reason_of
from ..checkpoint import CheckpointError
from .pickles import read_pickle
from .plain_json import check_regular, read_table
from .records import described

__all__ = ["find_weights", "is_weights", "read_weights"]

_STEM = "diffusion_pytorch_model"
_ENDINGS = (".safetensors", ".bin")  # in the order of preference
# diffusion_pytorch_model.fp16.bin, and the index of several files in its two forms
_VARIANT = re.compile(
    rf"{_STEM}\.(\w+)\.(safetensors|bin)(\.index\.json)?"
    rf"|{_STEM}\.(safetensors|bin)\.index\.(\w+)\.json"
)
_LONGEST_HEADER, _MOST_TENSORS = 16 << 20, 50_000  # the largest networks have some thousands


def is_weights(name: str) -> bool:
    """Whether a file's name is one that diffusers gives to weights."""
    return name.startswith(_STEM) and name.endswith(_ENDINGS)


def find_weights(folder: Path) -> tuple[list[Path], str | None]:
    """The files with the weights: the index, if there is one, and the files that it names.

    If diffusers wrote only a variant of them, such as "fp16", it is taken.

    Returns:
        The files, and the name of the variant, or None.

    Raises:
        CheckpointError: If there are none, or several variants and nothing else, or the index names
            files outside the folder.
    """
    for ending in _ENDINGS:
        # A pipe or a broken link of this name is an error of `read_weights`.
        if os.path.lexists(folder / f"{_STEM}{ending}"):
            return [folder / f"{_STEM}{ending}"], None
        index = folder / f"{_STEM}{ending}.index.json"
        if index.is_file():
            return _with_parts(index), None
    found = {}
    for name in sorted(path.name for path in folder.iterdir()):
        if match := _VARIANT.fullmatch(name):
            # "safetensors" stands after "bin", and is preferred.
            found[match[1] or match[5]] = folder / name
    if len(found) == 1:
        ((variant, place),) = found.items()
        return _with_parts(place), variant
    names = " nor ".join(f"{_STEM}{ending}" for ending in _ENDINGS)
    variants = f", but the variants {', '.join(found)}; keep one of them" if found else ""
    raise CheckpointError(f"neither {names} is in this folder{variants}", folder)


def _with_parts(place: Path) -> list[Path]:
    return [place, *_listed(place)] if place.suffix == ".json" else [place]


def _listed(index: Path) -> list[Path]:
    """The files that an index names."""
    names = read_table(index, nested=True).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError("weight_map must say which file holds each tensor", index)
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(_ENDINGS):
            raise CheckpointError(f"weight_map names {name!r}, which is no file beside it", index)
    return [index.parent / name for name in sorted(set(names.values()))]


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of the files, by name, on the CPU.

    Args:
        files: Those of `find_weights`.

    Raises:
        CheckpointError: If a file is damaged, two files have one tensor, or a weight is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        if path.suffix == ".json":
            continue
        check_regular(path)
        part = _of_safetensors(path) if path.suffix == ".safetensors" else _of_pickle(path)
        for name, tensor in part.items():
            if name in tensors:
                raise CheckpointError(f"holds {name!r}, as another file does", path)
            if tensor.is_floating_point():
                try:
                    finite_or_raise(tensor.float() if tensor.itemsize == 1 else tensor, name)
                except NonFiniteError as error:
                    raise CheckpointError(str(error), path) from error
        tensors |= part
    return tensors


def _of_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Its bytes are read, not mapped: a mapped file that another program cuts kills the process.
    """
    data = path.read_bytes()
    if (kind := kind_of(data[:HEAD])) is not None:
        raise CheckpointError(f"is {kind}", path)
    if data[8:9] != b"{":
        pickled = data[:2] == b"PK" or data[:1] == b"\x80"
        found = "but a PyTorch file or a pickle" if pickled else "it has no header"
        raise CheckpointError(f"is no safetensors file, {found}", path)
    try:
        _check_header(data)
        return safetensors.torch.load(data)
    except Exception as error:  # the parser may raise anything on damaged bytes
        reason = reason_of(error).removeprefix("Error while deserializing header: ")
        raise CheckpointError(f"is a safetensors file, but damaged: {reason}", path) from error


def _check_header(data: bytes) -> None:
    """Raise ValueError unless the header is as long as it says, and is that of a network."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise ValueError(f"its header should have {length:,} bytes, more than the file holds")
    count = data.count(b'"dtype"', 8, 8 + length)
    if length > _LONGEST_HEADER or count > _MOST_TENSORS:
        raise ValueError(f"its header has {length:,} bytes and {count:,} tensors, too many")


def _of_pickle(path: Path) -> dict[str, Tensor]:
    tree = read_pickle(path)
    if not isinstance(tree, dict):
        raise CheckpointError(f"must hold tensors by name, got {described(tree)}", path)
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = f"{str(name)[:80]!r} is {described(value)}"
            raise CheckpointError(f"must hold tensors by name, but {kind}", path)
    return tree
