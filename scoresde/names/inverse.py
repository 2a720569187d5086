"""Methods for inverse problems from text, for the command line.

pigdm                  a name
dps:scale=20           with a parameter
smc:particles=4        a method that is a sampler of its own, as ddrm, replacement and repaint are
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from .._tensor import check_number
from ..data import DataSpec
from ..inverse import (
    DDNM,
    DDRM,
    DPS,
    Measured,
    Operator,
    PiGDM,
    RePaint,
    Replacement,
    TwistedSMC,
)
from ..plain import construct_named
from ..samplers import Sampler
from ..score import ScoreModel

__all__ = ["METHODS", "InverseMethod", "parse_method"]

QUARTER = 4  # of the range of quantized data is about their standard deviation
FEW_PIXELS = 64  # for which PiGDM's v was chosen


@dataclass(frozen=True)
class InverseMethod(ABC):
    """A method with its parameters, before there is a model."""

    name: ClassVar[str]  # in texts
    differentiates: ClassVar[bool] = False  # whether it divides by α
    uses_noise: ClassVar[bool] = True
    filters: ClassVar[bool] = False  # whether it needs the singular values of A

    @property
    def sampler(self) -> Sampler | None:
        """The sampler that the method is; None if any sampler runs it."""
        return None

    def for_data(self, spec: DataSpec) -> InverseMethod:
        """This method with a variance that suits the data, if it has one that is not given."""
        return self

    def refusal(self, noise: float) -> str | None:
        """Why the method cannot run with this noise of the measurement, or None."""
        return None

    def of(self, model: ScoreModel, operator: Operator, noise: float) -> ScoreModel:
        """The model that the sampler runs on: by default, a `Measured` one for `sampler`."""
        return Measured(model, operator, noise)


@dataclass(frozen=True)
class _WithVariance(InverseMethod):
    """A method that takes the data for N(m, v I).

    Args:
        data_var: v at the model's scale, above 0; None for 1, or for quantized data a sixteenth of
            their squared range. Around the mean of each pixel the digits have 0.26 on [−1, 1], and
            Fashion-MNIST 0.35.
    """

    data_var: float | None = None

    def __post_init__(self) -> None:
        if self.data_var is not None:
            check_number("data_var", self.data_var, above=0)

    def for_data(self, spec: DataSpec) -> InverseMethod:
        """This method with a variance."""
        return replace(self, data_var=self.data_var or self._usual_variance(spec))

    @staticmethod
    def _usual_variance(spec: DataSpec) -> float:
        return 1.0 if spec.levels is None else (spec.span / QUARTER) ** 2


@dataclass(frozen=True)
class PiGDMMethod(_WithVariance):
    """Pseudo-inverse guidance; see `PiGDM`.

    The usual v is larger for images of more than 8×8 pixels, in proportion to their number. Their
    smooth components have a variance far above that of a pixel. For a small v the guidance at large
    σ/α is too strong by about the ratio of both, and gives hidden parts of 32×32 images saturated
    colours. This rule was fitted to few cases: of v = 1/4, 1 and 4 the first had the best mean on
    12 digits of 8×8 pixels, and 4 a better one than 1/4 on one image of 32×32.
    """

    name: ClassVar[str] = "pigdm"
    differentiates: ClassVar[bool] = True

    @staticmethod
    def _usual_variance(spec: DataSpec) -> float:
        pixels = math.prod(spec.shape[1:]) if spec.is_image else 0
        return _WithVariance._usual_variance(spec) * max(1.0, pixels / FEW_PIXELS)

    def of(self, model: ScoreModel, operator: Operator, noise: float) -> ScoreModel:
        """The guided model."""
        return PiGDM(model, operator, noise, self.data_var)


@dataclass(frozen=True)
class DDNMMethod(_WithVariance):
    """The null-space model; see `DDNM`."""

    name: ClassVar[str] = "ddnm"

    def of(self, model: ScoreModel, operator: Operator, noise: float) -> ScoreModel:
        """The guided model."""
        return DDNM(model, operator, noise, self.data_var)


@dataclass(frozen=True)
class DPSMethod(InverseMethod):
    """Diffusion posterior sampling; see `DPS`.

    Args:
        scale: Of the gradient, at least 0, in units of 1/y at the model's scale; None for √M/noise.
    """

    scale: float | None = None

    name: ClassVar[str] = "dps"
    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number("scale", self.scale, at_least=0)

    def refusal(self, noise: float) -> str | None:
        """The scale must be known."""
        if self.scale is not None or noise > 0:
            return None
        return "its scale is √M/noise; give one, as in dps:scale=20"

    def of(self, model: ScoreModel, operator: Operator, noise: float) -> ScoreModel:
        """The guided model."""
        numbers = math.prod(operator.measured)
        return DPS(
            model, operator, math.sqrt(numbers) / noise if self.scale is None else self.scale
        )


@dataclass(frozen=True)
class DDRMMethod(InverseMethod):
    """Denoising diffusion restoration; see `DDRM`.

    Args:
        eta: η in [0, 1].
        eta_b: η_b in [0, 1].
    """

    eta: float = 0.85
    eta_b: float = 1.0

    name: ClassVar[str] = "ddrm"
    filters: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self.sampler  # checks the numbers

    @property
    def sampler(self) -> Sampler:
        """The sampler."""
        return DDRM(self.eta, self.eta_b)


@dataclass(frozen=True)
class ReplacementMethod(InverseMethod):
    """Replacement of what is measured; see `Replacement`."""

    name: ClassVar[str] = "replacement"
    uses_noise: ClassVar[bool] = False

    @property
    def sampler(self) -> Sampler:
        """The sampler."""
        return Replacement()


@dataclass(frozen=True)
class RePaintMethod(InverseMethod):
    """Replacement with repeated steps; see `RePaint`.

    Args:
        repeats: How often a step is done, at least 1.
        jump: Steps between two repetitions, at least 1.
    """

    repeats: int = 5
    jump: int = 5

    name: ClassVar[str] = "repaint"
    uses_noise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _ = self.sampler  # checks the numbers

    @property
    def sampler(self) -> Sampler:
        """The sampler."""
        return RePaint(self.repeats, self.jump)


@dataclass(frozen=True)
class SMCMethod(_WithVariance):
    """Twisted sequential Monte Carlo; see `TwistedSMC`.

    Args:
        particles: Particles of each sample, at least 1; each costs evaluations.
        resample: Share of effective particles below which they are resampled, in [0, 1].
    """

    particles: int = 8
    resample: float = 0.5

    name: ClassVar[str] = "smc"
    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.sampler  # checks the numbers

    @property
    def sampler(self) -> Sampler:
        """The sampler."""
        return TwistedSMC(self.particles, self.resample, self.data_var or 1.0)

    def refusal(self, noise: float) -> str | None:
        """The measurement must have a density."""
        return None if noise > 0 else "it weights particles by the density of the measurement"


_KINDS = (
    *(PiGDMMethod, DPSMethod, DDNMMethod, DDRMMethod),
    *(ReplacementMethod, RePaintMethod, SMCMethod),
)
METHODS: dict[str, Callable[..., InverseMethod]] = {kind.name: kind for kind in _KINDS}


def parse_method(text: str) -> InverseMethod:
    """A method from `name` or `name:key=value:key=value`.

    Raises:
        ConfigError: If the name or a key is unknown, or a value is wrong.
    """
    return construct_named("method", text, METHODS)
