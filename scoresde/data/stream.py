"""`Stream`: data from an iterable of batches, of which only the next batch is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, take_rows
from .._text import reason_of
from .._workers import ReadError
from .items import as_data
from .spec import DataSpec
from .state import from_plain, to_plain

__all__ = ["Stream"]

_KEPT = 8  # the latest calls of `take` at whose beginning a stream can be resumed


class Stream:
    """Training data from an iterable of batches, such as a torch `DataLoader`.

    Item k of the stream is the k-th datum that the iterable gives, from 0. It is example k of the
    training, whatever the size of the iterable's batches. When the iterable ends, it is started
    again. Dequantization, flips, times and noise are functions of (seed, k); the items and their
    order are what the iterable makes them.

    To resume at item k, an iterable with the methods `state_dict` and `load_state_dict` gets back
    the state that was saved. Another one is started from its beginning, and k items are skipped.
    Nothing records what the data were, and none of them can be held out for a validation.

    Args:
        batches: Each batch is x or a pair (x, y). Here x has shape (n, *spec.shape), with integer
            levels if the data are quantized, otherwise floats; y is a condition of n rows, as
            `spec.condition` describes it. Without a condition in `spec`, y is ignored.
        spec: Description of the data.
        name: Name of the data, for messages.

    Raises:
        TypeError: If `batches` cannot be iterated over.
    """

    def __init__(self, batches: Iterable[Any], spec: DataSpec, name: str = "the stream") -> None:
        if not isinstance(batches, Iterable):
            raise TypeError(f"batches must be an iterable, got {type(batches).__name__}")
        self.batches, self.spec, self.name = batches, spec, name
        self._restart()

    @property
    def has_state(self) -> bool:
        """Whether the iterable can give and take back its state."""
        return all(hasattr(self.batches, name) for name in ("state_dict", "load_state_dict"))

    @property
    def labels(self) -> Condition | None:
        """One row in the form of the conditions; None without conditions."""
        return self.spec.condition.example(1)

    def take(self, first: int, n: int) -> tuple[Tensor, Condition | None]:
        """Items first … first + n − 1 and their conditions.

        It is fast if the items follow those that were taken before; else items are skipped.

        Raises:
            ReadError: If the iterable fails, gives what is no batch of such data, or gives nothing
                when it is started again.
        """
        if first < self._position:
            self._restart()
        while self._position < first:
            self._rows(first - self._position)
        self._marks[first] = self._mark()
        self._marks = dict(list(self._marks.items())[-_KEPT:])
        xs, ys = [], []
        while n:
            x, y = self._rows(n)
            xs.append(x)
            ys.append(y)
            n -= len(x)
        return torch.cat(xs), None if ys[0] is None else self._joined(ys)

    def state(self, first: int) -> dict[str, Any] | None:
        """What `resume` needs to continue at item `first`, as plain data; None without a state.

        Args:
            first: The next item, or one at which a recent call of `take` began.

        Raises:
            TypeError: If the state holds other things than numbers, text, tensors, arrays, lists,
                tuples and dicts.
        """
        if not self.has_state:
            return None
        state, used = self._mark() if first == self._position else self._marks[first]
        return {"state": to_plain(state, f"the state of {self.name}"), "used": used}

    def resume(self, first: int, saved: Mapping[str, Any] | None) -> str:
        """Continue at item `first`; return in words what was done.

        Args:
            first: The next item that will be taken.
            saved: From `state`.

        Raises:
            ReadError: As for `take`.
        """
        self._restart()
        if saved is None or not self.has_state:
            return f"{self.name} is started from its beginning, and {first} items are skipped"
        self.batches.load_state_dict(from_plain(saved["state"]))
        self._position = first - saved["used"]
        while self._position < first:  # the rest of a batch that was used in part
            self._rows(first - self._position)
        return f"{self.name} continues from its saved state"

    def _restart(self) -> None:
        self._iterator = None
        self._position = 0
        self._batch: tuple[Tensor, Condition | None] = torch.empty(0), None
        self._used, self._before = 0, None
        self._marks: dict[int, tuple[Any, int]] = {}

    def _mark(self) -> tuple[Any, int]:
        """The iterable's state before the present batch, and the rows that are used of it."""
        if self._used < len(self._batch[0]):
            return self._before, self._used
        return self.batches.state_dict() if self.has_state else None, 0

    def _rows(self, most: int) -> tuple[Tensor, Condition | None]:
        """The next rows of the present batch, at least one and at most `most`."""
        if self._used == len(self._batch[0]):
            self._before, _ = self._mark()
            self._batch, self._used = self._checked(self._next()), 0
        x, y = self._batch
        rows = slice(self._used, min(self._used + most, len(x)))
        self._used = rows.stop
        self._position += rows.stop - rows.start
        return x[rows], None if y is None else take_rows(y, rows)

    def _next(self) -> Any:
        """The next batch; the iterable is started again when it has ended."""
        try:
            for _ in range(2):
                if self._iterator is None:
                    self._iterator = iter(self.batches)
                for batch in self._iterator:
                    return batch
                self._iterator = None
        except Exception as error:
            raise ReadError(f"{self.name} cannot be read: {reason_of(error)}") from error
        raise ReadError(
            f"{self.name} ended after {self._position} items and gave nothing when it was started "
            "again: batches must be an iterable that can be iterated over again, not a generator"
        )

    def _checked(self, batch: Any) -> tuple[Tensor, Condition | None]:
        try:
            x, y = as_data(batch, self.spec)
        except (TypeError, ValueError) as error:
            raise ReadError(f"a batch of {self.name}: {reason_of(error)}") from error
        return x, y

    def _joined(self, ys: list[Condition]) -> Condition:
        condition = self.spec.condition
        parts = [condition.parts(y, _length(y)) for y in ys]
        whole = {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}
        return condition.selected(whole, ConditionSpec())


def _length(y: Condition) -> int:
    return len(next(iter(y.values())) if isinstance(y, Mapping) else y)
