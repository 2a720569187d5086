"""A given model under guidance, so that every command sees one model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from .._condition import ConditionSpec
from ..data import Dataset, DataSource, DataSpec
from ..fingerprint import fingerprint
from ..guidance import Guided
from ..names.guidance import Guidance, parse_guidance
from ..output.manifest import Source
from ..sde import SDE
from .given import GivenModel
from .request import StoredClassifier, StoredModel

__all__ = ["GuidedModel", "under_guidance"]


@dataclass(frozen=True)
class GuidedModel(GivenModel):
    """A given model with guidance; `under_guidance` makes and checks it.

    Attributes:
        given: The strong model.
        guidance: The guidance.
        others: The checkpoints that the guidance needs, by parameter.
    """

    given: GivenModel
    guidance: Guidance
    others: dict[str, StoredModel] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the strong model."""
        return self.given.name

    @property
    def spec(self) -> DataSpec:
        """Description of the data at which the model is evaluated.

        It has the classes that a classifier knows.
        """
        spec = self.given.spec
        if self._classifier is None or spec.classes is not None:
            return spec
        known = self._classifier.spec
        return replace(spec, classes=known.classes, class_names=known.class_names)

    @property
    def _classifier(self) -> StoredModel | None:
        """The classifier that guides; None for other guidance."""
        return self.others["checkpoint"] if self.guidance.classifies else None

    @property
    def decoded_spec(self) -> DataSpec:
        """Description of the data that the user sees."""
        return self.given.decoded_spec

    @property
    def autoencoder_sha256(self) -> str | None:
        """Digest of the file of the autoencoder, if it is known."""
        return self.given.autoencoder_sha256

    @property
    def kind(self) -> str:
        """Kind of the source of the results."""
        return self.given.kind

    @property
    def plain(self) -> GivenModel:
        """The strong model."""
        return self.given

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.given.sde

    @property
    def _all(self) -> list[GivenModel]:
        return [self.given, *self.others.values()]

    @property
    def snapped(self) -> bool:
        """Whether a network is exact only at the discrete times of its SDE."""
        return any(each.snapped for each in self._all)

    @property
    def learned_variance(self) -> bool:
        """False: the variance that a network says is that of its own steps."""
        return False

    @property
    def evaluations(self) -> int:
        """Evaluations of networks that one evaluation takes at most."""
        weak = self.others.get("weak", self.given).evaluations
        return self.guidance.evaluations(self.given.evaluations, weak)

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of the log-density of the model's ODE."""
        return self.guidance.changes or self.given.guided

    @property
    def t_least(self) -> float:
        """Least time at which all networks may be evaluated."""
        return max(each.t_least for each in self._all)

    @property
    def t_most(self) -> float:
        """Largest time at which every quantity can be computed.

        The gradient of a classifier is divided by α, and x0 is what thresholding needs.
        """
        most = min(each.t_most for each in self._all)
        return most if self._classifier is None else min(most, self.sde.t_regular)

    @property
    def condition(self) -> ConditionSpec:
        """The conditions of the strong model, or those of a classifier."""
        return self.given.condition if self._classifier is None else self._classifier.condition

    @property
    def unconditional(self) -> bool:
        """Whether the model can also be evaluated without a condition."""
        needs = self.guidance.drops_condition or self.guidance.classifies
        return self.given.unconditional and not needs

    @property
    def data_source(self) -> DataSource | None:
        """The training data of the strong model."""
        return self.given.data_source

    @property
    def held_out_share(self) -> float:
        """Share of the training data that the strong model was not trained on."""
        return self.given.held_out_share

    def held_out_rows(self, data: Dataset) -> Tensor:
        """The rows of the training data that the strong model was not trained on, ascending."""
        return self.given.held_out_rows(data)

    @property
    def source(self) -> Source:
        """Name of the strong model; content of all checkpoints, and the parameters."""
        contents = {name: other.source.sha256 for name, other in self.others.items()}
        content = [self.given.source.sha256, self.guidance.numbers, contents]
        return Source(self.given.source.name, fingerprint(content))

    def build(self, device: str = "cpu", dtype: str = "float32") -> Guided:
        """The guided model on a device, ready to evaluate."""
        others = {name: other.build(device, dtype) for name, other in self.others.items()}
        return self.guidance.of(self.given.build(device, dtype), **others)

    @property
    def doubles(self) -> bool:
        """Whether the model can be built in float64."""
        return all(each.doubles for each in self._all)


def under_guidance(given: GivenModel, text: str | float | None) -> GivenModel:
    """A given model under guidance; the model itself for None.

    Args:
        given: The strong model.
        text: As `parse_guidance` reads it.

    Raises:
        CheckpointError: If a checkpoint of the guidance cannot be read.
        ConfigError: If the text is wrong.
        ValueError: If the model cannot be guided in this way; the message names the option.
    """
    if text is None:
        return given
    guidance = parse_guidance(text)
    if given.distilled is not None:
        raise ValueError(
            f"--guidance: {given.name} is {given.distilled.in_words}; guide its teacher with "
            "scoresde distill --guidance instead"
        )
    kind = StoredClassifier if guidance.classifies else StoredModel
    others = {name: kind.read(path) for name, path in guidance.checkpoints.items()}
    if guidance.drops_condition:
        _check_drops(given, text)
    if guidance.threshold is not None and given.spec.levels is None:
        raise ValueError(
            f"--guidance: {text}: threshold needs data with a range that the model knows, such as "
            f"images, and those of {given.name} are continuous"
        )
    for name, other in others.items():
        _check_alike(given, other, f"--guidance: {name}={other.name}")
    return GuidedModel(given, guidance, others)


def _check_drops(given: GivenModel, text: str | float) -> None:
    """Raise unless a model takes a condition, and can be evaluated without it."""
    if not given.condition:
        raise ValueError(
            f"--guidance: {text} needs a model that takes a condition, and {given.name} takes none"
        )
    if not given.unconditional:
        raise ValueError(
            f"--guidance: {text} needs a model that was trained without its condition too "
            f"(train.label_dropout above 0), and {given.name} was not"
        )


def _check_alike(given: GivenModel, other: GivenModel, where: str) -> None:
    """Raise unless another model is of the same SDE, data and conditions, or takes no condition."""
    if other.sde != given.sde:
        raise ValueError(f"{where} must have the SDE of {given.name}, {given.sde}, got {other.sde}")
    if other.spec.shape != given.spec.shape:
        raise ValueError(
            f"{where} must be of data of shape {given.spec.shape}, got {other.spec.shape}"
        )
    if other.autoencoder_sha256 != given.autoencoder_sha256:
        raise ValueError(
            f"{where} must be of the same latents as {given.name}, and has another autoencoder"
        )
    if _scale_of(other.spec) != _scale_of(given.spec):
        raise ValueError(
            f"{where} must be of data at the scale of {given.name}, but levels or the fitted "
            "transform differ (train both with the same train.validation and train.seed)"
        )
    if isinstance(other, StoredClassifier) and not given.condition:
        return  # the classifier alone knows the classes
    if other.condition and other.condition != given.condition:
        wanted = given.condition if given.condition else "no condition"
        raise ValueError(
            f"{where} must take the condition of {given.name}, {wanted}, got {other.condition}"
        )


def _scale_of(spec: DataSpec) -> tuple[object, ...]:
    """What maps the data to the scale of a model."""
    known = spec.to_dict()
    bounds = () if spec.levels is None else (spec.levels, spec.low, spec.high)
    return bounds, known.get("transform")
