"""Which cells of a budget are the best, how sure that is, and where the metrics disagree.

All statements rest on paired differences: cells that start from the same x_T and are compared with
the same reference share most of their noise, which cancels in the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from ..metrics import Estimate, difference, ratio
from .labels import RECOMMENDED
from .metric_table import METRICS
from .records import CellResult

__all__ = [
    "PAIRED",
    "Answer",
    "Disagreement",
    "Ranking",
    "answer",
    "below_floor",
    "gain",
    "rank",
    "ratio_of",
]

PAIRED = "paired_rmse"  # the error of the solver, which need not be seen in the samples
LEVEL = 0.95  # probability that the best cell is in its confidence set


@dataclass(frozen=True)
class Ranking:
    """The cells of one budget, ordered by one metric.

    Attributes:
        metric: Name of the metric.
        cells: Cells that have the metric, the best value first.
        leading: The 95 % confidence set of the best, in the same order: all cells of which it is
            not shown that another is better. It has at least one cell.
        at_floor: Cells that are not shown to be worse than real data, in the same order. They are
            all in `leading`, and are not ranked among each other.
        floor: The value of real data held out from the reference; None without such a value.
    """

    metric: str
    cells: tuple[CellResult, ...]
    leading: tuple[CellResult, ...]
    at_floor: tuple[CellResult, ...] = ()
    floor: Estimate | None = None

    @property
    def best(self) -> CellResult:
        """The cell of the best value."""
        return self.cells[0]

    def value(self, cell: CellResult) -> Estimate:
        """The metric of a cell."""
        return cell.metrics[self.metric]

    def place(self, cell: CellResult) -> int:
        """0 for a leading cell; for others the number of cells that lead or have a better value."""
        if cell in self.leading:
            return 0
        others = [other for other in self.cells if other not in self.leading]
        return len(self.leading) + others.index(cell)


@dataclass(frozen=True)
class Disagreement:
    """Two metrics each of which excludes the best cell of the other.

    Attributes:
        by: Ranking by the first metric.
        against: Ranking by the second metric.
        cell: The best cell by the first metric.
        better: The best cell by the second metric.
        disjoint: Whether no cell leads by both metrics.
    """

    by: Ranking
    against: Ranking
    cell: CellResult
    better: CellResult
    disjoint: bool


@dataclass(frozen=True)
class Answer:
    """The cell to take within one budget.

    Attributes:
        cell: The cell that leads by the largest share of its metrics; among these the one of the
            lowest mean place, then of the smallest worst factor to the best of a metric, and then
            of the best value of the first metric. If the recommended settings are tied with it,
            they are taken instead.
        ties: Other cells that lead by every metric of the samples by which `cell` leads, as far as
            they have it. The error to the exact solution is no such metric: it counts only if there
            is no other.
        next: The best of the other cells, in the same order, that is not tied with `cell`; None if
            all are tied.
        apart: Metrics by which `cell` leads and `next` does not; empty without `next`.
        gain: Value of `next` minus that of `cell`, positive if `cell` is better; None without
            `next`.
        factor: Value of `next` divided by that of `cell`, for metrics that have a zero; None
            without `next`, or if the ratio has no interval.
        farther: The best of the tied cells whose error to the exact solution is shown to be larger;
            None without one.
        rankings: The ranking by each metric.
        disagreements: Pairs of metrics that contradict each other.
    """

    cell: CellResult
    ties: tuple[CellResult, ...]
    next: CellResult | None
    apart: tuple[str, ...]
    gain: Estimate | None
    factor: Estimate | None
    farther: CellResult | None
    rankings: tuple[Ranking, ...]
    disagreements: tuple[Disagreement, ...]

    @property
    def metric(self) -> str:
        """The metric of `gain` and `factor`: the first of `apart`; else the first of all."""
        return (*self.apart, self.rankings[0].metric)[0]


def rank(
    cells: Sequence[CellResult], metric: str, floor: Estimate | None = None, level: float = LEVEL
) -> Ranking | None:
    """Order cells by a metric, and find the confidence set of the best.

    A cell leaves the set if the paired difference shows for one of the other K − 1 cells that it is
    better, one-sided at level (1 − level)/(K − 1). The truly best cell is then in the set with
    probability of at least `level` (Bonferroni; Mogstad, Romano, Shaikh and Wilhelm 2024, Inference
    for Ranks, Review of Economic Studies 91, build their confidence sets for ranks from the same
    tests of pairwise differences). For K = 2 it is (1 − level)/2, so that for every K the two-sided
    interval of the difference that reports show, Student's at `level`, excludes 0 as well.

    A score better than that of real data is no merit. Cells that are not shown to be worse than the
    floor count as equal to it and to each other, so that they never leave the set.

    Args:
        cells: Cells of one group: equal n, reference, features and levels.
        metric: Name of the metric, a key of `METRICS` with a direction.
        floor: Value of real data held out from the reference; None for a metric without.
        level: Probability in (0.5, 1).

    Returns:
        The ranking; None if no cell has the metric.

    Raises:
        ValueError: If the estimates were not made in one feature space with one n and reference;
            the message names what differs.
    """
    sign = METRICS[metric].sign
    found = [cell for cell in cells if metric in cell.metrics]
    if not found:
        return None
    _check_group(found, metric)
    found.sort(key=lambda cell: sign * cell.metrics[metric].value)
    at_floor = [cell for cell in found if floor is not None and _at_floor(cell, metric, floor)]
    alpha = (1 - level) / max(len(found) - 1, 2)

    def leads(place: int, cell: CellResult) -> bool:
        better = found[:place]  # only a cell of better value can exclude it
        return not any(_shown(gain(other, cell, metric), alpha) for other in better)

    leading = [c for i, c in enumerate(found) if c in at_floor or leads(i, c)]
    return Ranking(metric, tuple(found), tuple(leading), tuple(at_floor), floor)


def gain(better: CellResult, worse: CellResult, metric: str) -> Estimate:
    """By how much the first cell is better, positive if it is; paired if both share x_T."""
    a, b, sign = worse.metrics[metric], better.metrics[metric], METRICS[metric].sign
    found = difference(a, b, paired=_paired(better, worse))
    if sign > 0:
        return found
    moves = tuple(-move for move in found.influence)
    return Estimate(-found.value, found.std_error, found.n, found.name, found.note, moves)


def answer(rankings: Sequence[Ranking]) -> Answer:
    """The cell to take, from the rankings of one budget by several metrics.

    Args:
        rankings: At least one ranking, the most important metric first.
    """
    order = sorted(
        _unique(rankings),
        key=lambda c: (-_led(rankings, c), _places(rankings, c), _regret(rankings, c)),
    )
    cell = order[0]
    tied = [c for c in order if not _told_apart(rankings, cell, c)]
    cell = next((c for c in tied if c.sampler == RECOMMENDED), cell)
    of_samples = [r for r in rankings if r.metric != PAIRED] or rankings
    rest = [c for c in order if c is not cell]
    apart = {id(c): _told_apart(of_samples, cell, c) for c in rest}
    ties = [c for c in rest if not apart[id(c)]]
    other = next((c for c in rest if apart[id(c)]), None)
    between = factor = None
    if other is not None:
        metric = apart[id(other)][0]
        between = gain(cell, other, metric)
        factor = ratio_of(other, cell, metric)
    farther = next((c for c in ties if _told_apart(rankings, cell, c)), None)
    by, found = tuple(apart.get(id(other), ())), disagreements(rankings)
    return Answer(cell, tuple(ties), other, by, between, factor, farther, tuple(rankings), found)


def below_floor(
    cells: Sequence[CellResult], metric: str, floor: Estimate, level: float = LEVEL
) -> list[CellResult]:
    """Cells that are shown to have a better value than real data, as copies of the reference have.

    The level is corrected for the number of cells (Bonferroni).
    """
    sign, least = METRICS[metric].sign, _quantile(1 - (1 - level) / max(len(cells), 1))
    found = []
    for cell in cells:
        worse = difference(cell.metrics[metric], floor, paired=False)
        if -sign * worse.value > least * worse.std_error:
            found.append(cell)
    return found


def disagreements(rankings: Sequence[Ranking]) -> tuple[Disagreement, ...]:
    """Pairs of metrics each of which excludes the best cell of the other."""
    found = []
    for i, by in enumerate(rankings):
        for against in rankings[i + 1 :]:
            if _excludes(by, against.best) and _excludes(against, by.best):
                disjoint = not any(cell in against.leading for cell in by.leading)
                found.append(Disagreement(by, against, by.best, against.best, disjoint))
    return tuple(found)


def _excludes(ranking: Ranking, cell: CellResult) -> bool:
    """Whether a cell that has the metric does not lead by it; a stochastic one may lack it."""
    return cell in ranking.cells and cell not in ranking.leading


def _unique(rankings: Sequence[Ranking]) -> list[CellResult]:
    """All cells once, the best value of the first metric first."""
    found: list[CellResult] = []
    for ranking in rankings:
        found += [cell for cell in ranking.cells if cell not in found]
    return found


def _led(rankings: Sequence[Ranking], cell: CellResult) -> float:
    """Share of the metrics of a cell by which it leads; a stochastic one has no paired error."""
    own = [ranking for ranking in rankings if cell in ranking.cells]
    return sum(cell in ranking.leading for ranking in own) / len(own)


def _places(rankings: Sequence[Ranking], cell: CellResult) -> float:
    """Mean place over the metrics of a cell."""
    own = [ranking for ranking in rankings if cell in ranking.cells]
    return sum(ranking.place(cell) for ranking in own) / len(own)


def _regret(rankings: Sequence[Ranking], cell: CellResult) -> float:
    """Largest factor by which a cell is worse than the best, over the metrics that exclude it.

    Where metrics contradict each other, a cell with a gross failure in one of them loses. Of
    squared distances the root is taken, so that the factors can be compared.
    """
    found = [1.0]
    for ranking in rankings:
        if cell in ranking.cells and cell not in ranking.leading:
            worse, best = ranking.value(cell), ranking.value(ranking.best)
            own = worse.value if METRICS[ranking.metric].sign > 0 else best.value
            other = best.value if METRICS[ranking.metric].sign > 0 else worse.value
            factor = own / max(other, best.std_error, 1e-300)
            squared = METRICS[ranking.metric].squared and factor > 0
            found.append(factor**0.5 if squared else factor)
    return max(found)


def _told_apart(rankings: Sequence[Ranking], cell: CellResult, other: CellResult) -> list[str]:
    """Metrics that both cells have, by which the first leads and the other does not."""
    shared = [r for r in rankings if cell in r.cells and other in r.cells]
    return [r.metric for r in shared if cell in r.leading and other not in r.leading]


def ratio_of(worse: CellResult, better: CellResult, metric: str) -> Estimate | None:
    """By which factor the first cell is worse; None for metrics without a zero or an interval."""
    if not METRICS[metric].has_ratio:
        return None
    paired = _paired(worse, better)
    found = ratio(worse.metrics[metric], better.metrics[metric], paired=paired)
    return found if found.std_error == found.std_error else None


def _at_floor(cell: CellResult, metric: str, floor: Estimate) -> bool:
    """Whether it is not shown, one-sided at 5 %, that a cell is worse than real data."""
    worse = difference(cell.metrics[metric], floor, paired=False)
    value = METRICS[metric].sign * worse.value
    return not value > _quantile(LEVEL) * worse.std_error


def _shown(gained: Estimate, alpha: float) -> bool:
    """Whether a difference is positive, one-sided at alpha; an unknown error shows nothing."""
    return gained.interval(1 - 2 * alpha)[0] > 0


def _paired(a: CellResult, b: CellResult) -> bool:
    return a.x_init_sha256 == b.x_init_sha256 != ""


def _quantile(level: float) -> float:
    return float(ndtri(level))


def _check_group(cells: Sequence[CellResult], metric: str) -> None:
    first = cells[0]
    for cell in cells[1:]:
        a, b = (c.metrics[metric] for c in (first, cell))
        pairs = {"n": (first.n, cell.n), "features": (first.features, cell.features)}
        pairs |= {"reference": (a.n[1:], b.n[1:]), "metric": (a.name, b.name)}
        for what, (one, other) in pairs.items():
            if one != other:
                raise ValueError(
                    f"cells can be ranked only with the same {what}: {first.sampler} has {one}, "
                    f"{cell.sampler} has {other}"
                )
