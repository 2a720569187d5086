"""Guidance from text, for the command line and the benchmarks.

2                                classifier-free guidance of scale 2
2:rescale=0.7:low=0.2:high=5     with parameters
cfg:scale=2                      the same by its name
apg:scale=3:norm=10              adaptive projected guidance
auto:scale=2:weak=PATH           autoguidance by a weaker checkpoint
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .._tensor import check_number
from ..guidance import AutoGuided, ClassifierFree, Guided, Projected, Scale
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
    """

    scale: float
    low: float = 0.0
    high: float = math.inf

    kind: ClassVar[str]  # the name in texts
    drops_condition: ClassVar[bool] = True  # whether the weak model is the one without a condition

    def __post_init__(self) -> None:
        for field in fields(self):  # 2 and 2.0 are the same guidance
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, float(value))
        Scale(self.scale, self.low, self.high)

    @property
    def weights(self) -> Scale:
        """The scale of each noise level."""
        return Scale(self.scale, self.low, self.high)

    @property
    def checkpoints(self) -> dict[str, str]:
        """Names or paths of further checkpoints, by parameter."""
        return {}

    @property
    def numbers(self) -> dict[str, Any]:
        """The kind, and all parameters but the places of checkpoints."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {k: v for k, v in values.items() if k not in self.checkpoints}

    @abstractmethod
    def of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
        """The guided model.

        Args:
            model: The strong model.
            **others: The models of `checkpoints`.
        """

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

    def of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
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

    def of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
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

    def of(self, model: ScoreModel, **others: ScoreModel) -> Guided:
        """An `AutoGuided` model."""
        return AutoGuided(model, others["weak"], self.weights, self.rescale)


GUIDANCES: dict[str, Callable[..., Guidance]] = {
    "cfg": ClassifierFreeGuidance,
    "apg": ProjectedGuidance,
    "auto": AutoGuidance,
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
