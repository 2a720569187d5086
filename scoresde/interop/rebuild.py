"""Tensors from the calls by which PyTorch and NumPy store them in pickles.

Each function here stands for one of their functions. It checks its arguments, and makes views of
the bytes in the file with `torch.as_strided`, inside the bounds of their storage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .limits import Budget, Refusal
from .opcodes import as_key
from .records import Record

__all__ = ["Rebuilder", "storage_dtype"]

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *_STORAGES.values(),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    )
}
_NUMPY = re.compile(r"[biufc](1|2|4|8|16)")  # kind and bytes
_MOST_DIMENSIONS = 64
_LARGEST = 2**62  # torch computes in 64 bits


def storage_dtype(kind: Any) -> torch.dtype:
    """The dtype of a named class of storages.

    Raises:
        Refusal: If the class is unknown, or is one of quantized numbers.
    """
    known = isinstance(kind, Record) and kind.module in ("torch", "torch.cuda", "torch.storage")
    if not known or kind.name not in _STORAGES:
        raise Refusal(f"a tensor has the storage {kind!r}; only plain numbers are read")
    return _STORAGES[kind.name]


class Rebuilder:
    """Tensors, numbers and dictionaries in place of the calls of a pickle, records for the rest.

    Args:
        budget: Is charged for the bytes of each tensor.
        load_bytes: Bytes that hold a PyTorch file ↦ its object.
    """

    def __init__(self, budget: Budget, load_bytes: Callable[[bytes], Any]) -> None:
        self.budget = budget
        self.load_bytes = load_bytes

    def call(self, called: Record, arguments: tuple) -> Any:
        """What stands for a call of what a pickle names."""
        rebuild = _CALLS.get((called.module, called.name)) if called.args is None else None
        made = NotImplemented if rebuild is None else rebuild(self, arguments)
        if made is not NotImplemented:
            return made
        if called.module == "torch._utils" and called.name.startswith("_rebuild_"):
            kind = called.name.removeprefix("_rebuild_").replace("_", " ")
            raise Refusal(f"it holds a {kind}; only tensors that are dense and whole are read")
        known = (called.module, called.name) == (
            "copyreg",
            "_reconstructor",
        ) and called.args is None
        if known and arguments and isinstance(arguments[0], Record):
            return Record(arguments[0].module, arguments[0].name, arguments[2:])
        name = called.name if called.args is None else f"{called.name}(…)"
        return Record(called.module, name, arguments)

    def build(self, record: Record, state: Any) -> Any:
        """What stands for a record that gets a state: a tensor for an array of NumPy."""
        if (record.module, record.name) in _ARRAYS and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            made = self._array(data, dtype, shape, fortran is True)
            if made is not NotImplemented:
                return made
        record.state = state
        return record

    def view(self, base: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        """A view of the storage `base`, which is one-dimensional."""
        if not isinstance(base, Tensor) or base.ndim != 1 or not base.is_contiguous():
            raise Refusal("a tensor has no storage")
        size, stride = _integers(size, "sizes"), _integers(stride, "strides")
        (offset,) = _integers((offset,), "offsets")
        if len(size) != len(stride):
            raise Refusal(f"a tensor has {len(size)} sizes and {len(stride)} strides")
        self.budget.take_memory(math.prod(size) * base.element_size())
        if 0 in size:
            return torch.empty(size, dtype=base.dtype, device="cpu")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= len(base):
            raise Refusal(
                f"a tensor of shape {size} ends at {last:,} of a storage of {len(base):,}"
            )
        return base.as_strided(size, stride, base.storage_offset() + offset)

    def tensor(self, arguments: tuple) -> Any:
        """(storage, offset, size, stride, requires gradients, hooks, marks)."""
        if len(arguments) < 4:
            return NotImplemented
        made = self.view(*arguments[:4])
        marks = arguments[6] if len(arguments) > 6 and isinstance(arguments[6], dict) else {}
        if marks.get("conj") is True and made.is_complex():
            made = made.conj()
        return torch._neg_view(made) if marks.get("neg") is True else made

    def tensor_with_dtype(self, arguments: tuple) -> Any:
        """(untyped storage, offset, size, stride, requires gradients, hooks, dtype)."""
        kind = arguments[6] if len(arguments) > 6 else None
        if not isinstance(kind, Record) or kind.module != "torch" or kind.name not in _DTYPES:
            raise Refusal(f"a tensor has the dtype {kind!r}; only plain numbers are read")
        base, dtype = arguments[0], _DTYPES[kind.name]
        whole = isinstance(base, Tensor) and base.dtype == torch.uint8 and base.is_contiguous()
        if not whole or len(base) % dtype.itemsize:
            raise Refusal("a tensor has no storage of whole numbers of its dtype")
        return self.view(base.view(dtype), *arguments[1:4])

    def typed(self, arguments: tuple) -> Any:
        """(function, class, its arguments, attributes) of a subclass of tensors."""
        called = arguments[0] if len(arguments) > 2 else None
        if not isinstance(called, Record) or called.name == "_rebuild_from_type_v2":
            return NotImplemented
        return self.call(called, arguments[2]) if type(arguments[2]) is tuple else NotImplemented

    def nested(self, arguments: tuple) -> Any:
        """(bytes of a PyTorch file)."""
        if len(arguments) != 1 or not isinstance(arguments[0], bytes):
            return NotImplemented
        return self.load_bytes(arguments[0])

    def from_buffer(self, arguments: tuple) -> Any:
        """(bytes, dtype, shape, order) of an array of NumPy."""
        if len(arguments) != 4:
            return NotImplemented
        data, dtype, shape, order = arguments
        return self._array(data, dtype, shape, order == "F")

    def scalar(self, arguments: tuple) -> Any:
        """(dtype, bytes) of a number of NumPy."""
        if len(arguments) != 2:
            return NotImplemented
        made = self._array(arguments[1], arguments[0], (), False)
        return made if made is NotImplemented else made.item()

    def _array(self, data: Any, dtype: Any, shape: Any, fortran: bool) -> Any:
        """A tensor with the numbers of an array; NotImplemented if it holds no numbers."""
        code = _numpy_code(dtype)
        if code is None or not isinstance(data, (bytes, str)):
            return NotImplemented
        data = data.encode("latin-1") if isinstance(data, str) else data  # Python 2's text is bytes
        size = _integers(shape, "sizes")
        kind = np.dtype(code)
        if len(data) != math.prod(size) * kind.itemsize:
            raise Refusal(f"an array of shape {size} and dtype {code} has {len(data):,} bytes")
        self.budget.take_memory(len(data))
        array = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
        return torch.from_numpy(array.reshape(size, order="F" if fortran else "C"))


def _numpy_code(dtype: Any) -> str | None:
    """The code of a stored dtype, such as "<f4"; None if torch has no such dtype."""
    if not isinstance(dtype, Record) or (dtype.module, dtype.name) != ("numpy", "dtype"):
        return None
    code = dtype.args[0] if dtype.args else None
    if not isinstance(code, str) or not _NUMPY.fullmatch(code):
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    if order not in ("<", ">", "=", "|") or code in ("f16", "c4", "b2", "b4", "b8", "b16"):
        return None
    try:
        np.dtype(order + code)
    except TypeError:
        return None
    return order + code


def _integers(values: Any, what: str) -> tuple[int, ...]:
    """Sizes, strides or an offset, checked to be integers that torch can hold."""
    small = isinstance(values, (tuple, list)) and len(values) <= _MOST_DIMENSIONS
    if not small or not all(type(n) is int and 0 <= n < _LARGEST for n in values):
        raise Refusal(f"a tensor has {what} that are not a few integers of at least 0")
    if math.prod(n for n in values if n) >= _LARGEST and what == "sizes":
        raise Refusal("a tensor has more elements than 64 bits can count")
    return tuple(values)


def _ordered(rebuilder: Rebuilder, arguments: tuple) -> Any:
    """(pairs) of an ordered dictionary; no arguments for an empty one."""
    pairs = arguments[0] if arguments else []
    rebuilder.budget.take_operations(len(pairs) if isinstance(pairs, list) else 0)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs
    ):
        return NotImplemented
    return {as_key(key): value for key, value in pairs}


def _first(kind: type) -> Callable[[Rebuilder, tuple], Any]:
    """The first argument if it is of a kind."""

    def rebuild(_: Rebuilder, arguments: tuple) -> Any:
        return arguments[0] if arguments and isinstance(arguments[0], kind) else NotImplemented

    return rebuild


def _bytes(rebuilder: Rebuilder, arguments: tuple) -> Any:
    """(text, encoding), (bytes) or (): bytes of Python 3, also in a pickle for Python 2."""
    if not arguments:
        return b""
    if len(arguments) == 1 and isinstance(arguments[0], bytes):
        return arguments[0]
    if isinstance(arguments[0], str) and arguments[1:] in (("latin1",), ("latin-1",)):
        rebuilder.budget.take_memory(len(arguments[0]))
        return arguments[0].encode("latin-1")
    return NotImplemented


def _complex(_: Rebuilder, arguments: tuple) -> Any:
    if len(arguments) != 2 or not all(isinstance(part, float) for part in arguments):
        return NotImplemented
    return complex(*arguments)


_ARRAYS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_CALLS: dict[tuple[str, str], Callable[[Rebuilder, tuple], Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): lambda _, arguments: {},
    ("builtins", "bytearray"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("builtins", "complex"): _complex,
    ("_codecs", "encode"): _bytes,
    ("torch", "Size"): _first(tuple),
    ("torch._utils", "_rebuild_tensor"): Rebuilder.tensor,
    ("torch._utils", "_rebuild_tensor_v2"): Rebuilder.tensor,
    ("torch._utils", "_rebuild_tensor_v3"): Rebuilder.tensor_with_dtype,
    ("torch._utils", "_rebuild_parameter"): _first(Tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): _first(Tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): Rebuilder.typed,
    ("torch.storage", "_load_from_bytes"): Rebuilder.nested,
    ("numpy.core.multiarray", "scalar"): Rebuilder.scalar,
    ("numpy._core.multiarray", "scalar"): Rebuilder.scalar,
    ("numpy.core.numeric", "_frombuffer"): Rebuilder.from_buffer,
    ("numpy._core.numeric", "_frombuffer"): Rebuilder.from_buffer,
}
