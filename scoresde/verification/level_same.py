"""Whether a deterministic sampler is another one: the same evaluations and the same end."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from ..interop.samplers import GivenLevels, Levels, NotMeasured
from ..interop.samplers.own import OwnSampler
from ..names.samplers import parse_sampler, sampler_label
from ..samplers import Sampler
from .claims import CLAIMS
from .findings import Finding, failed, passed
from .level_problems import EVEN, UNEVEN
from .runs import Outcome
from .subject import FEW, SAME, Subject, difference

__all__ = ["same_method"]


SHOWN = 3  # names of equal samplers


class _Split(NamedTuple):
    """Where two samplers part: in words, and what this suggests."""

    text: str
    advice: str


def same_method(subject: Subject) -> Finding | None:
    """Whether the sampler is another one, evaluation for evaluation, on uneven steps."""
    if subject.like is None:
        return None
    try:
        ours, levels = subject.run(levels=UNEVEN), UNEVEN
    except NotMeasured:
        ours, levels = subject.first, EVEN
    if not subject.sampler.keeps_levels:
        levels = GivenLevels.of(sorted({*ours.calls, ours.before_zero[1]}, reverse=True))
    theirs = replace(subject, sampler=subject.like).run(levels=levels)
    name, found = subject.like.name, _distance(ours, theirs)
    split = _parting(ours, theirs)
    if found < SAME and split is None:
        count = len(ours.calls)
        text = f"equal to {name}: {count} evaluations at N = {FEW}, ends differ by {found:.1e}"
        return passed(text, found)
    if split is None:
        split = _Split(
            f"all evaluations are equal, but the ends differ by {found:.1e} of the state",
            "only what follows the last evaluation differs: is the last step of lower order?",
        )
    equal = _names_of_equals(subject, ours, levels)
    known = f"; it equals {', '.join(equal[:SHOWN])}" if equal else ""
    return failed(f"differs from {name} at N = {FEW}: {split.text}{known}", split.advice, found)


def _distance(ours: Outcome, theirs: Outcome) -> float:
    return difference(ours.before_zero[0], theirs.before_zero[0])


def _parting(ours: Outcome, theirs: Outcome) -> _Split | None:
    """The first evaluation that is not the same; None if all are."""
    for i, (mine, other) in enumerate(zip_longest(_judged(ours), _judged(theirs)), 1):
        if mine is None or other is None:
            counts = len(_judged(ours)), len(_judged(theirs))
            text = f"equal for {i - 1} evaluations, but it makes {counts[0]} instead of {counts[1]}"
            return _Split(text, "is a step missing, or are evaluations made that are not used?")
        if abs(mine.sigma - other.sigma) > SAME * other.sigma:
            text = f"evaluation {i} is at σ = {mine.sigma:.4g} instead of {other.sigma:.4g}"
            return _Split(text, "it evaluates in other places: is it a method with other stages?")
        if mine.y.shape != other.y.shape:
            return _Split(f"evaluation {i} is of another number of samples", "evaluate the batch")
        away = difference(mine.y, other.y)
        if away > SAME:
            text = f"evaluation {i}, at σ = {mine.sigma:.4g}, is the first whose state differs"
            return _Split(f"{text}, by {away:.1e}", _advice(i))
    return None


def _judged(outcome: Outcome) -> tuple:
    """The evaluations; without the one that only makes the step to σ = 0."""
    return outcome.evaluations[:-1] if outcome.sigma == 0 else outcome.evaluations


def _advice(evaluation: int) -> str:
    if evaluation == 1:
        return "it starts from another state"
    if evaluation == 2:
        return "its first step or stage differs: compare the formula of a single step"
    return "it starts in the same way: compare how earlier evaluations are used"


def _names_of_equals(subject: Subject, ours: Outcome, levels: Levels) -> list[str]:
    """Samplers of this package with the same evaluations and end, the most similar one first."""
    found = []
    for name, sampler in _candidates(subject.like.sampler).items():
        theirs = replace(subject, sampler=OwnSampler(name, sampler)).run(levels=levels)
        if _parting(ours, theirs) is None and _distance(ours, theirs) < SAME:
            found.append(name)
    return found


def _candidates(like: Sampler) -> dict[str, Sampler]:
    """`like` with the other choice for its last steps, and the claims of `scoresde verify`."""
    found = {}
    if (lower := getattr(like, "lower_order_final", None)) is not None:
        other = replace(like, lower_order_final=not lower)
        found[sampler_label(other)] = other
    return found | {c.sampler: parse_sampler(c.sampler) for c in CLAIMS if c.kind == "ode"}
