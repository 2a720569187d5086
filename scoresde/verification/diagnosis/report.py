"""`DoctorReport`: what the doctor found, as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..findings import Finding
from .conduct import HIDDEN
from .facts import LEAST_LINEAR, Level, like_linear, unlike
from .search import Search, Tried

__all__ = ["DoctorReport"]

MOST = 10**6  # data; a larger number is "no number of data"
WORSE = 1.25  # ratio to the error of the linear denoiser above which a network is clearly worse
MUCH_WORSE = 2.0  # the same for a network that is better than the linear denoiser elsewhere
WORSE_SAID = (
    "the network denoises worse than a linear formula at some noise level, or better at none, also "
    "under the best reading that was tried: it is not trained, these are not its data, or the "
    "mistake is another one or several at once"
)
# ratios of the real error and the one that the network claims by its derivative: a mistake, a doubt
UNEXPECTED, DOUBTFUL = 2.5, 1.5
UNLIKE_SAID = (
    "the mean of the denoised data differs from that of these data by {:.0%} of their variance: "
    "these data are not like those it was trained on, or its weights are damaged"
)
UNEXPECTED_SAID = (
    "the error is up to {:.2g} times the one that the network itself expects (Tweedie's formula): "
    "these are not its data, or some of its weights are wrong"
)
DOUBT_SAID = (
    "cannot tell: the error is up to {:.2g} times the one that the network itself expects, and no "
    "reading that was tried explains it. A short training does this, and a mistake of another kind."
)
LINEAR_SAID = (
    "note: at no noise level is the network better than a linear formula. It may not be trained, "
    "and the verdict is of little use."
)
LEGEND = (
    "linear: the error of the best linear formula. corr.: correlation of prediction and noise.",
    "slope: of the noise on the prediction; it is 1 for the optimum. own claim: the error that",
    "the network itself claims by its derivative (Tweedie's formula), ± that of the difference",
    "to its real error. A trained network departs a little from both; it is not the optimum.",
)
SAID = 3  # rivals and undecided alternatives of one family that are listed


@dataclass(frozen=True)
class DoctorReport:
    """What the doctor found about one model on some data. `print(report)` shows it as text.

    Attributes:
        model: Name of the model.
        data: Name of the data.
        n: Number of data.
        search: The search for the best reading.
        levels: Facts at each noise level, under the last reading.
        ends: Notes in words: the levels of the data, and what happens at both ends of time.
        findings: Laws of `scoresde.check` that concern an evaluation: batch mates and modes.
    """

    model: str
    data: str
    n: int
    search: Search
    levels: tuple[Level, ...]
    ends: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The mistakes that were found, in words, the most important one first."""
        return tuple(text for text, _ in self._named())

    def _named(self) -> list[tuple[str, list[str]]]:
        """The mistakes with lines of evidence and advice, the most important one first."""
        failures = {f.law: f for f in self.findings if f.verdict == "fail"}
        failed = {
            law: (f"{law}: {f.measured}", [f"what to do: {f.advice}"] if f.advice else [])
            for law, f in failures.items()
        }
        hidden = failed.pop(HIDDEN, None)
        useless = self.worse_than_linear or self.search.given_up
        unfit = self.unlike or (WORSE_SAID if useless else self.unexpected)
        # a later step of the same family replaces an earlier one
        steps = zip(self.search.steps, self.search.rivals, strict=True)
        last = {step.alternative.family: (step, rivals) for step, rivals in steps}
        taken = [(step.alternative.says, _details(step, rivals)) for step, rivals in last.values()]
        return [
            *failed.values(),
            *([(unfit, [])] if unfit else []),
            *taken,
            *filter(None, [hidden]),
        ]

    @property
    def unlike(self) -> str | None:
        """In words, that the mean of the denoised data is not that of the data."""
        share = unlike(self.levels, self.search.limit)
        return None if share is None else UNLIKE_SAID.format(share)

    @property
    def unexpected(self) -> str | None:
        """In words, that the error is much larger than the one that the network itself claims."""
        ratio = self._over_expected
        return UNEXPECTED_SAID.format(ratio) if ratio > UNEXPECTED else None

    @property
    def _over_expected(self) -> float:
        """The largest ratio of the error and the one the network claims, beyond doubt; or 1."""
        limit = self.search.limit
        ratios = [
            level.error / level.own
            for level in self.levels
            if level.linear > LEAST_LINEAR
            and level.error - level.own > limit * level.own_error
            and level.own > 0
        ]
        return max(ratios, default=1.0)

    @property
    def healthy(self) -> bool:
        """Whether no mistake was found."""
        return not self.mistakes

    @property
    def worse_than_linear(self) -> bool:
        """Whether the last reading is clearly worse than the best linear denoiser at some level.

        A network that was trained for a short time may be a little worse at some levels, if it is
        better at others. Large noise levels are left out, where many networks are hardly trained.
        """
        limit = self.search.limit
        ratio = WORSE if self.like_linear else MUCH_WORSE
        return any(
            level.error - limit * level.std_error > ratio * level.linear
            for level in self.levels
            if level.linear > LEAST_LINEAR
        )

    @property
    def like_linear(self) -> bool:
        """Whether the last reading is better than the best linear denoiser at no level."""
        return like_linear(self.levels, self.search.limit)

    def __str__(self) -> str:
        """The verdict, what to do, and then the evidence."""
        return "\n".join(
            [
                *self._verdict(),
                "",
                *self._conventions(),
                "",
                *self._table(),
                "",
                *self.ends,
                *(f"{f.verdict:<6}{f.law}: {f.measured}" for f in self.findings),
            ]
        )

    def _verdict(self) -> Iterator[str]:
        if self.healthy:
            yield f"{self.model}: no mistake found"
        for number, (text, details) in enumerate(self._named()):
            yield f"  and also: {text}" if number else f"{self.model}: {text}"
            yield from (f"  {line}" for line in details)
        if self.healthy and self._over_expected > DOUBTFUL:
            yield f"  {DOUBT_SAID.format(self._over_expected)}"
        if self.like_linear and not self.unlike:
            yield f"  {LINEAR_SAID}"
        tried = len(self.search.tried)
        yield f"  compared with {tried} other readings on {self.n} data of {self.data}"

    def _conventions(self) -> Iterator[str]:
        yield f"{'convention':<14}verdict"
        families = dict.fromkeys(t.alternative.family for t in self.search.tried)
        for family in families:
            members = [t for t in self.search.tried if t.alternative.family == family]
            yield f"{family:<14}{self._of_family(members)}"
            doubtful = [t for t in members if self._open(t)]
            doubtful.sort(key=lambda t: t.found.needed(self.search.limit) or MOST)
            for tried in doubtful[:SAID]:
                yield f"{'':<14}cannot tell whether {tried.alternative.says}: {self._need(tried)}"
            if len(doubtful) > SAID:
                yield f"{'':<14}and {len(doubtful) - SAID} more of which these data cannot tell"

    def _open(self, tried: Tried) -> bool:
        return not tried.out(self.search.limit) and not tried.found.same

    def _of_family(self, members: list[Tried]) -> str:
        worse = [t for t in members if t.out(self.search.limit)]
        same = sum(t.found.same for t in members)
        parts = []
        if worse:
            near = max(worse, key=lambda t: t.found.factor)
            parts.append(f"{len(worse)} alternatives are worse")
            if not near.found.ratio:
                parts[-1] += f", the nearest by a factor of {1 / near.found.factor:.3g}"
            parts[-1] += f" ({near.alternative.says})"
        if same:
            parts.append(f"{same} change nothing in this network")
        return "; ".join(parts) or "not decided"

    def _need(self, tried: Tried) -> str:
        needed = tried.found.needed(self.search.limit)
        if needed is None or needed > MOST:
            return f"n = {self.n} shows no difference, and more than {MOST:,} would be needed"
        if needed <= self.n:
            return "the difference is smaller than the network's own error"
        return f"n = {self.n} is too few; n = {needed:,} would"

    def _table(self) -> Iterator[str]:
        yield "per noise level κ, where z = x0 + κ ε; the error is |ε̂ − ε|²/D"
        names = ("κ", "claim", "best reading", "linear", "corr.", "slope", "own claim")
        widths = (9, 9, 17, 9, 9, 16, 18)
        yield "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        for r in self.levels:
            cells = (
                f"{r.kappa:.4g}",
                "–" if r.claimed is None else f"{r.claimed:.4f}",
                f"{r.error:.4f} ± {r.std_error:.4f}",
                f"{r.linear:.4f}",
                f"{r.correlation:.4f}",
                f"{r.slope:.3f} ± {r.slope_error:.3f}",
                f"{r.own:.4f} ± {r.own_error:.4f}",
            )
            yield "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        yield from LEGEND

    def plain(self) -> dict[str, Any]:
        """The report as plain data, for JSON; numbers that are not finite are None."""

        def row(tried: Tried) -> dict[str, Any]:
            found, limit = tried.found, self.search.limit
            verdict = "same" if found.same else "better" if tried.better(limit) else "worse"
            if not found.same and not tried.better(limit) and not tried.out(limit):
                verdict = "cannot tell"
            about = {"family": tried.alternative.family, "says": tried.alternative.says}
            about |= {"fix": tried.alternative.fix, "verdict": verdict, **asdict(found)}
            return about | {"z": found.z, "needed": found.needed(limit)}

        return _finite(
            {
                "model": self.model,
                "data": self.data,
                "n": self.n,
                "healthy": self.healthy,
                "mistakes": list(self.mistakes),
                "steps": [row(step) for step in self.search.steps],
                "rivals": [[row(r) for r in rivals] for rivals in self.search.rivals],
                "limit": self.search.limit,
                "alternatives": [row(tried) for tried in self.search.tried],
                "levels": [asdict(level) for level in self.levels],
                "ends": list(self.ends),
                "findings": [asdict(finding) for finding in self.findings],
            }
        )


def _details(step: Tried, rivals: Sequence[Tried]) -> list[str]:
    """Why a reading was taken, which others fit as well, and what to do."""
    found = step.found
    why = f"with this, the error falls {found.factor:.3g} times ({found.z:.0f} standard errors)"
    if found.ratio:
        why = f"the errors differ by {found.gain:.2f} ± {found.std_error:.2f} times what such a "
        why += "shift predicts; 1 is the shift, and −1 is the claim"
    others = [
        f"cannot tell: perhaps {rival.alternative.says} instead, which fits as well"
        for rival in rivals[:SAID]
    ]
    return [f"evidence: {why}", f"what to do: {step.alternative.fix}", *others]


def _finite(value: Any) -> Any:
    """Plain data without NaN and infinities."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
