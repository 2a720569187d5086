"""Guidance from text, for the command line and the benchmarks.

2                                classifier-free guidance of scale 2
2:rescale=0.7:low=0.2:high=5     with parameters
cfg:scale=2                      the same by its name
apg:scale=3:norm=10              adaptive projected guidance
auto:scale=2:weak=PATH           autoguidance by a weaker checkpoint
classifier:scale=2:checkpoint=PATH  by the gradient of a classifier of noisy data
3:threshold=0.995                dynamic thresholding of the guided x0, of any kind of guidance
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .._tensor import check_number
from ..classification import NoisyClassifier
from ..guidance import (
    AutoGuided,
    ClassifierFree,
    ClassifierGuided,
    DynamicallyThresholded,
    Guided,
    Projected,
    Scale,
)
from ..plain import construct_named
from ..score import ScoreModel

__all__ = ["GUIDANCES", "Guidance", "parse_guidance"]

SHORT = "cfg"  # a number stands for this kind with its scale


@dataclass(frozen=True)
class Guidance(ABC):
    """A kind of guidance with its parameters, before there is a model.

    Args:
        scale: w, at least 0; 1 is no guidance.
        low: Guidance is left out for σ/α ≤ low.
        high: Guidance is left out for σ/α > high.
        threshold: Quantile of `DynamicallyThresholded`, in (0, 1]; None for no thresholding.
    """

    scale: float
    low: float = 0.0
    high: float = math.inf
    threshold: float | None = None

    kind: ClassVar[str]  # the name in texts
    drops_condition: ClassVar[bool] = True  # whether the weak model is the one without a condition
    classifies: ClassVar[bool] = False  # whether `checkpoint` is a classifier

    def __post_init__(self) -> None:
        for field in fields(self):  # 2 and 2.0 are the same guidance
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, float(value))
        Scale(self.scale, self.low, self.high)
        if self.threshold is not None:
            check_number("threshold", self.threshold, above=0, at_most=1)

    @property
    def weights(self) -> Scale:
        """The scale of each noise level."""
        return Scale(self.scale, self.low, self.high)

    @property
    def changes(self) -> bool:
        """Whether the model is another one than the strong model, which it is not at scale 1."""
        return self.scale != 1 or self.threshold is not None or self.classifies

    @property
    def checkpoints(self) -> dict[str, str]:
        """Names or paths of further checkpoints, by parameter."""
        return {}

    @property
    def numbers(self) -> dict[str, Any]:
        """The kind, and all parameters that are set, but the places of checkpoints."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {name: value for name, value in values.items() if value is not None}
        return {"kind": self.kind} | {k: v for k, v in values.items() if k not in self.checkpoints}

    def of(self, model: ScoreModel, **others: ScoreModel | NoisyClassifier) -> Guided:
        """The guided model.

        Args:
            model: The strong model.
            **others: The models of `checkpoints`.
        """
        guided = self._of(model, **others)
        return guided if self.threshold is None else DynamicallyThresholded(guided, self.threshold)

    @abstractmethod
    def _of(self, model: ScoreModel, **others: ScoreModel | NoisyClassifier) -> Guided:
        """The guided model, without thresholding."""

    def in_python(self, model: str) -> str:
        """Python text that makes the guided model, with checkpoints that are loaded.

        Args:
            model: Text of the strong model.
        """
        others = [f", {k}=scoresde.load({v!r}).model" for k, v in self.checkpoints.items()]
        return f"scoresde.parse_guidance({str(self)!r}).of({model}{''.join(others)})"

    def evaluations(self, strong: int, weak: int) -> int:
        """Evaluations of networks that one evaluation takes at most.

        Args:
            strong: Those of the strong model.
            weak: Those of the weak model.
        """
        return strong + (0 if self.scale == 1 else weak)

    def __str__(self) -> str:
        """The shortest text from which `parse_guidance` makes an equal object."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        changed = [
            f"{field.name}={_plain(values[field.name])}"
            for field in fields(self)[1:]
            if values[field.name] != field.default
        ]
        scale = _plain(self.scale)
        first = scale if self.kind == SHORT else f"{self.kind}:scale={scale}"
        return ":".join([first, *changed])


@dataclass(frozen=True)
class ClassifierFreeGuidance(Guidance):
    """Classifier-free guidance; see `ClassifierFree`.

    Args:
        rescale: φ in [0, 1].
    """

    rescale: float = 0.0

    kind: ClassVar[str] = SHORT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rescale", self.rescale, at_least=0, at_most=1)

    def _of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
        """A `ClassifierFree` model."""
        return ClassifierFree(model, self.weights, self.rescale)


@dataclass(frozen=True)
class ProjectedGuidance(Guidance):
    """Adaptive projected guidance; see `Projected`.

    Args:
        norm: Largest length of the difference, above 0.
        parallel: Factor of its parallel part, in [0, 1].
    """

    norm: float = math.inf
    parallel: float = 0.0

    kind: ClassVar[str] = "apg"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm != math.inf:
            check_number("norm", self.norm, above=0)
        check_number("parallel", self.parallel, at_least=0, at_most=1)

    def _of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
        """A `Projected` model."""
        return Projected(model, self.weights, self.norm, self.parallel)


@dataclass(frozen=True, kw_only=True)
class AutoGuidance(Guidance):
    """Autoguidance; see `AutoGuided`.

    Args:
        weak: Name or path of the checkpoint of the weak model.
        rescale: φ in [0, 1].
    """

    weak: str
    rescale: float = 0.0

    kind: ClassVar[str] = "auto"
    drops_condition: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("rescale", self.rescale, at_least=0, at_most=1)

    @property
    def checkpoints(self) -> dict[str, str]:
        """The weak model."""
        return {"weak": self.weak}

    def _of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
        """An `AutoGuided` model."""
        return AutoGuided(model, others["weak"], self.weights, self.rescale)


@dataclass(frozen=True, kw_only=True)
class ClassifierGuidance(Guidance):
    """Guidance by a classifier of noisy data; see `ClassifierGuided`.

    Args:
        checkpoint: Name or path of the checkpoint of the classifier.
    """

    checkpoint: str

    kind: ClassVar[str] = "classifier"
    drops_condition: ClassVar[bool] = False
    classifies: ClassVar[bool] = True

    @property
    def checkpoints(self) -> dict[str, str]:
        """The classifier."""
        return {"checkpoint": self.checkpoint}

    def _of(self, model: ScoreModel, **others: NoisyClassifier) -> Guided:
        """A `ClassifierGuided` model."""
        return ClassifierGuided(model, others["checkpoint"], self.weights)

    def evaluations(self, strong: int, weak: int) -> int:
        """Those of the model: the pass through the classifier is counted as a derivative pass."""
        return strong


GUIDANCES: dict[str, Callable[..., Guidance]] = {
    "cfg": ClassifierFreeGuidance,
    "apg": ProjectedGuidance,
    "auto": AutoGuidance,
    "classifier": ClassifierGuidance,
}


def parse_guidance(text: str | float) -> Guidance:
    """Guidance from `name:key=value:key=value`, or from `scale` or `scale:key=value`.

    Raises:
        ConfigError: If the name or a key is unknown, the scale is missing, or a value is wrong.
    """
    first, colon, rest = str(text).strip().partition(":")
    try:
        float(first)
    except ValueError:
        return construct_named("guidance", str(text), GUIDANCES)
    return construct_named("guidance", f"{SHORT}:scale={first}{colon}{rest}", GUIDANCES)


def _plain(value: Any) -> str:
    """A value as text: all digits of a number, without the end of a whole one."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
