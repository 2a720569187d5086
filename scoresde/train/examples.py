"""The examples that a step sees: split, order, dequantization, flip and label dropout.

Row r of step n is example number n · batch + r of the training. Its dequantization, flip, time,
noise and label dropout are functions of (seed, number of the example). The order of the data in an
epoch is a function of (seed, epoch), and held-out data are a function of (seed, number of data);
see `order`. A `Stream` has its own order.

`Examples.to` says on which device batches are made, and `Examples.of` which rows of each batch. On
a GPU only the data of a batch come from the host, and only if they do not fit into its memory; all
random numbers are made there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .._condition import (
    Condition,
    ConditionSpec,
    bound_rows,
    map_condition,
    take_rows,
)
from .._philox import Words, normals, uniforms, words
from .._rows import Rows
from ..data import Dataset, Stream
from ..data.scaled import scaled_rows
from .order import Order, Split
from .reading import Ahead, Next, free_memory, sent, size_of
from .settings import TrainSettings

__all__ = ["VALIDATED", "Examples", "check_data"]

VALIDATED = 2048  # most data of which a validation loss is computed: it costs as many evaluations

_RESIDENT = 0.25  # share of an accelerator's free memory that data may take

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Examples:
    """The data of a training: those that its steps see, and those that are held out.

    Args:
        data: Training data in their units, which these examples keep at the model's scale; integer
            levels are dequantized uniformly, anew at every step. A share of them is held out if the
            settings say so, which a stream cannot do.
        settings: The settings of the loop.
        test: The test split, for `validation = "test"`; otherwise None.
        device: Where batches are made.
        part: (rank, ranks): of each batch only the rows of one of several processes are made.

    Raises:
        ValueError: If data and test split are not what the settings need, or a class has no datum
            that is trained on.
    """

    data: Dataset | Stream
    settings: TrainSettings
    test: Dataset | None = None
    device: torch.device = _CPU
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        check_data(self.data, self.test, self.settings)
        if isinstance(self.data, Stream):
            return
        for name in ("data", "test"):
            if (found := getattr(self, name)) is not None:
                object.__setattr__(self, name, found.scaled)
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

    def to(self, device: torch.device) -> Examples:
        """The same examples, with batches that are made on a device."""
        return self if device == self.device else replace(self, device=device)

    def of(self, rank: int, ranks: int) -> Examples:
        """The same examples, of which each batch has only the rows of one of several processes."""
        return replace(self, part=(rank, ranks))

    @property
    def own(self) -> range:
        """The rows of the batch that are made here; all processes together make each row once."""
        (rank, ranks), batch = self.part, self.settings.batch
        return range(batch * rank // ranks, batch * (rank + 1) // ranks)

    def numbers(self, n: int) -> range:
        """The numbers of the examples that are the own rows of step n."""
        first, own = n * self.settings.batch, self.own
        return range(first + own.start, first + own.stop)

    @property
    def place(self) -> str:
        """In words where the data of the batches are."""
        if self._stored is not None:
            return f"the data, {size_of(*self._stored) / 1e6:.3g} MB, are kept on {self.device}"
        if self.device == _CPU or isinstance(self.data, Stream):
            return f"each batch is read when it is needed, and goes to {self.device}"
        return (
            f"the next batch is read while {self.device} computes: the data are not in memory, or "
            f"take more than {_RESIDENT:.0%} of what is free on {self.device}"
        )

    @cached_property
    def _stored(self) -> tuple[Tensor, Condition | None] | None:
        """Data and conditions on the device if they are tensors and fit there; otherwise None."""
        x, y = (None, None) if isinstance(self.data, Stream) else (self.data.x, self.data.labels)
        if not isinstance(x, Tensor) or self.device == _CPU:
            return None
        if size_of(x, y) > _RESIDENT * free_memory(self.device):
            return None
        moved = None if y is None else map_condition(lambda leaf: leaf.to(self.device), y)
        return x.to(self.device), moved

    @cached_property
    def _ahead(self) -> Ahead:
        # Not the examples themselves: they hold this object, and workers end when it is freed.
        return Ahead(self.data.x, replace(self).rows_of, self.settings.steps)

    @cached_property
    def _next(self) -> Next:
        return Next(replace(self, device=_CPU)._taken, self.settings.steps)

    def batch(
        self, n: int, condition: ConditionSpec | None
    ) -> tuple[Tensor, Condition | None, Tensor, Tensor]:
        """The examples of step n.

        Args:
            n: Number of the step, from 0.
            condition: The conditions that the model takes; used only for label dropout.

        Returns:
            Data (float32, model's scale), conditions, uniforms for times, and noise; each with the
            rows `own` of the `settings.batch` rows, on `device`.

        Raises:
            ReadError: If the data are not in memory and cannot be read.
        """
        data, seed, batch, own = self.data, self.settings.seed, self.settings.batch, self.own
        on = {"device": self.device}
        examples = words(self.numbers(n), self.device)
        x, y = self._taken(n) if self.device == _CPU else self._delivered(n)
        size = math.prod(x.shape[1:])
        if data.spec.levels is not None:
            u = uniforms(seed, examples, "training uniform", size, **on)
            x = data.spec.dequantize(x, u.reshape(x.shape))
        y = None if y is None else self._conditions(y, examples, condition)
        if self.settings.flip:
            mirrored = uniforms(seed, examples, "flip", 1, **on)[:, 0] < 0.5
            x = _mirrored(x, mirrored)
            y = None if y is None else map_condition(lambda leaf: _mirrored(leaf, mirrored), y)
        # Stratified over the batch: one draw in each of B equal intervals.
        offsets = uniforms(seed, examples, "training times", 1, **on)[:, 0]
        u = (torch.arange(own.start, own.stop, **on) + offsets) / batch
        eps = normals(seed, examples, "training noise", size, dtype=torch.float32, **on)
        return x.float(), y, u, eps.reshape(x.shape)

    def _taken(self, n: int) -> tuple[Tensor, Condition | None]:
        """Data and conditions of step n, as they are stored."""
        data, batch = self.data, self.settings.batch
        if isinstance(data, Stream):
            x, y = data.take(n * batch, batch)
            x = scaled_rows(x, y, data.spec)
            rows = slice(self.own.start, self.own.stop)
            return x[rows], None if y is None else take_rows(y, rows)
        rows = self.rows_of(n)
        y = None if data.labels is None else take_rows(data.labels, rows)
        return (self._ahead(n) if isinstance(data.x, Rows) else data.x[rows]), y

    def _delivered(self, n: int) -> tuple[Tensor, Condition | None]:
        """Data and conditions of step n on an accelerator."""
        if self._stored is not None:
            rows, (x, y) = sent(self.rows_of(n), self.device), self._stored
            return x[rows], None if y is None else take_rows(y, rows)
        # A stream is the caller's object, which may not be called in another thread.
        x, y = self._taken(n) if isinstance(self.data, Stream) else self._next(n)
        y = None if y is None else map_condition(lambda leaf: sent(leaf, self.device), y)
        return sent(x, self.device), y

    def _conditions(
        self, y: Condition, examples: Words, condition: ConditionSpec | None
    ) -> Condition:
        """Conditions of the examples, left out with probability `label_dropout`."""
        if not self.settings.label_dropout:
            return y
        seed = self.settings.seed
        u = uniforms(seed, examples, "label dropout", 1, device=self.device)[:, 0]
        y = bound_rows(y, len(examples), self.device)
        return condition.without(y, u < self.settings.label_dropout)

    def rows_of(self, n: int) -> Tensor:
        """Rows of step n that are made here: shuffled anew each epoch, batches cross epochs."""
        size, numbers = self.split.trained, self.numbers(n)
        first, last = numbers.start, numbers.stop
        parts = []
        for epoch in range(first // size, (last - 1) // size + 1):
            begin, end = max(first - epoch * size, 0), min(last - epoch * size, size)
            order = Order(size, self.settings.seed, epoch, "shuffle")
            parts.append(self.split.rows(order[np.arange(begin, end)]))
        return torch.from_numpy(np.concatenate(parts))


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
