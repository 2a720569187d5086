"""Reading PyTorch files and pickles without running anything that they name.

    read_pickle("checkpoint.pth")["ema"]["shadow_params"]      # tensors

A pickle is a program for a small machine. One of its operations imports a function by its name, and
another one calls it. So Python's reader can be made to run any code. The reader here runs none:

- It never imports what a file names. A name becomes a `Record`, which holds two texts.
- A call of a name looks it up in one table, `rebuild._CALLS`. The table has 18 names of PyTorch,
  NumPy and the standard library, which make tensors, arrays, numbers, bytes and dictionaries. Our
  own functions stand for them. A call of any other name becomes a `Record` with its arguments, or
  the file is refused if PyTorch would make another kind of tensor with it.
- A state that a file gives to an object is stored in a `Record`, never set as an attribute. Only
  the state of an array of NumPy is used, as its numbers.
- Operations on lists, tuples, dictionaries, text and numbers are done. Those that take buffers or
  registered names from outside the file are refused.
- A file that names a known means of running programs, such as `os.system`, is refused as a whole.
  That is for the user's information and protects nobody.

A small file shall not need much memory or time either. Before a tensor, a view or a copy of text is
made, its bytes are paid from a budget, eight times the size of the file and 64 MiB. There are at
most a million operations, integers have at most 1024 bits, tensors lie inside their storage, and
objects are nested at most 200 deep. Memos need no limit of their own: each entry costs an
operation.
"""

from __future__ import annotations

import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._file_kinds import HEAD, kind_of
from .._text import reason_of
from ..checkpoint import CheckpointError
from .limits import Bounded, Budget, Refusal
from .records import Record, check_tree, foreign_names
from .torch_files import MAGIC, read_stream, read_zip, run, unknown_id

__all__ = ["Record", "foreign_names", "read_pickle"]

_VIEWS = 8  # tensors may show each byte of the file this many times
_SPARE = 64 << 20

# What the parts of the standard library raise for damaged data.
_DAMAGES = (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, Warning)
_IN_WORDS = {
    "exhausted": "it ends too early",
    "not enough data": "it ends inside a value",
    " remain": "it ends inside a value",
    "byte count < 0": "a value in it has a negative length",
    "integer string conversion": "a number in it has too many digits",
    "is encrypted": "it is encrypted",
    "not a zip file": "its table of contents, at its end, is missing; the file may be cut",
}


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
            return _read(Bounded(file, os.fstat(file.fileno()).st_size), path)
    except FileNotFoundError as error:
        raise CheckpointError("no such file", path) from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", path) from error


def _read(file: Bounded, path: Path) -> Any:
    head = file.read(HEAD)
    file.seek(0)
    kind, read = _kind(head)
    if read is None:
        raise CheckpointError(f"is {kind}", path)
    budget = Budget(memory=_VIEWS * file.size + _SPARE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pickletools warns of text that it cannot decode
            tree = read(file, budget)
        check_tree(tree)
    except (Refusal, *_DAMAGES) as error:
        sentence = reason_of(error) if isinstance(error, Refusal) else f"damaged: {_damage(error)}"
        raise CheckpointError(f"is {kind}, but {sentence}", path) from error
    return tree


def _damage(error: BaseException) -> str:
    """What the standard library says of damaged data, in words for a user."""
    text = reason_of(error)
    if isinstance(error, UnicodeDecodeError):
        return "a text in it is not UTF-8"
    for words, meaning in _IN_WORDS.items():
        if words in text:
            return meaning
    return text


def _kind(head: bytes) -> tuple[str, Callable[[Bounded, Budget], Any] | None]:
    """What a file is by its first bytes, and the function that reads it."""
    if (kind := kind_of(head)) is not None:
        return kind, None
    if head.startswith(b"PK"):
        return ("a PyTorch file (zip)" if b"/data.pkl" in head else "a zip archive"), read_zip
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file, not a PyTorch file or a pickle", None
    if MAGIC.to_bytes(10, "little") in head[:20]:
        return "a PyTorch file (older format)", read_stream
    if head[0] == 0x80:
        return "a pickle", _read_plain
    if head[:1] in b"(]}cNIFSVUXTKMJGi":
        return "perhaps a pickle of protocol 0", _read_plain
    return "not a PyTorch file and not a pickle", None


def _read_plain(file: Bounded, budget: Budget) -> Any:
    tree = run(file, budget, unknown_id)
    if file.tell() < file.size:
        raise Refusal(f"{file.size - file.tell():,} bytes follow its end")
    return tree
