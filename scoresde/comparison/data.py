"""The use of real data in a comparison: metrics of quality, and labels of the samples."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._tensor import check_number
from ..data import Dataset, has_test_split, load_dataset
from ..output.manifest import Source
from ..tasks.class_labels import labels_in_turn, labels_of
from ..tasks.given import GivenModel
from ..tasks.request import data_source
from .quality import Quality
from .request import BenchRequest

__all__ = ["BenchData"]


@dataclass(frozen=True)
class BenchData:
    """The data of a comparison, and the metrics and labels made from them before sampling.

    Attributes:
        train: Training data; None if no data are needed.
        test: Test data; None if no data are needed, or if there is no test split.
        quality: The metrics that compare samples with data; None without such metrics.
        y: Class labels of the samples, shape (n,); None unless the model is conditional.
    """

    train: Dataset | None
    test: Dataset | None
    quality: Quality | None
    y: Tensor | None

    @classmethod
    def load(cls, request: BenchRequest, given: GivenModel) -> BenchData:
        """Load the data that the request needs.

        Raises:
            FileNotFoundError: If the data are not there; says how to get them.
            ValueError: If the data are not of the kind of the training data, have no labels for a
                conditional model, or are too few.
        """
        train = test = None
        if request.quality or request.likelihood:
            train, test = _splits(request, given)
        if request.likelihood:
            if test is None:
                raise ValueError(
                    f"--likelihood: {request.likelihood}, but these data have no test split; use 0"
                )
            check_number("likelihood", request.likelihood, at_most=len(test))
        quality = Quality.build(train, test, request.n) if request.quality else None
        return cls(train, test, quality, _labels(request, given, train))

    @property
    def sources(self) -> dict[str, Source]:
        """Name and content of all data and features from which the numbers are computed."""
        splits = {"training data": self.train, "test data": self.test}
        found = {what: data_source(data) for what, data in splits.items() if data is not None}
        if self.quality is not None and not self.quality.fitted:
            features = self.quality.features
            found["features"] = Source(features.name, features.fingerprint)
        return found


def _splits(request: BenchRequest, given: GivenModel) -> tuple[Dataset, Dataset | None]:
    """Train and test split of the checkpoint's training data."""
    source, spec = given.data_source.below(request.data_root), given.spec
    train = load_dataset(source, classes=spec.class_names)
    for name in ("shape", "levels", "low", "high"):
        now, then = getattr(train.spec, name), getattr(spec, name)
        if now != then:
            raise ValueError(f"{train.name} has changed since training: {name} {now}, not {then}")
    if not has_test_split(source):
        return train, None
    return train, load_dataset(source, "test", classes=spec.class_names)


def _labels(request: BenchRequest, given: GivenModel, train: Dataset | None) -> Tensor | None:
    """Labels for a conditional model; without training data all classes have the same share."""
    if given.classes is None:
        return None
    if train is None:
        return labels_in_turn(given.classes, request.n)
    if train.labels is None:
        raise ValueError(f"{train.name} has no labels, the checkpoint needs them")
    return labels_of(train.labels, given.classes, request.n, request.labels)
