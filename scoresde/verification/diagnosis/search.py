"""The search for the reading under which a network denoises best.

Round by round, every reading that differs from the present one in one convention is compared with
it on the same data and noise. First all of them are measured on few data at every second noise
level. Those that are clearly worse are out; the others are measured on all data. If one is better
beyond doubt, it becomes the present reading, so that several mistakes in one checkpoint are found
one after the other.

Beyond doubt means: the gain is above the quantile of the normal distribution for 1 % divided by the
number of comparisons (Bonferroni), and the error falls by at least `MARGIN`. The margin is there
because a network is not the exact optimum. An imperfect network may gain a little by a wrong
reading, and no number of data makes this a mistake in its conventions.

For the same reason a reading must explain the error. If it is the right one, the network knows how
large its error is: let e be the error under the present reading, e' that under the other one, and w
the error that the network itself expects under the other one (Tweedie's formula, see `facts`). Then

    explained = F/(F + R),   F = Σ_l (e − e')/m,   R = Σ_l |e' − w|/m,   m = min(e, e')

over the noise levels l is near 1. A network that was trained for a short time is improved by some
factor of its output, its label or σ, but much of its error is left. The share must be above
`EXPLAINED`. A fitted factor must also leave no bias of the denoised mean, as other data would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..._tensor import float64
from .alternatives import SHIFT, Alternative, alternatives
from .facts import LEAST_LINEAR, facts, unlike, useless
from .measure import CAP, Comparison, Measured, compare
from .reading import Reading
from .shifts import compare_shift

__all__ = ["MARGIN", "Search", "Tried", "search"]

ROUNDS = 3  # mistakes in one checkpoint that are looked for
LEVEL = 0.01  # probability of any false alarm by chance
MARGIN = 1.03  # least ratio of the errors of two readings of which one is called better
WEIGHTS_MARGIN = 1.01  # the same for other weights, which are expected to be a little better
WINDOW = 0.5, 1.5  # of a ratio, see `shifts`
OUT = 0.9  # ratio below which a reading may be put aside on few data
FEW = 1024  # numbers of data, at least, on which all readings are measured first
LEAST = 8  # data
EXPLAINED = 0.5  # least share of the error that a reading explains
CANDIDATES = 6  # the best readings of one round that may be named
ATTEMPTS = 3  # searches, each with another first step, until one ends at a useful network
FITTED = 1.25  # ratio by which a fitted factor must beat a usual convention
REFINED = 1.01  # least ratio of the errors of two factors near each other
FINER = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # powers of 2 by which a factor is refined


@dataclass(frozen=True)
class Tried:
    """One alternative and its comparison with the present reading."""

    alternative: Alternative
    found: Comparison

    def better(self, limit: float) -> bool:
        """Whether the alternative is better beyond doubt."""
        found = self.found
        margin = WEIGHTS_MARGIN if self.alternative.family == "weights" else MARGIN
        enough = WINDOW[0] < found.gain < WINDOW[1] if found.ratio else found.factor > margin
        return found.z > limit and enough

    def out(self, limit: float) -> bool:
        """Whether the alternative is worse beyond doubt."""
        return self.found.z < -limit


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        steps: The alternatives that were taken, in order; empty if the claim is kept.
        rivals: For each step, the alternatives that are not worse than the one taken, beyond doubt.
        reading: The last reading.
        tried: All alternatives to the last reading that could be compared.
        limit: Gain, in standard errors, beyond which there is no doubt.
        given_up: Whether there were steps, but the network is of no use under the last reading.
            No reading then explains the error. The steps are left out, and `tried` are those of
            the claim.
    """

    steps: tuple[Tried, ...]
    rivals: tuple[tuple[Tried, ...], ...]
    reading: Reading
    tried: tuple[Tried, ...]
    limit: float
    given_up: bool = False


def search(measured: Measured, tick: Callable[[str], None] = lambda _: None) -> Search:
    """Look for the reading under which the errors are smallest.

    If the steps end at a reading under which the network is of no use, the first of them may have
    been the wrong one of several that seemed to help. The search then begins again without it.

    Args:
        measured: The errors, of which the needed ones are computed.
        tick: Called with a note during the work.
    """
    avoided: list[Reading] = []
    lost: Search | None = None
    while len(avoided) < ATTEMPTS:
        found, first = _descent(measured, tick, avoided)
        if not found.given_up:
            return lost if lost is not None and not found.steps else found
        lost = lost or found
        avoided.append(first)
    return lost


def _descent(
    measured: Measured, tick: Callable[[str], None], avoided: list[Reading]
) -> tuple[Search, Reading | None]:
    """One search, and the reading of its first step; readings to be avoided are not taken first."""
    reading, steps, rivals, seen = measured.subject.claim, [], [], set(avoided)
    first = None
    while True:
        seen.add(reading)
        tried, limit = _compared(measured, reading, tick)
        better = [t for t in tried if t.better(limit) and t.alternative.reading not in seen]
        best = None if len(steps) == ROUNDS else _best(measured, reading, better, limit)
        first = first or Search((), (), reading, tuple(tried), limit, given_up=True)
        if best is None:
            taken = steps[0].alternative.reading if steps else None
            if steps and useless(facts(measured, reading), limit):
                return first, taken
            return Search(tuple(steps), tuple(rivals), reading, tuple(tried), limit), taken
        steps.append(best)
        rivals.append(tuple(t for t in better if t is not best and _ties(measured, t, best, limit)))
        reading = best.alternative.reading


def _best(measured: Measured, reading: Reading, better: list[Tried], limit: float) -> Tried | None:
    """The first of the better readings, in the order of preference, that explains the error."""
    for tried in sorted(better, key=_preference, reverse=True)[:CANDIDATES]:
        refined = _refined(measured, reading, tried)
        if _explains(measured, reading, refined, limit):
            return refined
    return None


def _explains(measured: Measured, reading: Reading, other: Tried, limit: float) -> bool:
    """Whether another reading explains the error of the present one.

    Other weights are another network, and a shift of the label has its own rule.
    """
    if other.found.ratio or other.alternative.family == "weights":
        return True
    points, right = measured.points, other.alternative.reading
    base = measured.of(reading, len(points.x)).clamp(max=CAP).mean(0).tolist()
    errors = dict(zip(points.kappas, base, strict=True))
    levels = facts(measured, right)
    fall = rest = 0.0
    for level in levels:
        before, after = errors[level.kappa], min(level.error, CAP)
        if not math.isnan(before) and level.linear > LEAST_LINEAR:
            fall += (before - after) / min(before, after)
            rest += abs(after - level.own) / min(before, after)
    fitted = other.alternative.vary is not None
    return fall > EXPLAINED * (fall + rest) and not (fitted and unlike(levels, limit))


def _preference(tried: Tried) -> float:
    """The ratio of the errors; a usual convention goes before a factor that fits as well."""
    return tried.found.factor / (1.0 if tried.alternative.vary is None else FITTED)


def _refined(measured: Measured, reading: Reading, best: Tried) -> Tried:
    """The best member of a continuous family near one of it; the same one for other families."""
    vary, factor = best.alternative.vary, best.alternative.factor
    if vary is None:
        return best
    n = len(measured.points.x)
    base = measured.of(reading, n)
    for power in FINER:
        for near in (factor * 2**power, factor * 2**-power):
            other = replace(vary(near), vary=vary, factor=near)
            found = compare(base, measured.of(other.reading, n))
            if found is not None and found.factor > REFINED * best.found.factor:
                best = Tried(other, found)
        factor = best.alternative.factor
    return best


def _ties(measured: Measured, one: Tried, best: Tried, limit: float) -> bool:
    """Whether an alternative is not worse than the best one beyond doubt."""
    n = len(measured.points.x)
    base, other = (measured.of(t.alternative.reading, n) for t in (best, one))
    found = compare(base, other)
    return found is not None and found.z > -limit


def _compared(
    measured: Measured, reading: Reading, tick: Callable[[str], None]
) -> tuple[list[Tried], float]:
    """All alternatives to a reading that can be compared with it, and the limit of doubt."""
    points = measured.points
    n, dims = len(points.x), points.x[0].numel()
    few = min(n, max(LEAST, FEW // dims))
    others = alternatives(measured.subject, reading, points)
    limit = float(torch.special.ndtri(float64(1 - LEVEL / len(others))))
    base, found = measured.of(reading, n), []
    for other in others:
        tick(other.family)
        if other.family == SHIFT:
            shifted = compare_shift(measured, reading, other.reading, limit)
            found += [] if shifted is None else [Tried(other, shifted)]
            continue
        errors = measured.of(other.reading, few, every=2)
        tried = compare(base, errors, of=2)
        if tried is None:
            continue
        if tried.same or (tried.z < -limit and tried.factor < OUT):
            found.append(Tried(other, tried))
            continue
        whole = compare(base, measured.of(other.reading, n))
        found += [] if whole is None else [Tried(other, whole)]
    return found, limit
