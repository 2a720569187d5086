"""`Dataset`: data with their conditions and their description."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, take_rows
from .._rows import Rows, blocks_of
from .._tensor import check_integer
from ..fingerprint import fingerprint
from .items import ItemRows, conditions_of
from .scaled import existing, scaled_rows
from .spec import DataSpec
from .units import filled

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        name: Name or path from which the data were loaded.
        x: Data in their units, shape (N, *spec.shape): integer levels for quantized data,
            otherwise float32. A tensor, or `Rows`, which are read when they are needed.
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

    @property
    def scaled(self) -> Dataset:
        """These data at the model's scale, without a transform; themselves if they have none.

        Raises:
            ValueError: If data in memory leave the domain of the transform.
        """
        if self.spec.transform is None:
            return self
        x = scaled_rows(self.x, self.labels, self.spec)
        return replace(self, x=x, spec=self.spec.in_model_scale)

    @property
    def log_det(self) -> Tensor:
        """log |det ∂z/∂x| of data in memory, nats, shape (N,), float64; 0 without a transform."""
        exists = existing(self.labels, self.spec.condition, self.spec.shape[0], len(self))
        return self.spec.log_det(self.x, exists)

    def in_units_of(self, spec: DataSpec) -> Dataset:
        """These data with the transform of a model, whose description has one or none.

        Args:
            spec: Description of the model's data.

        Raises:
            ValueError: If the names of the features are not those of the model.
        """
        same = self.spec.transform == spec.transform and self.spec.transform is None
        if same or self.spec.shape != spec.shape or self.spec.levels is not None:
            return self
        try:
            return replace(self, spec=self.spec.with_units_of(spec))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def fitted(self, texts: Any, rows: Tensor | None = None) -> Dataset:
        """These data with transforms that are fitted to them.

        Args:
            texts: What `parse_transforms` returns, or transforms.
            rows: Row numbers of the data that are fitted to, int64; None for all.

        Raises:
            ValueError: If a feature is constant or leaves a domain; the message names it.
        """
        every = existing(self.labels, self.spec.condition, self.spec.shape[0], len(self))
        kept = None
        if rows is not None:
            kept = torch.zeros(len(self), dtype=torch.bool)
            kept[rows] = True

        def blocks() -> Iterator[tuple[Tensor, Tensor | None]]:
            first = 0
            for block in blocks_of(self.x):
                part = slice(first, first + len(block))
                mask = None if kept is None else kept[part]
                if every is not None:
                    block = filled(block, every[part])
                    mask = every[part] if mask is None else every[part] & mask[:, None]
                yield block, mask
                first = part.stop

        try:
            return replace(self, spec=self.spec.fitted(texts, blocks))
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

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
