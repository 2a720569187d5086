"""The examples that a step sees: split, order, dequantization, flip and label dropout.

Row r of step n is example number n · batch + r of the training. Its dequantization, flip, time,
noise and label dropout are functions of (seed, number of the example). The order of the data in an
epoch is a function of (seed, epoch), and held-out data are a function of (seed, number of data);
see `order`. A `Stream` has its own order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, map_condition, take_rows
from .._philox import normals, uniforms
from .._rows import Rows
from .._workers import ReadError, in_order
from ..data import Dataset, Stream
from .order import Order, Split
from .settings import TrainSettings

__all__ = ["VALIDATED", "Examples", "check_data"]

VALIDATED = 2048  # most data of which a validation loss is computed: it costs as many evaluations


@dataclass(frozen=True)
class Examples:
    """The data of a training: those that its steps see, and those that are held out.

    Args:
        data: Training data; integer levels are dequantized uniformly, anew at every step. A share
            of them is held out if the settings say so, which a stream cannot do.
        settings: The settings of the loop.
        test: The test split, for `validation = "test"`; otherwise None.

    Raises:
        ValueError: If data and test split are not what the settings need, or a class has no datum
            that is trained on.
    """

    data: Dataset | Stream
    settings: TrainSettings
    test: Dataset | None = None

    def __post_init__(self) -> None:
        check_data(self.data, self.test, self.settings)
        if isinstance(self.data, Stream):
            return
        y = self.data.labels
        trained = self.data if y is None else replace(self.data, labels=take_rows(y, self.rows))
        if (empty := trained.empty_class) is not None:
            left = " outside the held-out data" if self.settings.share else ""
            raise ValueError(
                f"every class must have data, but {empty} of {self.data.name} has none{left}"
            )

    @cached_property
    def split(self) -> Split:
        """Which data are held out; not for a stream."""
        return Split.of(len(self.data), self.settings)

    @cached_property
    def rows(self) -> Tensor:
        """The rows of the data that are trained on; see `Split.rows`."""
        return torch.from_numpy(self.split.rows(np.arange(self.split.trained)))

    @cached_property
    def held_out(self) -> Dataset | None:
        """The data of the validation, at most `VALIDATED`, in random order; None without one."""
        if self.settings.validation == "test":
            n = len(self.test)
            order = Order(n, self.settings.seed, 0, "held out")
            return self.test.taken(torch.from_numpy(order[np.arange(min(n, VALIDATED))].copy()))
        return self.data.taken(self.split.held_rows(VALIDATED)) if self.settings.share else None

    @cached_property
    def compared(self) -> Dataset | None:
        """As many of the data that are trained on, for comparison; None without validation.

        If there are fewer of them than of the held-out data, they are repeated.
        """
        if self.held_out is None:
            return None
        return self.data.taken(self.split.some_rows(len(self.held_out)))

    @cached_property
    def _ahead(self) -> _Ahead:
        return _Ahead(self)

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

        Raises:
            ReadError: If the data are not in memory and cannot be read.
        """
        data, seed, batch = self.data, self.settings.seed, self.settings.batch
        examples = np.arange(n * batch, (n + 1) * batch)
        x, y = self._taken(n)
        size = math.prod(x.shape[1:])
        if data.spec.levels is not None:
            u = uniforms(seed, examples, "training uniform", size)
            x = data.spec.dequantize(x, u.reshape(x.shape))
        y = None if y is None else self._conditions(y, examples, condition)
        if self.settings.flip:
            mirrored = uniforms(seed, examples, "flip", 1)[:, 0] < 0.5
            x = _mirrored(x, mirrored)
            y = None if y is None else map_condition(lambda leaf: _mirrored(leaf, mirrored), y)
        # Stratified over the batch: one draw in each of B equal intervals.
        u = (torch.arange(len(x)) + uniforms(seed, examples, "training times", 1)[:, 0]) / len(x)
        eps = normals(seed, examples, "training noise", size, dtype=torch.float32).reshape(x.shape)
        return x.float(), y, u, eps

    def _taken(self, n: int) -> tuple[Tensor, Condition | None]:
        """Data and conditions of step n, as they are stored."""
        data, batch = self.data, self.settings.batch
        if isinstance(data, Stream):
            return data.take(n * batch, batch)
        rows = self.rows_of(n)
        y = None if data.labels is None else take_rows(data.labels, rows)
        return (self._ahead(n) if isinstance(data.x, Rows) else data.x[rows]), y

    def _conditions(
        self, y: Condition, examples: np.ndarray, condition: ConditionSpec | None
    ) -> Condition:
        """Conditions of the examples, left out with probability `label_dropout`."""
        if not self.settings.label_dropout:
            return y
        u = uniforms(self.settings.seed, examples, "label dropout", 1)[:, 0]
        y = bound_rows(y, len(examples), "cpu")
        return condition.without(y, u < self.settings.label_dropout)

    def rows_of(self, n: int) -> Tensor:
        """Rows of step n: the data are shuffled anew each epoch, and batches run across epochs."""
        size, batch = self.split.trained, self.settings.batch
        first, last = n * batch, (n + 1) * batch
        parts = []
        for epoch in range(first // size, (last - 1) // size + 1):
            begin, end = max(first - epoch * size, 0), min(last - epoch * size, size)
            order = Order(size, self.settings.seed, epoch, "shuffle")
            parts.append(self.split.rows(order[np.arange(begin, end)]))
        return torch.from_numpy(np.concatenate(parts))


class _Ahead:
    """Data of the steps that are read when they are needed, or ahead of them by worker processes.

    Args:
        examples: Examples whose data are `Rows`.
    """

    def __init__(self, examples: Examples) -> None:
        # Not the examples themselves: they hold this object, and workers end when it is freed.
        self._x, self._rows_of = examples.data.x, replace(examples).rows_of
        self._last = examples.settings.steps
        self._next, self._results = -1, iter(())

    def __call__(self, n: int) -> Tensor:
        """Data of step n; it is fast if step n − 1 was the latest one.

        Raises:
            ReadError: If they cannot be read, or a worker has died.
        """
        if n != self._next:
            self._results = self._started(n)
        self._next = n + 1
        try:
            x = next(self._results)
        except (OSError, ValueError) as error:
            raise ReadError(f"{self._x.name} cannot be read: {error}") from error
        if self._next >= self._last:  # end the workers
            self._next, self._results = -1, iter(())
        return x

    def _started(self, n: int) -> Iterator[Tensor]:
        numbers = range(n, max(n + 1, self._last))
        rows = (self._rows_of(m).numpy() for m in numbers)
        return in_order(self._x.read, rows, self._x.workers, self._x.name)


def check_data(data: Dataset | Stream, test: Dataset | None, settings: TrainSettings) -> None:
    """Raise ValueError unless data and test split are what the settings need; see `Examples`.

    Args:
        data: The training data.
        test: The test split, or None.
        settings: The settings.
    """
    if isinstance(data, Stream):
        if settings.validation:
            raise ValueError(
                f"validation must be 0 for a stream of batches, got {settings.validation!r}: of "
                f"{data.name} no rows can be held out or compared"
            )
    else:
        Split.of(len(data), settings)
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
