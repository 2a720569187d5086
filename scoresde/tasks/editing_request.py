"""The request of `scoresde edit`, and what follows from it before the network is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .._tensor import check_integer, check_number
from ..editing import edit_choice
from ..fingerprint import file_fingerprint, fingerprint
from ..names.samplers import parse_sampler
from ..output.manifest import Origin, Source
from ..samplers import Sampler
from ..samplers.recommended import Choice
from .given import GivenModel
from .request import HeldOutRequest

__all__ = ["EditRequest", "choices"]

USUAL_N = 8  # data, without files


@dataclass(frozen=True)
class EditRequest(HeldOutRequest):
    """Which data are edited, and how much.

    Without files, the data are held-out ones as in `HeldOutRequest`.

    Args:
        n: Number of data; None for 8, and for all in the files.
        images: Files of data.
        strengths: Times up to which noise is added, in [0, 1]; see `scoresde.edit`.
        samples: Results for each datum and strength.
        sampler: As `parse_sampler` reads it; None for the recommended one.
        nfe: Evaluations of a whole generation, from t = 1; None for 20.
        label: Name or number of the class of all results; None for that of each datum.
        condition: A file with the condition of all results, one row.
        guidance: As `parse_guidance` reads it; None for no guidance.
    """

    n: int | None = None
    images: tuple[str, ...] = ()
    strengths: tuple[float, ...] = (0.3, 0.5, 0.7)
    samples: int = 1
    sampler: str | None = None
    nfe: int | None = None
    label: str | int | None = None
    condition: str | None = None
    guidance: str | None = None

    places: ClassVar[tuple[str, ...]] = (
        *HeldOutRequest.places,
        *("images", "condition", "guidance"),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(map(str, self.images)))
        object.__setattr__(self, "strengths", tuple(self.strengths))
        given = {"--data": self.data, "--n": self.n, "--split": self.split}
        names = [name for name, value in given.items() if value]
        if self.images and names:
            raise ValueError(f"{names[0]}: cannot be given together with --image")
        if self.n is None:
            object.__setattr__(self, "n", USUAL_N)
        super().__post_init__()
        check_integer("--samples:", self.samples, minimum=1)
        if not self.strengths:
            raise ValueError("--strength: must be given at least once")
        for strength in self.strengths:
            check_number("--strength:", strength, at_least=0, at_most=1)

    def origin(
        self, command: str, sources: Mapping[str, Source], shown: Sequence[str] = (), **changed: Any
    ) -> Origin:
        """The origin of the results; of all files the content counts."""
        sources = dict(sources)
        if self.images:
            content = fingerprint([file_fingerprint(file) for file in self.images])
            sources["images"] = Source(", ".join(self.images), content)
        if self.condition is not None:
            sources["condition"] = Source(self.condition, file_fingerprint(self.condition))
        return super().origin(command, sources, shown, **changed)


def choices(request: EditRequest, stored: GivenModel) -> list[Choice | None]:
    """Sampler and times of each strength; None for strength 0.

    Raises:
        ValueError: If they do not fit the model; the message names the option.
    """
    stored.check_score("editing")
    stored.refuse_latents("scoresde edit")
    if stored.spec.sizes is not None:
        raise ValueError(f"--checkpoint: {stored.name} is of sets, which cannot be edited")
    sampler = None if request.sampler is None else _sampler(request, stored)
    return [_choice(request, stored, sampler, strength) for strength in request.strengths]


def _sampler(request: EditRequest, stored: GivenModel) -> Sampler:
    sampler = parse_sampler(request.sampler)
    reason = sampler.refusal(stored.snapped, stored.learned_variance)
    if reason is not None:
        raise ValueError(f"--sampler: {request.sampler} cannot run: {reason}")
    return sampler


def _choice(
    request: EditRequest, stored: GivenModel, sampler: Sampler | None, strength: float
) -> Choice | None:
    """`edit_choice`, whose errors name the option."""
    try:
        return edit_choice(stored, strength, sampler, request.nfe, stored.spec.shape)
    except ValueError as error:
        name, _, reason = str(error).partition(" ")
        if name not in ("nfe", "strength"):
            raise
        value = request.nfe if name == "nfe" else f"{strength:g}"
        reason = reason.replace(f", got {strength:g}", "").replace(f", got {request.nfe}", "")
        raise ValueError(f"--{name}: {value}, but it {reason}") from error
