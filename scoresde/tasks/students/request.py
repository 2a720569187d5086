"""The options of a distillation, and what a student's training takes over from its teacher's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..._tensor import check_integer, check_number, plain_numbers
from ...data import Dataset, DataSource, load_dataset
from ...distillation.student import (
    Method,
    check_teacher,
    parse_method,
    student_preconditioning,
    students_of,
)
from ...names.config import Config
from ...plain import ConfigError
from ...samplers.recommended import LEAST_TIME
from ...score.distilled import Distilled
from ...train import TrainSettings
from ..given import GivenModel
from ..guided import under_guidance
from ..held_out import check_held_out
from ..request import StoredModel

__all__ = [
    "DistillRequest",
    "check_batch",
    "folder_of",
    "read_teacher",
    "student_configs",
    "training_data",
]

_DATA_STD = 1.0  # d of the times: data have about unit scale, of levels from −1 to 1


@dataclass(frozen=True)
class DistillRequest:
    """The options of `scoresde distill`.

    Args:
        checkpoint: The teacher: a file, or the name of a shipped checkpoint.
        method: As `parse_method` reads it.
        steps: Optimizer steps of each student.
        batch: Batch size; None for the teacher's, or 128.
        learning_rate: Largest learning rate; it rises over the first tenth of the steps and falls
            over the second half.
        guidance: As `parse_guidance` reads it; the student then learns the guided model.
        data: Name or place of the data; None for the teacher's training data.
        data_root: Folder that is searched first for the data.
        device: Where to train.
        net: A network of the user's own, as `net_from_text` reads it.
        sde: An SDE of the user's own, as `sde_from_text` reads it.

    Raises:
        ConfigError: If the method is wrong.
        TypeError: If a number is none.
        ValueError: If a number is out of range; the message names the option.
    """

    checkpoint: str
    method: str = "progressive"
    steps: int = 2000
    batch: int | None = None
    learning_rate: float = 1e-3
    guidance: str | None = None
    data: str | None = None
    data_root: str | None = None
    device: str = "cpu"
    net: str | None = None
    sde: str | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("--steps:", self.steps, minimum=1)
        check_number("--learning-rate:", self.learning_rate, above=0)
        if self.batch is not None:
            check_integer("--batch:", self.batch, minimum=1)
        made = self.parsed
        if self.guidance is not None and self.method.startswith("consistency-training"):
            raise ValueError(
                f"--guidance: {self.guidance}, but consistency-training has no teacher to guide; "
                f"take consistency, got {made}"
            )

    @property
    def parsed(self) -> Method:
        """The method."""
        return parse_method(self.method)


def read_teacher(request: DistillRequest) -> tuple[StoredModel, GivenModel]:
    """The teacher's checkpoint, and the model under guidance, checked before anything slow.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        ConfigError: If the guidance is wrong.
        ValueError: If it cannot be distilled; the message names the option.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    given = under_guidance(stored, request.guidance)
    for one in (stored, given):
        try:
            check_teacher(one)
        except ValueError as error:
            raise ValueError(f"--checkpoint: {stored.name} {error}") from error
    if stored.spec.kind == "set":
        raise ValueError(f"--checkpoint: {stored.name} is a model of sets, which is not distilled")
    return stored, given


def training_data(request: DistillRequest, stored: StoredModel) -> tuple[DataSource, Dataset]:
    """The data of the student's training, in the units and with the conditions of the teacher.

    Raises:
        FileNotFoundError: If the data are absent; the message says how to get them.
        ValueError: If they are not known, or do not suit the teacher; the message names the option.
    """
    source, spec = stored.data_source, stored.spec
    if request.data is not None:
        source = DataSource(request.data, size=None if source is None else source.size)
    if source is None:
        raise ValueError(f"--data: must be given, the training data of {stored.name} are not known")
    classes = spec.class_names or spec.classes
    data = load_dataset(source.below(request.data_root), classes=classes).in_units_of(spec)
    data = check_held_out(stored, data, 1)
    return source, data if stored.condition else replace(data, labels=None)


def student_configs(
    request: DistillRequest, stored: StoredModel, given: GivenModel, source: DataSource
) -> list[Config]:
    """The configs of the students, one after the other.

    A student has the network of its teacher without dropout (its target has no noise to overfit),
    and the seed, the held-out share, the flips and the label dropout of its training. A student of
    a guided model is always conditional.

    Args:
        request: The options.
        stored: The teacher's checkpoint.
        given: The teacher under guidance.
        source: The data.
    """
    config, t_min = stored.config, max(LEAST_TIME, given.t_least)
    net: dict[str, Any] = dict(config.net)
    if not config.foreign and request.method.partition(":")[0] != "consistency-training":
        net.pop("dropout", None)
    wanted = replace(
        config,
        data=source,
        net=net,
        train=_settings(request, config.train),
        preconditioning=student_preconditioning(config.preconditioning, config.sde),
    )
    text = "" if request.guidance is None else str(request.guidance)
    abouts = students_of(request.parsed, t_min, _DATA_STD, given.source.sha256, text)
    return [replace(wanted, distilled=about) for about in abouts]


def _settings(request: DistillRequest, teacher: TrainSettings | None) -> TrainSettings:
    own = {
        "steps": request.steps,
        "batch": request.batch or (128 if teacher is None else teacher.batch),
        "learning_rate": request.learning_rate,
        "warmup": request.steps // 10,
        "cooldown": request.steps // 2,
    }
    if teacher is None:
        return TrainSettings(**own)
    kept = {"seed": teacher.seed, "flip": teacher.flip, "validation": teacher.share}
    if request.guidance is None:
        kept["label_dropout"] = teacher.label_dropout
    return TrainSettings(**own, **kept)


def folder_of(out: Path, about: Distilled, last: Distilled) -> Path:
    """Where a student is trained: `out` for the last one, a folder in it for the others."""
    return out if about == last else out / f"student-{about.steps}"


def check_batch(config: Config, data: Dataset) -> None:
    """Raise ConfigError unless there are enough data for a batch."""
    if len(data) < config.train.batch:
        raise ConfigError(
            f"--batch: must be at most the {len(data)} data of {data.name}, got "
            f"{config.train.batch}"
        )
