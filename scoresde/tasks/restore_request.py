"""The request of `scoresde restore`, and what follows from it before the network is built."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from .._tensor import check_integer, check_number
from ..data import DataSpec
from ..fingerprint import file_fingerprint, fingerprint
from ..inverse import Operator
from ..names.inverse import InverseMethod, parse_method
from ..names.operators import Measurement, parse_operator
from ..names.samplers import parse_sampler
from ..output.manifest import Origin, Source
from ..samplers import DDIM, Sampler
from ..samplers.choice import choose
from ..samplers.recommended import Choice
from ..sde import SDE
from .given import GivenModel
from .request import HeldOutRequest

__all__ = ["RestoreRequest", "Settings", "choose_settings"]

USUAL_N = 8  # data, without files
USUAL_NFE = 50  # ancestral steps need more evaluations than those of an ODE
ANCESTRAL = DDIM(eta=1.0)


@dataclass(frozen=True)
class RestoreRequest(HeldOutRequest):
    """What is measured of which data, and how samples given the measurement are drawn.

    Without files, the data are held-out ones as in `HeldOutRequest`.

    Args:
        operator: As `parse_operator` reads it.
        n: Number of data; None for 8, and for all in the files.
        images: Files of whole data, which are measured here.
        measurements: Files of measurements.
        noise: Standard deviation of the noise, in the unit of the measurements; see `Values`.
        samples: Samples for each measurement.
        method: As `parse_method` reads it.
        sampler: As `parse_sampler` reads it; None for ancestral steps.
        nfe: Evaluations for each sample; None for 50.
        label: Name or number of the class of all data, for conditional models.
        condition: A file with the condition of all data, one row.
    """

    operator: str = field(kw_only=True)
    n: int | None = None
    images: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    noise: float = 0.05
    samples: int = 16
    method: str = "pigdm"
    sampler: str | None = None
    nfe: int | None = None
    label: str | int | None = None
    condition: str | None = None

    places: ClassVar[tuple[str, ...]] = (
        *HeldOutRequest.places,
        *("operator", "images", "measurements", "condition"),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(map(str, self.images)))
        object.__setattr__(self, "measurements", tuple(map(str, self.measurements)))
        given = {
            "--image": self.images,
            "--measurement": self.measurements,
            "--data": self.data,
            "--n": self.n,
            "--split": self.split,
        }
        names = [name for name, value in given.items() if value]
        if self.from_files and len(names) > 1:
            raise ValueError(f"{names[1]}: cannot be given together with {names[0]}")
        if self.n is None:
            object.__setattr__(self, "n", USUAL_N)
        super().__post_init__()
        check_integer("--samples:", self.samples, minimum=1)
        check_number("--noise:", self.noise, at_least=0)

    @property
    def from_files(self) -> bool:
        """Whether files were given."""
        return bool(self.images or self.measurements)

    def origin(
        self, command: str, sources: Mapping[str, Source], shown: Sequence[str] = (), **changed: Any
    ) -> Origin:
        """The origin of the results; of all files the content counts."""
        sources, what = dict(sources), parse_operator(self.operator)
        for name in ("images", "measurements"):
            if files := getattr(self, name):
                content = fingerprint([file_fingerprint(file) for file in files])
                sources[name] = Source(", ".join(files), content)
        if what.file is not None:
            sources["mask"] = Source(what.file, file_fingerprint(what.file))
        if self.condition is not None:
            sources["condition"] = Source(self.condition, file_fingerprint(self.condition))
        return super().origin(command, sources, shown, measurement=what.settings, **changed)


@dataclass(frozen=True)
class Settings:
    """A checked request: operator, method, sampler and times.

    Attributes:
        operator: A on samples of the model.
        method: The method, with the variance of the data.
        chosen: Sampler and times.
    """

    operator: Operator
    method: InverseMethod
    chosen: Choice


@dataclass(frozen=True)
class _Facts:
    """What the choice of times needs to know of a model that is not built."""

    sde: SDE
    data: DataSpec
    t_least: float
    t_most: float
    snapped: bool
    evaluations: int = 1
    shape: None = None


def choose_settings(request: RestoreRequest, stored: GivenModel) -> Settings:
    """Operator, method, sampler and times of a request.

    Raises:
        ValueError: If they do not fit the data, the model or one another; the message names the
            option.
    """
    spec = stored.spec
    if spec.sizes is not None:
        raise ValueError(f"--checkpoint: {stored.name} is of sets, of which nothing is measured")
    operator = _operator(request, parse_operator(request.operator), spec)
    method = parse_method(request.method).for_data(spec)
    reason = method.refusal(request.noise)
    if reason is not None:
        raise ValueError(f"--noise: must be above 0 for {request.method}, got 0: {reason}")
    if request.noise > 0 and not method.uses_noise:
        warnings.warn(
            f"--method: {request.method} takes the measurement as exact, so that its noise of "
            f"{request.noise:g} stays in the samples",
            stacklevel=2,
        )
    if method.filters:
        _check_filter(request, operator)
    return Settings(operator, method, _choice(request, stored, method))


def _operator(request: RestoreRequest, what: Measurement, spec: DataSpec) -> Operator:
    try:
        return what.of(spec.shape)
    except OSError as error:
        raise ValueError(f"--operator: {what.file}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"--operator: {request.operator}: {error}") from error


def _check_filter(request: RestoreRequest, operator: Operator) -> None:
    """Raise unless the singular values of the operator are known."""
    try:
        operator.filter(torch.zeros(1, *operator.shape), torch.ones_like)
    except ValueError as error:
        raise ValueError(f"--method: {request.method}: {error}") from error


def _choice(request: RestoreRequest, stored: GivenModel, method: InverseMethod) -> Choice:
    """Sampler and times."""
    sampler = method.sampler
    if sampler is not None and request.sampler is not None:
        raise ValueError(
            f"--sampler: {request.sampler}, but {request.method} is a sampler itself; pigdm, dps "
            "and ddnm run with any sampler"
        )
    if sampler is None:
        sampler = ANCESTRAL if request.sampler is None else parse_sampler(request.sampler)
    reason = sampler.refusal(stored.snapped, False)
    if reason is not None:
        option = "--method" if request.sampler is None else "--sampler"
        value = request.method if request.sampler is None else request.sampler
        raise ValueError(f"{option}: {value} cannot run: {reason}")
    t_most = min(stored.t_most, stored.sde.t_regular) if method.differentiates else stored.t_most
    facts = _Facts(stored.sde, stored.spec, stored.t_least, t_most, stored.snapped)
    return _completed(request, facts, sampler)


def _completed(request: RestoreRequest, facts: _Facts, sampler: Sampler) -> Choice:
    """The times that are recommended for a sampler and a number of evaluations."""
    nfe = request.nfe
    if nfe is None and not sampler.adaptive:
        nfe = USUAL_NFE
    try:
        return choose(facts, sampler, None, nfe)
    except ValueError as error:
        if not str(error).startswith("nfe "):
            raise
        reason = str(error).removeprefix("nfe ").rpartition(", got ")[0]
        raise ValueError(f"--nfe: {nfe}, but it {reason}") from error
