"""Readings of a network of flow matching: which time it takes, and which sign it has.

Two conventions are in use, and each is sometimes mixed with the other one:

    t = 0 at the data      x = (1 − t) x_0 + t ε       dx/dt = ε − x_0
    τ = 1 at the data      x = τ x_0 + (1 − τ) ε       dx/dτ = x_0 − ε

`Preconditioning` says them by `data_at` and `velocity_sign`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from ...score.preconditioning import INDEX_LABELS
from ...sde import Linear
from .reading import Meaning, Reading
from .words import natural_sign, sign_of, straight, target_in_words

__all__ = ["Said", "flows", "of_other_target", "turned", "velocities"]

_SCALES = (1.0, 1000.0)  # labels of networks of flow matching: t, and 1000 t


class Said(NamedTuple):
    """A reading, the mistake in words if it is the right one, and what to do."""

    says: str
    reading: Reading
    fix: str


def of_other_target() -> dict[str, object]:
    """Settings of a meaning whose target is no velocity."""
    return {"velocity": False, "velocity_sign": None}


def turned(meaning: Meaning, data_at: int) -> Meaning:
    """The meaning with another time at the data, whose velocity keeps its sign."""
    sign = sign_of(meaning)
    if meaning.target != "velocity" or sign == natural_sign(data_at):
        sign = None
    return replace(meaning, data_at=data_at, velocity_sign=sign)


def velocities(reading: Reading, claim: Reading) -> Iterator[Said]:
    """The network as a velocity, with both times and both signs.

    Args:
        reading: The reading from which they differ.
        claim: What the model states, to which the words refer.
    """
    now = reading.meaning
    for data_at, sign in product((0, 1) if now.label == "time" else (0,), (None, 1, -1)):
        if sign == natural_sign(data_at):  # None says this too
            continue
        new = replace(
            now,
            **{"target": "velocity", "gain": 1.0, "velocity": False},
            **{"data_at": data_at, "velocity_sign": sign},
        )
        if now.target == "velocity" and (data_at, sign_of(new)) == (now.data_at, sign_of(now)):
            continue
        other = replace(reading, meaning=new)
        yield Said(_mistake(other, claim), other, _fix(new, claim.meaning))


def flows(reading: Reading, claim: Reading) -> Iterator[Said]:
    """A network of flow matching whose schedule and target, and perhaps label, are stated wrongly.

    Only of networks whose label runs like a time. Other labels would have to be wrong as well, and
    an alternative that changes everything at once may look right by chance.
    """
    if straight(reading.sde) or reading.meaning.label not in ("time", *INDEX_LABELS):
        return
    for data_at, scale in product((0, 1), _SCALES):
        new = replace(
            reading.meaning,
            **{"target": "velocity", "label": "time", "scale_input": False},
            **{"label_scale": scale, "label_offset": 0.0, "data_at": data_at},
            **{"gain": 1.0, "velocity": False, "reversed": False, "velocity_sign": None},
        )
        other = replace(reading, sde=Linear(), meaning=new)
        says = f"this is a network of flow matching: it predicts {target_in_words(other)}, and its "
        says += f"time is {data_at} at the data"
        fix = f'set the SDE to Linear(), target = "velocity", label = "time", data_at = {data_at}'
        yield Said(says, other, f"{fix}, label_scale = {scale:g} and scale_input = false")


def _mistake(other: Reading, claim: Reading) -> str:
    """What differs from the claim, if the other reading is right."""
    new, was = other.meaning, claim.meaning
    word, before = target_in_words(other), target_in_words(replace(claim, sde=other.sde))
    if was.target != "velocity":
        says = f"the network predicts {word}, not {before}"
        return says + (", and its time is 1 at the data" if new.data_at == 1 else "")
    if new.data_at == was.data_at:
        return f"the velocity has the other sign: the network predicts {word}, not {before}"
    says = f"the network's time is {new.data_at} at the data, not {was.data_at}"
    if word == before:
        return f"{says}, and it predicts {word} as claimed"
    return f"{says}, and it predicts {word}, not {before}: the other convention of flow matching"


def _fix(new: Meaning, was: Meaning) -> str:
    """The settings of `Preconditioning` or `wrap`."""
    changes = [] if was.target == "velocity" else ['target = "velocity"']
    if new.data_at != was.data_at:
        changes.append(f"data_at = {new.data_at}")
    if new.velocity_sign != was.velocity_sign:
        changes.append(f"velocity_sign = {new.velocity_sign}")
    return f"set preconditioning.{' and '.join(changes or ['velocity_sign = None'])}"
