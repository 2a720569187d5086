"""The results of a comparison in words; every statement is shown at the level of 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..metrics import Estimate
from .findings import Findings
from .metric_table import METRICS
from .ranking import PAIRED, Answer, Ranking, gain, ratio_of
from .records import CellResult

__all__ = [
    "answer_sentence",
    "estimate_text",
    "fault",
    "interval_text",
    "likelihood_text",
    "number_text",
    "remarks",
    "sentences",
    "short_name",
    "text_table",
]

SNAPPED = (
    "The network's labels are rounded: grids are moved to its discrete times, and there is no ODE "
    "solution to compare with."
)
SCALED = (
    "Samples and data are compared at the model's scale, after the transform of the training: the "
    "metrics are not in the units of the data."
)
DECODED = (
    "Samples are latents of shape {} that an autoencoder decodes: all metrics are of decoded data, "
    "and no sampler removes the autoencoder's error. NFE count the score network; seconds include "
    "the one call of the decoder."
)
EASILY_TOLD = 0.95  # accuracy of a classifier above which samples look like no data
LADDER = ":ladder=true"  # the end of the name of a grid that is moved to the trained labels


def sentences(findings: Findings) -> list[str]:
    """The summary of a comparison: size, a fault, one sentence for each budget, and the remarks."""
    answers = [answer_sentence(findings, budget) for budget in findings.budgets]
    first = [_of_cells(findings), fault(findings), *answers]
    return [*filter(None, first), *remarks(findings)]


def remarks(findings: Findings) -> list[str]:
    """What the results say beside the answer for each budget, sentence by sentence."""
    text = [SNAPPED if findings.settings.get("snapped") else ""]
    text.append(SCALED if findings.transformed else "")
    text.append(DECODED.format(findings.latent_shape) if findings.latent_shape else "")
    text += [_of_disagreement(findings, budget) for budget in findings.budgets]
    text.append(_of_floor(findings))
    text.append(_of_parts(findings))
    text.append(_of_solvers(findings))
    text.append(_of_labels(findings))
    text.append(_of_recommended(findings))
    text.append(_of_processes(findings))
    if findings.likelihood is not None:
        n, split = findings.likelihood["n"], findings.likelihood["split"]
        which = "data" if split == "all" else "held-out data"
        nats = findings.likelihood["unit"].startswith("nats")
        what = "mean log p" if nats else "negative log-likelihood"
        if findings.latent_shape:
            what = f"bound through the autoencoder on the {what}"
        units = " in their units" if findings.transformed else ""
        text.append(f"The {what} of {n} {which}{units} is {likelihood_text(findings)}.")
    return [sentence for sentence in text if sentence]


def _of_processes(findings: Findings) -> str:
    """How many cells were timed while other processes measured cells, too."""
    beside = [cell.processes for cell in findings.done if cell.processes > 1]
    if not beside:
        return ""
    return (
        f"The seconds of {len(beside)} of {len(findings.done)} cells were measured while "
        f"{max(beside)} processes ran beside each other."
    )


def fault(findings: Findings) -> str:
    """That no sampler can give good samples, because of the network's error; empty if one can."""
    found = findings.answer(max(findings.budgets, default=0))
    split = None if found is None else findings.decomposition(found.cell)
    told = None if found is None else found.cell.metrics.get("classifier")
    if split is None or told is None or not split.network_is_larger:
        return ""
    if told.interval()[0] < EASILY_TOLD:
        return ""
    return (
        "The network, not the sampler, is at fault: a classifier tells the best samples from data "
        f"with an accuracy of {estimate_text(told)}, and the network's own error is larger than "
        "all that more steps can remove. Too little training does this, and so does a wrong sign, "
        "noise label or SDE of the model, for which the command scoresde doctor looks."
    )


def answer_sentence(findings: Findings, budget: int) -> str:
    """What to take within a budget, how good it is, what is as good, and what is worse.

    "As good" means that the samples do not show a difference at the level of 95 %.
    """
    found = findings.answer(budget)
    if found is None:
        return ""
    cell, close = found.cell, _names(findings, found.ties) if found.ties else ""
    text = f"Within {budget} evaluations take {short_name(findings, cell)} "
    text += f"({METRICS[found.metric].title} {estimate_text(cell.metrics[found.metric])})."
    ranking = next(r for r in found.rankings if r.metric == found.metric)
    at_floor = "real data" if cell in ranking.at_floor else ""
    if same := " and from ".join(filter(None, [at_floor, close])):
        text += f" {cell.n} samples show no difference from {same}."
    if found.farther is not None:
        text += f" Of these it is the closest to the exact solution: {_closer(findings, found)}."
    if found.next is not None:
        name = short_name(findings, found.next)
        text += f" The next, {name}, is worse by {_by(found.gain, found.factor)}."
    return text


def estimate_text(estimate: Estimate | None) -> str:
    """`value ± error` with a true minus sign; a dash if there is no estimate."""
    return "—" if estimate is None else str(estimate).replace("-", "−")


def short_name(findings: Findings, cell: CellResult) -> str:
    """The sampler's label, with the grid if several were asked for; "recommended" alone."""
    several = len(findings.settings["grids"]) > 1 and cell.grid and not cell.setting
    return f"{cell.sampler} · {cell.grid}" if several else cell.sampler


def number_text(value: float) -> str:
    """A number with three digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def interval_text(estimate: Estimate, what: str = "") -> str:
    """`value (low to high)` with the 95 % interval, or the value alone if its error is unknown.

    Args:
        estimate: The estimate.
        what: Words before the interval.
    """
    low, high = estimate.interval()
    if not math.isfinite(high - low):
        return estimate_text(estimate)
    half = (high - low) / 2  # two of its digits are shown
    digits = 1 - math.floor(math.log10(half)) if half > 0 else 9
    value, low, high = (
        f"{v:.{max(digits, 0)}f}".replace("-", "−") if -5 < digits < 7 else number_text(v)
        for v in (estimate.value, low, high)
    )
    return f"{value} ({what}{low} to {high})"


def likelihood_text(findings: Findings) -> str:
    """Mean ± standard error with its unit; a dash without a measurement.

    It is −log2 P per dimension of levels, and log p itself of continuous data.
    """
    found = findings.likelihood
    if found is None:
        return estimate_text(None)
    error = math.nan if found["std_error"] is None else found["std_error"]
    sign = -1 if found["unit"].startswith("nats") else 1
    value = Estimate(sign * found["mean"], error, (found["n"],), "")
    return f"{value} {found['unit']}"


def text_table(findings: Findings) -> str:
    """All cells as a table of plain text."""
    names = findings.columns
    rows = [["sampler", "grid", "asked", "NFE", *names, "seconds"]]
    for cell in findings.done:
        limit = f"{cell.tolerance:g}" if cell.nfe_asked is None else str(cell.nfe_asked)
        values = [str(cell.metrics[name]) if name in cell.metrics else "-" for name in names]
        name = findings.sampler(cell)
        rows.append([name, cell.grid, limit, str(cell.nfe), *values, f"{cell.seconds:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    lines += [f"{c.status}: {c.sampler} {c.grid} {c.asked}: {c.reason}" for c in findings.missing]
    if findings.settings.get("snapped"):
        lines.append(SNAPPED)
    if findings.transformed:
        lines.append(SCALED)
    if findings.latent_shape:
        lines.append(DECODED.format(findings.latent_shape))
    lines += filter(None, [_of_labels(findings)])
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """One row of the table: names aligned left, numbers aligned right."""
    cells = zip(row, widths, strict=True)
    texts = [text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(cells)]
    return "  ".join(texts).rstrip()


def _of_cells(findings: Findings) -> str:
    done, rest = len(findings.done), len(findings.missing)
    text = f"{_count(len(findings.samplers), 'sampler')} in {_count(done, 'cell')}, each of "
    text += f"n = {findings.settings['n']} samples from the same noise."
    return text + (f" {_count(rest, 'more cell')} could not run." if rest else "")


def _closer(findings: Findings, found: Answer) -> str:
    """By how much the error of the solver is smaller than that of the next of the tied cells."""
    cell, other = found.cell, found.farther
    by = _by(gain(cell, other, PAIRED), ratio_of(other, cell, PAIRED))
    return f"the {METRICS[PAIRED].title} of {short_name(findings, other)} is larger by {by}"


def _by(found: Estimate, factor: Estimate | None) -> str:
    """A difference, and the ratio if there is one, with their intervals."""
    text = interval_text(found, "95 % interval ")
    return text if factor is None else f"{text}, a factor of {interval_text(factor)}"


def _of_disagreement(findings: Findings, budget: int) -> str:
    """One line on the metrics that contradict each other, those without a common leader first."""
    found = findings.answer(budget)
    if found is None or not found.disagreements:
        return ""
    worst = max(found.disagreements, key=lambda each: each.disjoint)
    by, against, cell, better = worst.by, worst.against, worst.cell, worst.better
    return (
        f"Within {budget} evaluations the metrics disagree: {short_name(findings, cell)} has the "
        f"best {METRICS[by.metric].title} ({_against(by, cell, better)}), but "
        f"{short_name(findings, better)} the best {METRICS[against.metric].title} "
        f"({_against(against, better, cell)})."
    )


def _of_floor(findings: Findings) -> str:
    floor, reached = findings.floor.get("mmd2"), findings.at_floor("mmd2")
    if floor is None:
        return ""
    text = f"The MMD² of real data is {estimate_text(floor)} ({findings.quality['floor']})"
    if not reached:
        return f"{text}; every cell is worse."
    cheapest = min(reached, key=lambda cell: cell.nfe)
    verb = "is" if len(reached) == 1 else "are"
    text = (
        f"{text}; {len(reached)} of {_count(len(findings.done), 'cell')} {verb} not shown to be "
        f"worse, the cheapest {short_name(findings, cheapest)} with "
        f"{_count(cheapest.nfe, 'evaluation')}."
    )
    if below := findings.below_floor("mmd2"):
        text += f" {_count(len(below), 'cell')} below it by more than chance, closer to the "
        text += "training data than unseen data are: a sign of copying."
    return text


def _of_parts(findings: Findings) -> str:
    """How much of the error more steps can remove, for the cells to take at both ends."""
    parts = []
    for budget in _ends(findings.budgets):
        found = findings.answer(budget)
        split = None if found is None else findings.decomposition(found.cell)
        if split is not None:
            limit = ", less than the network's own error" if split.network_is_larger else ""
            prior = "" if split.initial is None else f", {estimate_text(split.initial)} the prior's"
            parts.append(
                f"At {budget} evaluations, more steps can lower the MMD² of "
                f"{short_name(findings, found.cell)} ({estimate_text(split.total)}) by at most "
                f"{number_text(split.gain)}{limit}: {estimate_text(split.network)} is the "
                f"network's own{prior}."
            )
    return " ".join(parts)


def _of_solvers(findings: Findings) -> str:
    parts = []
    for budget in _ends(findings.budgets):
        ranking = findings.ranking(budget, "paired_rmse")
        if ranking is not None:
            first = ranking.best
            close = [cell for cell in ranking.leading if cell is not first]
            tie = f", tied with {_names(findings, close)}" if close else ""
            parts.append(
                f"{short_name(findings, first)} within {budget} ({ranking.value(first)}{tie})"
            )
    if not parts:
        return ""
    return f"Closest to the exact solution of the ODE from the same noise: {'; '.join(parts)}."


def _of_labels(findings: Findings) -> str:
    """What interpolated and trained labels of a discrete network cost, where both were measured."""
    budget = max(findings.budgets, default=None)
    cells = {
        (cell.sampler, cell.grid): cell.metrics["paired_rmse"]
        for cell in findings.done
        if cell.nfe_asked == budget and "paired_rmse" in cell.metrics
    }
    parts = [
        f"{sampler} on {grid} {cells[sampler, grid]} and {moved}"
        for (sampler, name), moved in cells.items()
        if (grid := name.removesuffix(LADDER)) != name and (sampler, grid) in cells
    ]
    if not parts:
        return ""
    text = f"Error against the ODE within {budget} evaluations, first with labels interpolated "
    return f"{text}between the trained ones, then with these only: {'; '.join(parts)}."


def _of_recommended(findings: Findings) -> str:
    """Whether the recommended settings are beaten within the smallest and the largest budget."""
    beaten, unbeaten = [], []
    for budget in _ends(findings.budgets):
        cell = findings.recommended(budget)
        if cell is None:
            continue
        by = [
            f"{short_name(findings, ranking.best)} in {METRICS[ranking.metric].title} "
            f"({_against(ranking, ranking.best, cell)})"
            for ranking in findings.rankings(budget)
            if cell in ranking.cells and cell not in ranking.leading
        ]
        if by:
            beaten.append(f"beaten within {budget} evaluations by {' and by '.join(by)}")
        else:
            unbeaten.append(str(budget))
    if unbeaten:
        beaten.append(f"not beaten in any metric within {' or '.join(unbeaten)} evaluations")
    return f"The recommended settings are {'; and '.join(beaten)}." if beaten else ""


def _against(ranking: Ranking, better: CellResult, worse: CellResult) -> str:
    """The values of two cells, and their paired difference."""
    values = [estimate_text(ranking.value(cell)) for cell in (better, worse)]
    return f"{values[0]} against {values[1]}, difference {gain(better, worse, ranking.metric)}"


def _ends(values: Sequence[int]) -> list[int]:
    return sorted({values[0], values[-1]}) if values else []


def _names(findings: Findings, cells: Sequence[CellResult], most: int = 3) -> str:
    names = [short_name(findings, cell) for cell in cells]
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
