"""`Dataset`: data with their conditions and their description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, take_rows
from .._rows import Rows
from .._tensor import check_integer
from ..fingerprint import fingerprint
from .items import ItemRows, conditions_of
from .spec import DataSpec

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        name: Name or path from which the data were loaded.
        x: Data, shape (N, *spec.shape): integer levels for quantized data, otherwise float32. A
            tensor, or `Rows`, which are read when they are needed.
        labels: Conditions of the data, as `spec.condition` describes them: class labels (int64,
            shape (N,)), or a vector, an array, or a dict of these; None without conditions.
        spec: Shape, range and quantization.
        log_prob: Exact log-density in nats, (B, D) → (B,) in the dtype of its argument; None if
            no closed form exists.
        split: "train", "test", "held-out" or "all".
    """

    name: str
    x: Tensor | Rows
    labels: Condition | None
    spec: DataSpec
    log_prob: Callable[[Tensor], Tensor] | None = None
    split: str = "train"

    @classmethod
    def of(
        cls,
        items: Any,
        spec: DataSpec,
        name: str = "data",
        labels: Condition | None = None,
        workers: int = 0,
    ) -> Dataset:
        """The data of a torch dataset, which are read when they are needed.

        Args:
            items: An object with `len(items)` and `items[i]`, which is x or a pair (x, y): x of
                shape `spec.shape`, with integer levels if the data are quantized, otherwise
                floats, and y its condition. Each item must be a function of its number.
            spec: Description of the data.
            name: Name of the data, for messages and reports.
            labels: Conditions of all data, if they are known. Otherwise all items are read once
                for their y, if `spec` has conditions.
            workers: Number of processes that read items ahead; 0 reads them in this process. The
                data do not depend on it.

        Raises:
            TypeError: If items have another dtype than `spec` says.
            ValueError: If there is no item, an item has another shape or is not finite, or the
                first item is another one when it is read again.
        """
        check_integer("workers", workers, minimum=0)
        if len(items) == 0:
            raise ValueError(f"{name} must hold at least one item")
        x = ItemRows(name, items, spec, workers)
        x.check_repeats()
        if labels is None:
            labels = conditions_of(x)
        else:
            labels = spec.condition.checked(bound_rows(labels, len(x), "cpu"), len(x))
        return cls(name, x, labels, spec)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def class_labels(self) -> Tensor | None:
        """The class labels among the conditions, int64, shape (N,); None without classes."""
        if self.spec.classes is None:
            return None
        labels = self.labels.get("class") if isinstance(self.labels, dict) else self.labels
        return None if labels is None or labels.is_floating_point() else labels

    def given_for(self, condition: ConditionSpec) -> Dataset:
        """These data with only those conditions that a network takes.

        Args:
            condition: What the network takes.

        Raises:
            ValueError: If the data lack a kind of condition, or have it in another size.
        """
        return replace(self, labels=condition.selected(self.labels, self.spec.condition))

    def taken(self, rows: Tensor) -> Dataset:
        """Some of these data.

        Args:
            rows: Their row numbers, int64, shape (n,).
        """
        labels = None if self.labels is None else take_rows(self.labels, rows)
        return replace(self, x=self.x[rows], labels=labels)

    @property
    def empty_class(self) -> str | None:
        """The first class without a datum, as `class 3` or `class 3 (fox)`; None if there is none.

        A network that is trained on these data never sees this class.
        """
        if self.class_labels is None:
            return None
        present = torch.unique(self.class_labels)
        if len(present) == self.spec.classes:
            return None
        # The first class is missing where the sorted numbers stop being 0, 1, 2, …
        differ = torch.nonzero(present != torch.arange(len(present)))
        number = int(differ[0]) if len(differ) else len(present)
        names = self.spec.class_names
        return f"class {number}" + (f" ({names[number]})" if names is not None else "")

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits for data, labels and spec; the name does not matter.

        The same images under another path have the same fingerprint. Other images under the same
        path have another fingerprint.
        """
        spec = self.spec.to_dict()
        del spec["name"]
        return fingerprint({"x": self.x, "labels": self.labels, "spec": spec})
