"""The student that a teacher begins with, and its method as a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from ..grid import arctan
from ..plain import construct_named
from ..samplers.students import own_times
from ..score import Preconditioning, ScoreModel
from ..score.distilled import Distilled
from ..sde import SDE
from .base import StudentLoss
from .consistency import ConsistencyDistillation, ConsistencyLoss, ConsistencyTraining
from .progressive import Progressive, ProgressiveLoss

__all__ = [
    "METHODS",
    "Method",
    "check_teacher",
    "loss_of",
    "method_label",
    "parse_method",
    "student_preconditioning",
    "students_of",
]

Method = Progressive | ConsistencyDistillation | ConsistencyTraining

METHODS: dict[str, Callable[..., Method]] = {
    "progressive": Progressive,
    "consistency": ConsistencyDistillation,
    "consistency-training": ConsistencyTraining,
}

# An error of the network's output is an error of x0, at most so many times as large in the noise.
_LARGEST_FACTOR = 2.0


def parse_method(text: str) -> Method:
    """A method from `name` or `name:key=value:key=value`, such as `progressive:steps=2`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    return construct_named("method", text, METHODS)


def method_label(method: Method) -> str:
    """The text with all parameters, from which `parse_method` makes an equal method."""
    name = next(name for name, cls in METHODS.items() if cls is type(method))
    return ":".join([name, *(f"{key}={value}" for key, value in asdict(method).items())])


def check_teacher(model: ScoreModel) -> None:
    """Raise unless a model can be distilled. Only what it says about itself is used.

    Args:
        model: The model, or any object that says the same about itself.

    Raises:
        ValueError: If its labels are rounded, it has a learned variance, is a student itself, or
            takes sets.
    """
    if model.distilled is not None:
        raise ValueError(f"is {model.distilled.in_words} already, which has no ODE to learn from")
    if model.snapped:
        raise ValueError(
            "has rounded labels, which are wrong between its discrete times, where a student learns"
        )
    if model.learned_variance:
        raise ValueError("has a learned variance, which is that of its own steps, not a student's")
    if model.condition is not None and model.condition.sizes is not None:
        raise ValueError("is a model of sets, for which students are not made")


def student_preconditioning(teacher: Preconditioning, sde: SDE) -> Preconditioning:
    """The preconditioning of a student, which begins with the weights of its teacher.

    It is the teacher's, unless x0 = c_skip x + c_out F has a large c_out in the noise, as for a
    network F that predicts ε: there c_out = −σ/α, and a student needs a good x0 in the noise. Then
    the target "edm" with d = 1 is learned instead (which is −v on VP), with the same input and
    label. Salimans and Ho 2022, arXiv:2202.00512, section 4, for this reason do not predict ε.

    Args:
        teacher: The teacher's.
        sde: The forward process.
    """
    (first,) = sde.nodes([sde.t_regular])
    _, c_out = teacher.skip_and_out("x0", first)
    if teacher.target == "edm" or abs(c_out) <= _LARGEST_FACTOR:
        return teacher
    return replace(teacher, target="edm", sigma_data=1.0, velocity_sign=None)


def students_of(
    method: Method, t_min: float, data_std: float = 1.0, teacher: str = "", guidance: str = ""
) -> list[Distilled]:
    """What the students of a method say about themselves, one after the other.

    Args:
        method: The method.
        t_min: Last time.
        data_std: d of their times.
        teacher: Digest of the first teacher's checkpoint.
        guidance: Its guidance.
    """
    about = Distilled(method_label(method), t_min, data_std, None, teacher, guidance)
    counts = getattr(method, "students", [None])
    return [replace(about, steps=steps) for steps in counts]


def loss_of(distilled: Distilled, teacher: ScoreModel) -> StudentLoss:
    """The loss of one student.

    Args:
        distilled: What the student says about itself.
        teacher: The model it learns from, frozen; of a student of N steps one that is good for 2N
            steps, which the first teacher and the student before it are.
    """
    method, sde = parse_method(distilled.method), teacher.sde
    if distilled.steps is not None:
        return ProgressiveLoss(teacher, _times(sde, distilled))
    asked: Any = None if distilled.kind == "consistency-training" else teacher
    return ConsistencyLoss.of(sde, method, asked, distilled.t_min, distilled.data_std)


def _times(sde: SDE, distilled: Distilled) -> torch.Tensor:
    """The times of the teacher, every second of which is one of the student."""
    fine = arctan(
        sde, 2 * distilled.steps, distilled.t_min, sde.t_regular, data_std=distilled.data_std
    )
    fine[::2] = own_times(sde, distilled, distilled.steps)  # equal up to rounding; now exactly
    return fine
