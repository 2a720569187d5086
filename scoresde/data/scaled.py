"""Data at the model's scale: rows of a data set, mapped when they are read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, present
from .._rows import Rows
from .spec import DataSpec

__all__ = ["ScaledRows", "scaled_rows"]


class ScaledRows(Rows):
    """Rows at the model's scale of data that are read when they are needed.

    Args:
        rows: Data in units.
        spec: Their description, with a transform.
        exists: The points of sets that exist, bool (N, points); None for other data.
    """

    def __init__(self, rows: Rows, spec: DataSpec, exists: Tensor | None = None) -> None:
        super().__init__(rows.name, tuple(rows.shape), rows.dtype, rows.workers)
        self.rows, self.spec, self.exists = rows, spec, exists

    def read(self, rows: np.ndarray) -> Tensor:
        """Some rows; see `Rows.read`."""
        exists = None if self.exists is None else self.exists[torch.from_numpy(rows)]
        return self.spec.to_model(self.rows.read(rows), exists)


def scaled_rows(x: Tensor | Rows, labels: Condition | None, spec: DataSpec) -> Tensor | Rows:
    """Data at the model's scale, like x.

    Args:
        x: Data in units, shape (N, *D).
        labels: Their conditions, which hold the sizes of sets.
        spec: Their description.

    Raises:
        ValueError: If data in memory leave the domain of the transform.
    """
    if spec.transform is None:
        return x
    exists = existing(labels, spec.condition, spec.shape[0], len(x))
    return ScaledRows(x, spec, exists) if isinstance(x, Rows) else spec.to_model(x, exists)


def existing(
    labels: Condition | None, condition: ConditionSpec, most: int, n: int
) -> Tensor | None:
    """The points of n sets that exist, bool (n, most); None if the data are not sets."""
    if labels is None or condition.sizes is None:
        return None
    return present(condition.size(bound_rows(labels, n, "cpu")), most)
