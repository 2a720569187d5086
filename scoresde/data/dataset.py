"""`Dataset`: data with their conditions and their description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, take_rows
from .._rows import Rows
from ..fingerprint import fingerprint
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
