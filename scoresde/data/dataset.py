"""`Dataset`: data with their conditions and their description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from .sets import pad_sets, range_of_sets, size_kinds, widened
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

    @classmethod
    def of_sets(
        cls,
        sets: Sequence[Any],
        spec: DataSpec | None = None,
        name: str = "sets",
        labels: Condition | None = None,
    ) -> Dataset:
        """Sets of points, padded with zeros to the size of the largest.

        Args:
            sets: Arrays or tensors of shape (n_i, F): n_i ≥ 1 points of F floating features.
            spec: Description of the data, whose `sizes` allow all n_i; None takes it from the
                sets.
            name: Name of the data, for messages and reports.
            labels: Other conditions of the data, if `spec` has any: a tensor, or a dict.

        Raises:
            TypeError: If a set does not hold real numbers.
            ValueError: If a set is empty, has another F, another number of points than `spec`
                allows, or numbers that are not finite.
        """
        x, sizes = pad_sets(sets, None if spec is None else spec.shape[0])
        if spec is None:
            low, high = range_of_sets(x, sizes)
            if low == high:
                raise ValueError(f"{name}: all numbers are {low}; give spec with low and high")
            spec = DataSpec(
                tuple(x.shape[1:]), low, high, name=name, **size_kinds(sizes, len(x[0]))
            )
        elif spec.sizes is None or spec.shape != tuple(x.shape[1:]):
            raise ValueError(
                f"spec must be of sets of shape {tuple(x.shape[1:])}, got {spec.kind} data of "
                f"shape {spec.shape}"
            )
        kinds = set(spec.condition.kinds) - {"size"}
        y = labels if isinstance(labels, dict) else dict.fromkeys(kinds, labels)
        y = {"size": sizes} | y if kinds else sizes
        y = spec.condition.checked(bound_rows(y, len(x), "cpu"), len(x))
        return cls(name, x, y, spec)

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

    def widened(self, sizes: tuple[int, int] | None) -> Dataset:
        """These sets with as many rows as other sets, so that one network takes both.

        Args:
            sizes: Least and most number of points of the other sets; None if they are no sets.

        Returns:
            The sets with zeros after their last row; the same data if the others have no more rows
            or fewer points than some of these.
        """
        own = self.spec.sizes
        if sizes is None or own is None or own == sizes or own[0] < sizes[0] or own[1] > sizes[1]:
            return self
        counts = self.spec.size_counts
        if counts is not None:
            counts = (0,) * (own[0] - sizes[0]) + counts + (0,) * (sizes[1] - own[1])
        shape = (sizes[1], self.spec.shape[1])
        spec = replace(self.spec, shape=shape, sizes=sizes, size_counts=counts)
        return replace(self, x=widened(self.x, own, sizes), spec=spec)

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
