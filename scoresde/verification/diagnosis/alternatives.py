"""The mistakes that the doctor knows: readings that differ from a given one in one convention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...score.preconditioning import INDEX_LABELS
from .data_map import changes
from .points import Points
from .processes import LADDER, processes, scaled_process, sde_in_words
from .reading import Reading, Subject
from .velocities import Said, flows, of_other_target, turned, velocities
from .words import TARGETS, label_in_words, straight, target_in_words

__all__ = ["FACTORS", "SHIFT", "SINE", "Alternative", "alternatives", "levels_of_label"]

FACTORS = tuple(2**power for power in (-2, -1, -0.5, -0.25, 0.25, 0.5, 1, 2))
SHIFT = "label shift"  # family of small changes of the label, see `shifts`
SINE = "sine and cosine exchanged"  # a set of weights, see `embedding`


@dataclass(frozen=True)
class Alternative:
    """A reading that differs from another one in one convention.

    Attributes:
        family: The convention: "target", "output", "label", "label shift", "noise level",
            "schedule", "input", "data", "classes" or "weights".
        says: The mistake in words, if this reading is the right one, compared with the claim.
        reading: The reading.
        fix: What to do.
        vary: The same alternative with another factor, if it is one of a continuous family.
        factor: The factor of this one.
    """

    family: str
    says: str
    reading: Reading
    fix: str
    vary: Callable[[float], Alternative] | None = None
    factor: float = 1.0


def alternatives(subject: Subject, reading: Reading, points: Points) -> list[Alternative]:
    """All readings that differ from the given one in one convention, the same one left out.

    Args:
        subject: The model, whose claim the words refer to.
        reading: The reading from which they differ.
        points: The data.
    """
    claim, network = subject.claim, subject.is_network
    found = [
        *(_inputs(reading) if network else ()),
        *_targets(reading, claim, points),
        *_outputs(reading),
        *(_labels(reading, claim) if network else ()),
        *_shifts(reading, network),
        *_noise_levels(reading),
        *_schedules(reading, claim),
        *(_of("schedule", said) for said in (flows(reading, claim) if network else ())),
        *_data(reading, points),
        *_classes(reading, subject, points),
        *_weights(reading, subject),
    ]
    seen, kept = {reading}, []
    for alternative in found:
        if alternative.reading not in seen:
            seen.add(alternative.reading)
            kept.append(alternative)
    return kept


def _with(reading: Reading, **changed: object) -> Reading:
    """The reading with another meaning of the network's call."""
    return replace(reading, meaning=replace(reading.meaning, **changed))


def _varied(make: Callable[[float], Alternative]) -> Iterator[Alternative]:
    """One alternative for each usual factor, which the search may refine."""
    for factor in FACTORS:
        yield replace(make(factor), vary=make, factor=factor)


def _targets(reading: Reading, claim: Reading, points: Points) -> Iterator[Alternative]:
    now = reading.meaning
    for target in TARGETS:
        # EDM's input is scaled; other targets occur with both inputs
        scalings = {now.scale_input if target == now.target else target == "edm"}
        scalings |= {True, False} if now.target == "edm" != target else set()
        usual = (now.sigma_data, 0.5, 1.0, round(points.std, 3))
        for sigma_data in usual if target == "edm" else usual[:1]:
            for scaled in sorted(scalings | ({now.scale_input} if target != "edm" else set())):
                for gain in (1.0, -1.0):
                    new = {"target": target, "gain": gain} | of_other_target()
                    new |= {"sigma_data": sigma_data, "scale_input": scaled}
                    yield _target(_with(reading, **new), claim)
    yield from (_of("target", said) for said in velocities(reading, claim))
    for gain in () if straight(reading.sde) else (1.0, -1.0):
        new = {"velocity": True, "gain": gain, "target": "eps", "velocity_sign": None}
        yield _target(_with(reading, **new), claim)
    if now.target == "edm":
        yield from _varied(
            lambda f: _target(_with(reading, sigma_data=f * now.sigma_data), claim),
        )


def _of(family: str, said: Said) -> Alternative:
    return Alternative(family, said.says, said.reading, said.fix)


def _target(other: Reading, claim: Reading) -> Alternative:
    """The alternative of another target or another σ_data."""
    new, was = other.meaning, claim.meaning
    words, before = target_in_words(other), target_in_words(replace(claim, sde=other.sde))
    says = f"the network predicts {words}, not {before}"
    fix = f'set preconditioning.target = "{new.target}"'
    if new.target == "edm":
        fix += f" and sigma_data = {new.sigma_data:.3g}"
        if words == before:
            says = f"σ_data looks like {new.sigma_data:.3g}, not {was.sigma_data:.3g}"
        elif new.sigma_data != was.sigma_data:
            says += f", with σ_data = {new.sigma_data:.3g}"
    if new.scale_input != was.scale_input:
        fix += f" and scale_input = {str(new.scale_input).lower()}"
    if new.gain < 0:
        fix = f"negate the output of the network, and {fix}"
    if new.velocity:
        fix = "convert the velocity: ε = (x + α F)/(α + σ) for F = ε − x0"
    return Alternative("target", says, other, fix)


def _outputs(reading: Reading) -> Iterator[Alternative]:
    def scaled(factor: float) -> Alternative:
        gain = reading.meaning.gain * factor
        says = f"the output of the network is {gain:.3g} times what it should be"
        fix = f"divide the output of the network by {gain:.3g}"
        return Alternative("output", says, _with(reading, gain=gain), fix)

    yield from _varied(scaled)


def levels_of_label(reading: Reading) -> int | None:
    """Number of labels of a network of an index or a time; None for other labels."""
    meaning = reading.meaning
    if meaning.label in INDEX_LABELS:
        return reading.sde.levels
    if meaning.label != "time":
        return None
    known = reading.sde.levels or round(abs(meaning.label_scale))
    return known if known >= 100 else LADDER


def _labels(reading: Reading, claim: Reading) -> Iterator[Alternative]:
    """Other kinds of label, other factors, and another constant in a logarithm."""
    now = reading.meaning
    kinds = [("log_sigma", f) for f in (1.0, -1.0, 2.0, -2.0)] + [("edm", 1.0), ("sigma", 1.0)]
    kinds += [("time", f) for f in (1.0, 999.0, 1000.0)]
    if reading.sde.levels is not None:
        kinds += [("index", f) for f in (1.0, 1 / reading.sde.levels)]
    kinds += [(now.label, f * now.label_scale) for f in (1000.0, 1e-3)]
    for label, factor in kinds:
        yield _label(reading, claim, label=label, label_scale=factor, label_offset=0.0)
    scale, offset = now.label_scale, now.label_offset
    yield from _varied(lambda f: _label(reading, claim, label_scale=f * scale))
    if now.label in ("log_sigma", "edm"):
        unit = 1.0 if now.label == "log_sigma" else 0.25
        yield from _varied(
            lambda f: _label(reading, claim, label_offset=offset + unit * math.log(f))
        )


def _label(reading: Reading, claim: Reading, **changed: object) -> Alternative:
    """The alternative of another label."""
    if changed.get("label", "time") != "time":
        reading = replace(reading, meaning=turned(reading.meaning, 0))
    other = _with(reading, reversed=False, **changed)
    new, was = other.meaning, claim.meaning
    said = label_in_words(new)
    says = f"the label looks like {said}, not {label_in_words(was)}"
    if (new.label, new.label_offset, was.reversed) == (was.label, was.label_offset, False):
        ratio = new.label_scale / was.label_scale
        says = f"the label's scale is wrong: it looks like {said}, {ratio:.3g} times the claimed"
    fix = f'set preconditioning.label = "{new.label}" and label_scale = {new.label_scale:.4g}'
    if new.label_offset != was.label_offset:
        fix += f" and label_offset = {new.label_offset:.3g}"
    return Alternative("label", says, other, fix)


def _shifts(reading: Reading, network: bool) -> Iterator[Alternative]:
    """Labels of the reversed time, and labels that are shifted by one.

    Args:
        reading: The present reading.
        network: Whether the label is that of a network, which metadata can state.
    """
    now = reading.meaning
    says = "the direction of time is wrong: the label runs from noise to data"
    other, fix = (
        _with(reading, reversed=not now.reversed),
        "turn the label round, 1 − t or N − 1 − i",
    )
    if network and now.label == "time" and not now.reversed:
        other = replace(reading, meaning=turned(now, 1 - now.data_at))
        fix = f"set preconditioning.data_at = {1 - now.data_at}"
    yield Alternative("label", says, other, fix)
    levels = levels_of_label(reading)
    if levels is None:
        return
    for sign, word in ((1, "small"), (-1, "large")):
        one = sign if now.label in INDEX_LABELS else sign / levels
        other = _with(reading, label_offset=now.label_offset + one)
        unit = "one" if now.label in INDEX_LABELS else f"one of {levels} levels"
        says = f"the labels look shifted by {unit}: those of the claim are too {word}"
        verb = f"{'add' if sign > 0 else 'subtract'} {abs(one) * abs(now.label_scale):g}"
        fix = f"{verb} {'to' if sign > 0 else 'from'} the label"
        if network:
            fix = f"set preconditioning.label_offset = {other.meaning.label_offset:g}"
        yield Alternative(SHIFT, says, other, fix)
    if network and now.label == "time" and abs(now.label_scale) > 1:
        for factor in ((levels - 1) / levels, levels / (levels - 1)):
            label = _label(reading, reading, label_scale=now.label_scale * factor)
            yield replace(label, family=SHIFT)


def _noise_levels(reading: Reading) -> Iterator[Alternative]:
    def scaled(factor: float) -> Alternative:
        noise = reading.noise * factor
        says = f"σ is scaled: the network acts as if the noise were {noise:.3g} σ"
        fix = f"check σ of the schedule, whose ratio σ/α should be {noise:.3g} times as large"
        return Alternative("noise level", says, replace(reading, noise=noise), fix)

    yield from _varied(scaled)


def _inputs(reading: Reading) -> Iterator[Alternative]:
    now = reading.meaning
    if now.target == "denoiser":
        return
    scaled = "x/√(α² σ_data² + σ²)" if now.target == "edm" else "x/√(α² + σ²)"
    right, wrong = ("x", scaled) if now.scale_input else (scaled, "x")
    says = f"the network takes {right}, not {wrong}"
    fix = f"set preconditioning.scale_input = {str(not now.scale_input).lower()}"
    yield Alternative("input", says, _with(reading, scale_input=not now.scale_input), fix)


def _schedules(reading: Reading, claim: Reading) -> Iterator[Alternative]:
    def another(name: str, sde: object) -> Alternative:
        says = f"the schedule looks like {name}, not {sde_in_words(claim.sde)}"
        return Alternative("schedule", says, replace(reading, sde=sde), f"set the SDE to {name}")

    for name, sde in processes(reading):
        yield another(name, sde)
    if reading.meaning.label in (*INDEX_LABELS, "time") and scaled_process(reading.sde, 0.5):
        yield from _varied(lambda f: another(*scaled_process(reading.sde, f)))


def _data(reading: Reading, points: Points) -> Iterator[Alternative]:
    for says, data, fix in changes(reading.data, points):
        yield Alternative("data", says, replace(reading, data=data), fix)


def _classes(reading: Reading, subject: Subject, points: Points) -> Iterator[Alternative]:
    """Class labels that are shifted by one, and none."""
    if points.y is None or not subject.model.condition.classes:
        return
    for by, word, verb in ((1, "small", "add 1 to"), (-1, "large", "subtract 1 from")):
        says = f"the class labels look shifted by one: those of the data are too {word}"
        other = replace(reading, classes=by)
        yield Alternative("classes", says, other, f"{verb} the class labels")
    if subject.model.unconditional:
        says = "the class labels do not belong to the data: without them the error is smaller"
        other = replace(reading, classes=None)
        yield Alternative(
            "classes", says, other, "compare the names of the classes and their order"
        )


def _weights(reading: Reading, subject: Subject) -> Iterator[Alternative]:
    for name in subject.weights:
        says = f"these are not the averaged weights: the set {name!r} of the same file is better"
        fix = f"use the weights {name!r}"
        if name == SINE:
            says = "sine and cosine are in the wrong order in the embedding of the label"
            fix = "exchange the halves of the embedding (flip_sin_to_cos in diffusers)"
        yield Alternative("weights", says, replace(reading, weights=name), fix)
