"""Conditions with batch dimensions in front, as the parameters of `torch.distributions` have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Size, Tensor

from .._condition import Condition, bound_rows, map_condition
from ..score import ScoreModel

__all__ = ["batched"]


def batched(model: ScoreModel, y: Condition) -> tuple[Size, Condition]:
    """The batch shape of a condition, and the condition checked, with this shape in front.

    Args:
        model: Score model.
        y: Condition; None for the one that is bound to the model.

    Raises:
        TypeError: As for `ScoreModel.labelled`.
        ValueError: As for `ScoreModel.labelled`, or if batch shapes of a condition do not fit.
    """
    y = model.y if y is None else y
    tensors = (*model.parameters(), *model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    if y is None:
        model.labelled(None, 1, device)  # refuses if a condition is needed
        return Size(), None
    y = map_condition(lambda leaf: _tensor(leaf, device), y)
    shapes: list[Size] = []
    y = _each(model, lambda leaf, dims: shapes.append(leaf.shape[: leaf.ndim - dims]) or leaf, y)
    batch = torch.broadcast_shapes(*shapes)

    def rows(leaf: Tensor, dims: int) -> Tensor:
        own = leaf.shape[leaf.ndim - dims :]
        return leaf.expand((*batch, *own)).reshape(-1, *own)

    bound = model.labelled(_each(model, rows, y), math.prod(batch), device).y
    return batch, map_condition(lambda leaf: leaf.reshape((*batch, *leaf.shape[1:])), bound)


def _tensor(leaf: Any, device: torch.device) -> Tensor:
    """An entry of a condition as a tensor; a number has no dimension."""
    number = np.ndim(leaf) == 0
    leaf = bound_rows(leaf, 1 if number else len(leaf), device)
    return leaf[0] if number else leaf


def _each(model: ScoreModel, f: Callable[[Tensor, int], Tensor], y: Condition) -> Condition:
    """The condition with f(tensor, dims) in place of each tensor.

    dims is how many of its last dimensions are those of one sample. They are known if the model
    says what it takes; otherwise the first dimension is the batch.
    """
    kinds = {} if model.condition is None else model.condition.kinds

    def applied(leaf: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
        if shape == (1,) and leaf.shape[-1:] != (1,):
            leaf = leaf[..., None]  # vectors of length 1 that are given as numbers
        dims = max(leaf.ndim - 1, 0) if shape is None else min(len(shape), leaf.ndim)
        return f(leaf, dims)

    if isinstance(y, Mapping):
        return {key: applied(leaf, kinds.get(key)) for key, leaf in y.items()}
    if len(kinds) == 1 and isinstance(y, Tensor):
        return applied(y, next(iter(kinds.values())))
    return map_condition(applied, y)
