"""Conditions as trees of tensors, one entry for each sample.

A condition is a tensor, or a dict or tuple of conditions. Every tensor in it has one leading entry
per sample. A leading dimension of 1, or a single number, is one condition for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Condition", "bound_rows", "leaves", "map_condition", "take_rows"]

Condition = Any  # Tensor | dict[str, Condition] | tuple[Condition, ...]


def map_condition(f: Callable[[Tensor], Tensor], y: Condition) -> Condition:
    """The condition with f applied to each of its tensors."""
    if isinstance(y, Mapping):
        return {key: map_condition(f, value) for key, value in y.items()}
    if isinstance(y, tuple):
        return tuple(map_condition(f, value) for value in y)
    return f(y)


def leaves(y: Condition, name: str = "y") -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a condition with its name for messages, such as `y["text"]` or `y[0]`."""
    if isinstance(y, Mapping):
        for key, value in y.items():
            yield from leaves(value, f"{name}[{key!r}]")
    elif isinstance(y, tuple):
        for i, value in enumerate(y):
            yield from leaves(value, f"{name}[{i}]")
    else:
        yield name, y


def take_rows(y: Condition, rows: slice | Tensor) -> Condition:
    """The condition of some samples of the batch."""
    return map_condition(lambda leaf: leaf[rows], y)


def bound_rows(y: Condition, n: int, device: torch.device | str) -> Condition:
    """A condition for n samples, checked: tensors on the device with leading dimension n.

    Integers become int64, floating Python numbers float64; other dtypes stay.

    Args:
        y: A condition; its entries may also be numbers, lists or arrays. A list is one tensor.
        n: Number of samples.
        device: Device of the result.

    Raises:
        TypeError: If an entry is not a tensor of real numbers.
        ValueError: If the leading dimension of an entry is neither n nor 1; the message names it.
    """
    return _bound("y", y, n, device)


def _bound(name: str, y: Condition, n: int, device: torch.device | str) -> Condition:
    if isinstance(y, Mapping):
        if not all(isinstance(key, str) for key in y):
            raise TypeError(f"{name} must have text as keys, got {', '.join(map(repr, y))}")
        return {k: _bound(f"{name}[{k!r}]", value, n, device) for k, value in y.items()}
    if isinstance(y, tuple):
        return tuple(_bound(f"{name}[{i}]", value, n, device) for i, value in enumerate(y))
    try:
        leaf = torch.as_tensor(y)
        if leaf.is_floating_point() and not hasattr(y, "dtype"):
            leaf = torch.as_tensor(y, dtype=torch.float64)  # Python numbers keep their digits
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor of numbers, got {type(y).__name__}") from error
    if leaf.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {leaf.dtype}")
    if leaf.ndim == 0:
        leaf = leaf[None]
    if leaf.shape[0] not in (1, n):
        raise ValueError(
            f"{name} must have leading dimension {n}, or 1 for one condition of all samples, got "
            f"shape {tuple(leaf.shape)}"
        )
    integer = not leaf.is_floating_point() and leaf.dtype != torch.bool
    leaf = leaf.to(device, torch.int64) if integer else leaf.to(device)
    return leaf.expand(n, *leaf.shape[1:])
