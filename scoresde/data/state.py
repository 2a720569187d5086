"""The state of an iterable as plain data for JSON, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["from_plain", "to_plain"]

_CONTAINERS = {"list": list, "tuple": tuple}


def to_plain(value: Any, what: str) -> Any:
    """A state as plain data.

    Numbers and text stay as they are; all else becomes a list that begins with its kind.

    Args:
        value: None, numbers, text, tensors, arrays, and lists, tuples and dicts of these.
        what: Name of the value in messages.

    Raises:
        TypeError: If it holds anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return ["tensor", str(value.dtype).removeprefix("torch."), value.tolist()]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "buif":
        return ["array", value.dtype.str, value.tolist()]
    for kind, cls in _CONTAINERS.items():
        if isinstance(value, cls):
            return [kind, *(to_plain(item, what) for item in value)]
    if isinstance(value, dict):
        return ["dict", *([to_plain(k, what), to_plain(v, what)] for k, v in value.items())]
    raise TypeError(
        f"{what} must hold numbers, text, tensors, arrays, lists, tuples and dicts, got "
        f"{type(value).__name__}"
    )


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`."""
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "tensor":
        return torch.tensor(rest[1], dtype=getattr(torch, rest[0]))
    if kind == "array":
        return np.array(rest[1], dtype=np.dtype(rest[0]))
    if kind == "dict":
        return {from_plain(k): from_plain(v) for k, v in rest}
    return _CONTAINERS[kind](from_plain(item) for item in rest)
