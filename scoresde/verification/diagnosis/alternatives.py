"""The mistakes that the doctor knows: readings that differ from a given one in one convention."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..._tensor import equally_spaced
from ...score.preconditioning import INDEX_LABELS
from ...sde import SDE, VE, VP, CosineVP, SubVP, TabulatedVP, cosine_betas
from .points import Points
from .reading import Meaning, Reading, Subject

__all__ = ["SHIFT", "Alternative", "alternatives", "levels_of_label"]

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 0.5))
NOISE_FACTORS = (0.5, 0.5**0.5, 2**0.5, 2.0)
SIGMA_DATA = (0.8, 0.9, 1.1, 1.25)  # factors of the σ_data of a reading
SHIFT = "label shift"  # family of labels shifted by one
LADDER = 1000  # levels of a network of times, whose ladder is not known
TARGETS = {"eps": "ε", "x0": "x0", "v": "v", "score": "the score", "edm": "EDM's F"}


@dataclass(frozen=True)
class Alternative:
    """A reading that differs from another one in one convention.

    Attributes:
        family: The convention: "target", "label", "label shift", "noise level", "schedule",
            "input", "data" or "weights".
        says: The mistake in words, if this reading is the right one.
        reading: The reading.
        fix: What to do.
    """

    family: str
    says: str
    reading: Reading
    fix: str


def alternatives(subject: Subject, reading: Reading, points: Points) -> list[Alternative]:
    """All readings that differ from the given one in one convention, the same one left out."""
    found = [
        *_targets(reading, points),
        *(_labels(reading) if subject.is_network else ()),
        *_shifts(reading, subject.is_network),
        *_noise_levels(reading),
        *(_inputs(reading) if subject.is_network else ()),
        *_schedules(reading),
        *_ranges(reading, points),
        *_weights(reading, subject),
    ]
    seen, kept = {reading}, []
    for alternative in found:
        if alternative.reading not in seen:
            seen.add(alternative.reading)
            kept.append(alternative)
    return kept


def _with(reading: Reading, **changes: object) -> Reading:
    """The reading with another meaning of the network's call."""
    return replace(reading, meaning=replace(reading.meaning, **changes))


def _targets(reading: Reading, points: Points) -> Iterator[Alternative]:
    now = reading.meaning
    was = target_in_words(now)
    for target in TARGETS:
        for sign in (1, -1):
            for sigma_data in _sigma_data(now, points) if target == "edm" else (now.sigma_data,):
                scaled = now.scale_input if target != "edm" else True
                new = {"target": target, "sign": sign, "velocity": False}
                new |= {"sigma_data": sigma_data, "scale_input": scaled}
                other = _with(reading, **new)
                says = f"the network predicts {target_in_words(other.meaning)}, not {was}"
                if (target, sign) == (now.target, now.sign) and not now.velocity:
                    says = f"σ_data looks like {sigma_data:.3g}, not {now.sigma_data:.3g}"
                own = f"sigma_data = {sigma_data:.3g}" if target == "edm" else ""
                fix = f'set preconditioning.target = "{target}"' + (f" and {own}" if own else "")
                if sign < 0:
                    fix = f"negate the output of the network, and {fix}"
                yield Alternative("target", says, other, fix)
    for sign in (1, -1):
        other = _with(reading, velocity=True, sign=sign)
        says = f"the network predicts {target_in_words(other.meaning)}, not {was}"
        fix = "convert the velocity: ε = (x + α F)/(α + σ) for F = ε − x0"
        yield Alternative("target", says, other, fix)


def _sigma_data(now: Meaning, points: Points) -> list[float]:
    """Values of σ_data: usual ones, that of the data, and near ones."""
    near = [now.sigma_data * factor for factor in SIGMA_DATA] if now.target == "edm" else []
    return [now.sigma_data, 0.5, 1.0, round(points.std, 3), *near]


def target_in_words(meaning: Meaning) -> str:
    """What the network predicts, with its sign."""
    word = "the velocity ε − x0" if meaning.velocity else TARGETS.get(meaning.target, "x0")
    return word if meaning.sign > 0 else f"minus {word}" if " − " not in word else "x0 − ε"


def levels_of_label(reading: Reading) -> int | None:
    """Number of labels of a network of an index or a time; None for other labels."""
    meaning = reading.meaning
    if meaning.label in INDEX_LABELS:
        return reading.sde.levels
    if meaning.label != "time":
        return None
    known = reading.sde.levels or round(abs(meaning.label_scale))
    return known if known >= 100 else LADDER


def _labels(reading: Reading) -> Iterator[Alternative]:
    """Other kinds of label, and other factors."""
    now = reading.meaning
    kinds = [("log_sigma", f) for f in (1.0, -1.0, 2.0, -2.0)] + [("edm", 1.0), ("sigma", 1.0)]
    kinds += [("time", f) for f in (1.0, 999.0, 1000.0)]
    if reading.sde.levels is not None:
        kinds += [("index", f) for f in (1.0, 1 / reading.sde.levels)]
    kinds += [(now.label, f * now.label_scale) for f in (2.0, 0.5, 1000.0, 1e-3)]
    for label, factor in kinds:
        other = _with(reading, label=label, label_scale=factor, label_offset=0.0, reversed=False)
        same = (label, now.reversed) == (now.label, False)
        said = label_in_words(other.meaning)
        says = f"the label looks like {said}, not {label_in_words(now)}"
        if same:
            ratio = factor / now.label_scale
            says = f"the label's scale is wrong: it looks like {said}, {ratio:g} times the claimed"
        fix = f'set preconditioning.label = "{label}" and label_scale = {factor:g}'
        yield Alternative("label", says, other, fix)


def label_in_words(meaning: Meaning) -> str:
    """The label as a formula."""
    name = {
        **{"log_sigma": "log(σ/α)", "edm": "log(σ/α)/4", "sigma": "σ/α", "time": "t"},
        **{"index": "the index N t − 1", "rounded_index": "the rounded index N t − 1"},
    }[meaning.label]
    scale = meaning.label_scale
    factor = "" if scale == 1 else "−" if scale == -1 else f"{scale:g} · "
    return f"{factor}{name}"


def _shifts(reading: Reading, network: bool) -> Iterator[Alternative]:
    """Labels of the reversed time, and labels that are shifted by one.

    Args:
        reading: The present reading.
        network: Whether the label is that of a network, which metadata can state.
    """
    now = reading.meaning
    turned = _with(reading, reversed=not now.reversed)
    says = "the direction of time is wrong: the label runs from noise to data"
    yield Alternative("label", says, turned, "turn the label round, 1 − t or N − 1 − i")
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


def _noise_levels(reading: Reading) -> Iterator[Alternative]:
    for factor in NOISE_FACTORS:
        says = f"σ is scaled: the network acts as if the noise were {factor:.3g} σ"
        fix = f"check σ of the schedule, whose ratio σ/α should be {factor:.3g} times as large"
        other = replace(reading, noise=reading.noise * factor)
        yield Alternative("noise level", says, other, fix)


def _inputs(reading: Reading) -> Iterator[Alternative]:
    now = reading.meaning
    if now.target in ("edm", "denoiser"):
        return
    scaled = "x/√(α² + σ²)"
    right, wrong = ("x", scaled) if now.scale_input else (scaled, "x")
    says = f"the network takes {right}, not {wrong}"
    fix = f"set preconditioning.scale_input = {str(not now.scale_input).lower()}"
    yield Alternative("input", says, _with(reading, scale_input=not now.scale_input), fix)


def _schedules(reading: Reading) -> Iterator[Alternative]:
    for name, sde in _sdes(reading):
        says = f"the schedule looks like {name}, not {sde_in_words(reading.sde)}"
        yield Alternative("schedule", says, replace(reading, sde=sde), f"set the SDE to {name}")


def _sdes(reading: Reading) -> Iterator[tuple[str, SDE]]:
    levels = reading.sde.levels
    if reading.meaning.label not in INDEX_LABELS:
        named = (VP(), SubVP(), CosineVP(), VE(0.01, 50.0), VE(0.002, 80.0))
        yield from ((sde_in_words(sde), sde) for sde in named)
    yield from _tables(levels or LADDER).items()


@functools.cache
def _tables(levels: int) -> dict[str, SDE]:
    """The usual tables of β, for another number of levels than 1,000 of the same total noise."""
    many = 1000 / levels
    tables = {"the cosine β of improved DDPM": cosine_betas(levels)}
    if 0.02 * many < 1:
        tables["DDPM's linear β"] = equally_spaced(1e-4 * many, 0.02 * many, levels)
        ends = (0.00085 * many) ** 0.5, (0.012 * many) ** 0.5
        tables["Stable Diffusion's scaled-linear β"] = equally_spaced(*ends, levels).square()
    return {name: TabulatedVP(betas) for name, betas in tables.items()}


def sde_in_words(sde: SDE) -> str:
    """Name of the class and its parameters; of a table, the number of its steps."""
    if isinstance(sde, TabulatedVP):
        return f"the claimed table of {sde.levels} β"
    values = ", ".join(f"{value:g}" for value in vars(sde).values() if isinstance(value, float))
    return f"{type(sde).__name__}({values})"


def _ranges(reading: Reading, points: Points) -> Iterator[Alternative]:
    """Other ranges, black and white exchanged, and other orders of channels and axes."""
    data, low, high = reading.data, points.low, points.high
    span = high - low
    now = f"[{low:g}, {high:g}]"
    if points.image:
        for first, last in RANGES:
            scale = (last - first) / span
            other = replace(data, scale=scale, shift=first - scale * low)
            says = f"the data range is [{first:g}, {last:g}], not {now}"
            fix = f"set low = {first:g} and high = {last:g} of the data"
            yield Alternative("data", says, replace(reading, data=other), fix)
        other = replace(data, scale=-data.scale, shift=data.shift + data.scale * (low + high))
        says = "black and white are exchanged in the data"
        yield Alternative("data", says, replace(reading, data=other), f"use {low + high:g} − x")
    else:
        for factor in (0.5, 2.0):
            other = replace(data, scale=data.scale * factor, shift=data.shift * factor)
            says = f"the data are {factor:g} times as large in training"
            fix = f"multiply the data by {factor:g}"
            yield Alternative("data", says, replace(reading, data=other), fix)
    other = replace(data, scale=1 / points.std, shift=-points.mean / points.std)
    says = "the data were standardized in training, to mean 0 and variance 1"
    fix = f"use (x − {points.mean:.4g})/{points.std:.4g}"
    yield Alternative("data", says, replace(reading, data=other), fix)
    if points.image and points.x.shape[1] == 3:
        other = replace(data, flipped=not data.flipped)
        says = "the order of the channels is wrong: BGR instead of RGB, or the reverse"
        yield Alternative("data", says, replace(reading, data=other), "turn the channels round")
    if points.image and points.x.shape[2] == points.x.shape[3]:
        other = replace(data, transposed=not data.transposed)
        says = "rows and columns of the images are exchanged"
        yield Alternative("data", says, replace(reading, data=other), "transpose the images")


def _weights(reading: Reading, subject: Subject) -> Iterator[Alternative]:
    for name in subject.weights:
        says = f"these are not the averaged weights: the set {name!r} of the same file is better"
        other = replace(reading, weights=name)
        yield Alternative("weights", says, other, f"use the weights {name!r}")
