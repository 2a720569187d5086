"""The examples that a step sees: split, order, dequantization, flip and label dropout.

Row r of step n is example number n · batch + r of the training. Its dequantization, flip, time,
noise and label dropout are functions of (seed, number of the example). The order of the data in an
epoch is a function of (seed, epoch). Held-out data are a function of (seed, number of data); see
`split_rows`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, map_condition, take_rows
from .._philox import generator, normals, uniforms
from ..data import Dataset
from .settings import TrainSettings

__all__ = ["VALIDATED", "Examples", "check_data", "split_rows"]

VALIDATED = 2048  # most data of which a validation loss is computed: it costs as many evaluations


def split_rows(n: int, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Rows of n data that are trained on, and rows that are held out; both in random order.

    Raises:
        ValueError: If fewer than 2 data are held out, of which no standard error could be
            computed, or fewer than a batch are left.
    """
    share, batch = settings.share, settings.batch
    held = round(share * n)
    if share and held < 2:
        raise ValueError(
            f"validation must hold out at least 2 of the {n} data, got {share}, which is {held}"
        )
    if n - held < batch:
        left = f", {held} of which are held out" if held else ""
        raise ValueError(f"batch must be at most the {n - held} data{left}, got {batch}")
    order = torch.from_numpy(generator(settings.seed, 0, "held out").permutation(n))
    return order[held:], order[:held]


@dataclass(frozen=True)
class Examples:
    """The data of a training: those that its steps see, and those that are held out.

    Args:
        data: Training data; integer levels are dequantized uniformly, anew at every step. A share
            of them is held out if the settings say so.
        settings: The settings of the loop.
        test: The test split, for `validation = "test"`; otherwise None.

    Raises:
        ValueError: If data and test split are not what the settings need, or a class has no datum
            that is trained on.
    """

    data: Dataset
    settings: TrainSettings
    test: Dataset | None = None

    def __post_init__(self) -> None:
        check_data(self.data, self.test, self.settings)
        y = self.data.labels
        trained = self.data if y is None else replace(self.data, labels=take_rows(y, self.rows))
        if (empty := trained.empty_class) is not None:
            left = " outside the held-out data" if self.settings.share else ""
            raise ValueError(
                f"every class must have data, but {empty} of {self.data.name} has none{left}"
            )

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        return split_rows(len(self.data), self.settings)

    @cached_property
    def rows(self) -> Tensor:
        """The rows of the data that are trained on, ascending."""
        return self._split[0].sort().values

    @cached_property
    def held_out(self) -> Dataset | None:
        """The data of the validation, at most `VALIDATED`, in random order; None without one."""
        if self.settings.validation == "test":
            order = generator(self.settings.seed, 0, "held out").permutation(len(self.test))
            return self.test.taken(torch.from_numpy(order[:VALIDATED]))
        return self.data.taken(self._split[1][:VALIDATED]) if self.settings.share else None

    @cached_property
    def compared(self) -> Dataset | None:
        """As many of the data that are trained on, for comparison; None without validation.

        If there are fewer of them than of the held-out data, they are repeated.
        """
        if self.held_out is None:
            return None
        kept = self._split[0]
        return self.data.taken(kept[torch.arange(len(self.held_out)) % len(kept)])

    def batch(
        self, n: int, condition: ConditionSpec | None
    ) -> tuple[Tensor, Condition | None, Tensor, Tensor]:
        """The examples of step n.

        Args:
            n: Number of the step, from 0.
            condition: The conditions that the model takes; used only for label dropout.

        Returns:
            Data (float32, model's scale), conditions, uniforms for times, and noise; each with
            `settings.batch` rows.
        """
        data, seed, batch = self.data, self.settings.seed, self.settings.batch
        examples = np.arange(n * batch, (n + 1) * batch)
        rows = self._rows(n)
        x, size = data.x[rows], math.prod(data.x.shape[1:])
        if data.spec.levels is not None:
            u = uniforms(seed, examples, "training uniform", size)
            x = data.spec.dequantize(x, u.reshape(x.shape))
        y = self._conditions(rows, examples, condition)
        if self.settings.flip:
            mirrored = uniforms(seed, examples, "flip", 1)[:, 0] < 0.5
            x = _mirrored(x, mirrored)
            y = None if y is None else map_condition(lambda leaf: _mirrored(leaf, mirrored), y)
        # Stratified over the batch: one draw in each of B equal intervals.
        u = (torch.arange(len(x)) + uniforms(seed, examples, "training times", 1)[:, 0]) / len(x)
        eps = normals(seed, examples, "training noise", size, dtype=torch.float32).reshape(x.shape)
        return x.float(), y, u, eps

    def _conditions(
        self, rows: Tensor, examples: np.ndarray, condition: ConditionSpec | None
    ) -> Condition | None:
        """The conditions of some rows of the data, left out with probability `label_dropout`."""
        if self.data.labels is None:
            return None
        y = take_rows(self.data.labels, rows)
        if not self.settings.label_dropout:
            return y
        u = uniforms(self.settings.seed, examples, "label dropout", 1)[:, 0]
        y = bound_rows(y, len(rows), "cpu")
        return condition.without(y, u < self.settings.label_dropout)

    def _rows(self, n: int) -> Tensor:
        """Rows of step n: the data are shuffled anew each epoch, and batches run across epochs."""
        size, batch = len(self.rows), self.settings.batch
        first, last = n * batch, (n + 1) * batch
        parts = []
        for epoch in range(first // size, (last - 1) // size + 1):
            order = generator(self.settings.seed, epoch, "shuffle").permutation(size)
            begin, end = max(first - epoch * size, 0), min(last - epoch * size, size)
            parts.append(torch.from_numpy(order[begin:end]))
        return self.rows[torch.cat(parts)]


def check_data(data: Dataset, test: Dataset | None, settings: TrainSettings) -> None:
    """Raise ValueError unless data and test split are what the settings need; see `Examples`.

    Args:
        data: The training data.
        test: The test split, or None.
        settings: The settings.
    """
    split_rows(len(data), settings)
    if settings.flip and len(data.spec.shape) != 3:
        raise ValueError(f"flip must be false for {data.name}, whose data are no images")
    if settings.validation != "test":
        return
    if test is None:
        raise ValueError(
            f"validation must be a share of the data, got 'test': {data.name} has no test split"
        )
    if test.spec.shape != data.spec.shape:
        raise ValueError(
            f"validation must be a share of the data, got 'test': the test split of {data.name} "
            f"has shape {test.spec.shape}, the training data {data.spec.shape}"
        )


def _mirrored(x: Tensor, which: Tensor) -> Tensor:
    """Images, some of them mirrored left to right; class labels and vectors unchanged.

    Args:
        x: Shape (B, C, H, W), or another number of dimensions.
        which: The samples to mirror, bool, shape (B,).
    """
    return torch.where(which[:, None, None, None], x.flip(-1), x) if x.ndim == 4 else x
