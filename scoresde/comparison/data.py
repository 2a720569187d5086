"""The use of real data in a comparison: metrics of quality, and labels of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._condition import Condition, bound_rows
from .._tensor import check_number
from ..data import Dataset, DataSource, DataSpec, has_test_split, load_dataset
from ..output.manifest import Source
from ..score import ScoreModel
from ..score.units import in_model_scale
from ..tasks.class_labels import labels_in_turn
from ..tasks.compiling import check_compiles
from ..tasks.conditions import conditions_like
from ..tasks.given import GivenModel
from ..tasks.own_data import both_splits
from ..tasks.request import data_source
from .quality import Quality
from .request import BenchRequest

__all__ = ["BenchData", "OwnData", "Shared", "check_spec", "data_in_words"]


@dataclass(frozen=True)
class Shared:
    """What several cases of a comparison use: networks, data and metrics, each made once."""

    made: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made before for this key, or what `make` returns."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def scaled(self, data: Dataset | None) -> Dataset | None:
        """Data at the model's scale; cases of the same object share them."""
        if data is None or data.spec.transform is None:
            return data
        return self.once(("scaled", id(data), repr(data.spec)), lambda: (data, data.scaled))[1]

    def network(self, given: GivenModel, device: str, compiled: bool = False) -> ScoreModel:
        """The model at its own scale, ready to evaluate; cases of the same object share it.

        Samples of a model of latents are decoded to the model's scale of the data.

        Args:
            given: The model as it was given.
            device: Device of the network.
            compiled: Whether the network will be compiled, so that it must be no one else's.

        Raises:
            ValueError: If such a model cannot be compiled.
        """
        if compiled:
            check_compiles(given)
        build = given.build_own if compiled else given.build
        made = self.once(("network", id(given)), lambda: (given, _at_its_scale(build(device))))
        return made[1]


def _at_its_scale(model: ScoreModel) -> ScoreModel:
    if model.decoder is None:
        return in_model_scale(model)
    return model.decoded_by(model.decoder.in_model_scale)


@dataclass(frozen=True)
class OwnData:
    """Data and conditions that a comparison in Python was given, in place of the training data.

    Attributes:
        train: Data with which samples are compared; None = the training data of the model.
        test: Data for the floor and the likelihood; None = the test split, or without one some of
            `train` for the floor and all of it for the likelihood.
        y: The condition of each sample, n rows or one; None = as `BenchRequest.labels` says.
        place: Name or path from which the data were loaded; None for data in memory.
    """

    train: Dataset | None = None
    test: Dataset | None = None
    y: Condition | None = None
    place: str | None = None

    @classmethod
    def load(cls, name: str, data_root: str | Path | None, spec: DataSpec) -> OwnData:
        """Data of a name or path, at the scale of a model.

        Args:
            name: A name or path, relative to `data_root` or to here.
            data_root: The folder that is searched first; None for none.
            spec: What the data of the model are.
        """
        return cls(*both_splits(DataSource(name).below(data_root), None, spec), place=name)


@dataclass(frozen=True)
class BenchData:
    """The data of a comparison, and the metrics and labels made from them before sampling.

    Data with a transform are compared at the model's scale: samples that are mapped to units and
    back may lose digits, or leave the domain of a logarithm.

    Attributes:
        train: Training data at the model's scale; None if no data are needed.
        test: Test data at the model's scale; None if no data are needed, or if there is no test
            split.
        quality: The metrics that compare samples with data; None without such metrics.
        y: Condition of the samples, n rows; None unless the model is conditional.
        how: The shares of the classes, "shares" or "uniform"; None unless the condition is made
            here and is class labels alone.
        in_memory: Whether the data were given in Python.
        place: Name or path of data that replace those of the model; None for none or in memory.
        units: Training and test data in units.
    """

    train: Dataset | None
    test: Dataset | None
    quality: Quality | None
    y: Condition | None
    how: str | None = None
    in_memory: bool = False
    place: str | None = None
    units: tuple[Dataset | None, Dataset | None] = (None, None)

    @classmethod
    def load(
        cls,
        request: BenchRequest,
        given: GivenModel,
        own: OwnData | None = None,
        shared: Shared | None = None,
    ) -> BenchData:
        """Load the data that the request needs.

        Args:
            request: The request.
            given: The model.
            own: Data and conditions that replace those of the model.
            shared: Data and metrics of other cases.

        Raises:
            FileNotFoundError: If the data are not there; says how to get them.
            ValueError: If the data are not of the kind of the training data, have no labels for a
                conditional model, or are too few.
        """
        own, shared, train, test = own or OwnData(), shared or Shared(), None, None
        in_memory = own.train is not None
        # A vector or an array cannot be invented: samples have the conditions of the data.
        numbers = own.y is None and bool(set(given.condition.kinds) - {"class"})
        if numbers and not in_memory and given.data_source is None:
            raise ValueError(
                f"data must be given: {given.name} takes {given.condition}, and its training data "
                "are not known"
            )
        if request.quality or request.likelihood or numbers:
            train, test = (own.train, own.test) if in_memory else _splits(request, given, shared)
            if not given.condition:  # labels that the model is not known to take
                train, test = (_unlabelled(data) for data in (train, test))
            check_spec(given, train, in_memory)
        if request.likelihood:
            scored = own.train if test is None else test
            if scored is None:
                raise ValueError(
                    f"--likelihood: {request.likelihood}, but these data have no test split; use 0"
                )
            check_number("likelihood", request.likelihood, at_most=len(scored))
        units, (train, test) = (train, test), (shared.scaled(each) for each in (train, test))
        quality = _quality(request, train, test, shared) if request.quality else None
        if own.y is not None:
            y, how = bound_rows(own.y, request.n, "cpu"), None
        else:
            y = _labels(request, given, train)
            how = "uniform" if train is None else request.shares
            how = how if set(given.condition.kinds) == {"class"} else None
        if quality is not None and request.guidance:
            quality = quality.asking(y)
        return cls(train, test, quality, y, how, in_memory, own.place, units)

    @property
    def scored(self) -> tuple[Dataset, Dataset] | None:
        """Data in memory for the likelihood, and data like them; None if they must be loaded."""
        train, test = self.units
        return (test or train, train) if self.in_memory else None

    @property
    def sources(self) -> dict[str, Source]:
        """Name and content of all data and features from which the numbers are computed."""
        splits = dict(zip(("training data", "test data"), self.units, strict=True))
        found = {what: data_source(data) for what, data in splits.items() if data is not None}
        features = None if self.quality is None else self.quality.from_file
        if features is not None:
            found["features"] = Source(features.name, features.fingerprint)
        if self.quality is not None and self.quality.statistics_digest is not None:
            found["reference statistics"] = Source("file", self.quality.statistics_digest)
        return found


def _quality(
    request: BenchRequest, train: Dataset, test: Dataset | None, shared: Shared
) -> Quality:
    """The metrics for data that may be those of other cases."""
    same = ("quality", id(train.x), None if test is None else id(test.x), repr(train.spec))
    chosen = (request.n, request.metrics, request.features)
    return shared.once(same, lambda: Quality.build(train, test, *chosen))


def _splits(
    request: BenchRequest, given: GivenModel, shared: Shared
) -> tuple[Dataset, Dataset | None]:
    """Train and test split of the model's training data."""
    source, spec = given.data_source, given.decoded_spec
    if source is None:
        raise ValueError(
            f"data must be given for the likelihood or the quality of samples: {given.name} does "
            f"not say what it was trained on, and needs {data_in_words(spec)}"
        )
    source = source.below(request.data_root)

    def load() -> tuple[Dataset, Dataset | None]:
        train = load_dataset(source, classes=spec.class_names).in_units_of(spec)
        if not has_test_split(source):
            return train, None
        return train, load_dataset(source, "test", classes=spec.class_names).in_units_of(spec)

    same = ("data", repr(source), repr(spec.class_names), repr(spec.transform))
    return shared.once(same, load)


def _unlabelled(data: Dataset | None) -> Dataset | None:
    return None if data is None else replace(data, labels=None)


def data_in_words(spec: DataSpec) -> str:
    """The data that a model needs, such as "data of shape (1, 8, 8) with 17 levels"."""
    levels = "continuous values" if spec.levels is None else f"{spec.levels} levels"
    return f"data of shape {spec.shape} with {levels}"


def check_spec(given: GivenModel, train: Dataset, in_memory: bool) -> None:
    """Raise ValueError unless the data are of the kind that the model was trained on.

    Args:
        given: The model.
        train: The data.
        in_memory: Whether the data were given; otherwise they are those of the training.
    """
    what = (
        f"data: {train.name} does not fit {given.name}"
        if in_memory
        else (f"{train.name} has changed since training")
    )
    for name in ("shape", "levels", "low", "high"):
        now, then = getattr(train.spec, name), getattr(given.decoded_spec, name)
        if now != then:
            raise ValueError(f"{what}: {name} {now}, not {then}")


def _labels(request: BenchRequest, given: GivenModel, train: Dataset | None) -> Condition | None:
    """Conditions for a conditional model; without training data all classes have the same share."""
    condition = given.condition
    if request.shares == "uniform" and set(condition.kinds) - {"class"}:
        raise ValueError(
            f"labels must be shares, got uniform: {given.name} takes {condition}, and samples have "
            "the conditions of the data"
        )
    if not condition:
        return None
    if train is None:
        return labels_in_turn(condition.classes, request.n)
    try:
        train = train.given_for(condition)
    except ValueError as error:
        raise ValueError(f"{train.name} does not suit the {given.kind}: {error}") from error
    return conditions_like(train.labels, train.spec, request.n, request.shares)
