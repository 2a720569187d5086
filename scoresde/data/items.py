"""Data from torch's datasets: items and batches of them, checked against a `DataSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, bound_rows, map_condition
from .._rows import Rows
from .._workers import in_order
from .spec import DataSpec

__all__ = ["ItemRows", "as_data", "conditions_of"]

_AT_ONCE = 256  # items of which the conditions are read at a time


def as_data(batch: Any, spec: DataSpec) -> tuple[Tensor, Condition | None]:
    """Data and conditions of a batch, on the CPU.

    Args:
        batch: x or a pair (x, y), tensors or arrays; see `Stream`.
        spec: What they must be.

    Returns:
        x as a `Dataset` has it, and y; None if `spec` has no conditions.

    Raises:
        TypeError: If x or y has another dtype than `spec` says.
        ValueError: If a shape is another one, a number is not finite, or a level or class is out of
            range.
    """
    x, y = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
    x = torch.as_tensor(x).detach().cpu()
    if x.shape[1:] != spec.shape or not len(x):
        shape = ", ".join(map(str, spec.shape))
        raise ValueError(f"x must have shape (n, {shape}) with n at least 1, got {tuple(x.shape)}")
    if x.is_complex() or x.is_floating_point() != (spec.levels is None):
        wanted = "floats" if spec.levels is None else f"integer levels 0 … {spec.levels - 1}"
        raise TypeError(f"x must hold {wanted}, got {x.dtype}")
    if spec.levels is not None:
        least, most = (int(end) for end in torch.aminmax(x))
        if least < 0 or most >= spec.levels:
            raise ValueError(f"x must hold levels 0 … {spec.levels - 1}, got {least} … {most}")
        x = x.to(torch.uint8 if spec.levels <= 256 else torch.int64)
    elif not bool((x := x.float()).isfinite().all()):
        raise ValueError("x must be finite in float32")
    if not spec.condition:
        return x, None
    if y is None:
        raise ValueError(f"a batch must be a pair (x, y), as the data have {spec.condition}")
    y = spec.condition.checked(bound_rows(y, len(x), "cpu"), len(x))
    return x, map_condition(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, y)


class ItemRows(Rows):
    """The data of a torch dataset, `items[i]` being x or (x, y); see `Dataset.of`.

    Args:
        name: Name of the data, for messages.
        items: The dataset.
        spec: Description of the data.
        workers: Number of processes that read ahead.
    """

    def __init__(self, name: str, items: Any, spec: DataSpec, workers: int = 0) -> None:
        levels = spec.levels
        dtype = torch.float32 if levels is None else torch.uint8 if levels <= 256 else torch.int64
        super().__init__(name, (len(items), *spec.shape), dtype, workers)
        self.items, self.spec = items, spec

    def read(self, rows: np.ndarray) -> Tensor:
        """Some rows; see `Rows.read`."""
        return self.read_pairs(rows)[0]

    def read_pairs(self, rows: np.ndarray) -> tuple[Tensor, Condition | None]:
        """Some rows with their conditions."""
        if not rows.size:
            return torch.empty(0, *self.shape[1:], dtype=self.dtype), None
        numbers = rows.tolist()
        several = getattr(self.items, "__getitems__", None)  # torch's name for it
        found = [self.items[i] for i in numbers] if several is None else several(numbers)
        pairs = [item if isinstance(item, (tuple, list)) else (item, None) for item in found]
        x = torch.stack([torch.as_tensor(x) for x, _ in pairs])
        y = _stacked([y for _, y in pairs]) if self.spec.condition else None
        return as_data((x, y), self.spec)

    def check_repeats(self) -> None:
        """Raise ValueError if the first item is another one when it is read again."""
        first = np.zeros(1, dtype=np.int64)
        if not torch.equal(self.read(first), self.read(first)):
            raise ValueError(
                f"item 0 of {self.name} differs when it is read again, but each item must be a "
                "function of its number; leave random changes to train.flip, or give a Stream"
            )


def conditions_of(rows: ItemRows) -> Condition | None:
    """The conditions of all items, which are read once; None if the data have none."""
    if not rows.spec.condition:
        return None
    n = len(rows)
    parts = (np.arange(i, min(i + _AT_ONCE, n)) for i in range(0, n, _AT_ONCE))

    def read(part: np.ndarray) -> dict[str, np.ndarray]:
        y = rows.spec.condition.parts(rows.read_pairs(part)[1], len(part))
        return {kind: value.numpy() for kind, value in y.items()}

    found = list(in_order(read, parts, rows.workers, rows.name))
    whole = {k: torch.from_numpy(np.concatenate([y[k] for y in found])) for k in found[0]}
    return whole if len(whole) > 1 else whole.popitem()[1]


def _stacked(ys: list[Any]) -> Any:
    if isinstance(ys[0], Mapping):
        return {key: _stacked([y[key] for y in ys]) for key in ys[0]}
    return None if ys[0] is None else torch.stack([torch.as_tensor(y) for y in ys])
