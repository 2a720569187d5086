"""The difference of two models' likelihoods in words, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..._text import printable
from ...likelihood.mean_budget import MeanBudget
from ...metrics import Estimate
from ...output.figures import COLOURS, new_figure, save_figure
from .budget_report import of_log_prob

__all__ = ["difference_table", "needed", "save_difference", "verdict"]

QUANTILE = 1.96  # of the normal distribution, two-sided 95 %
MOST = 10**9  # a larger number of data is not named


def verdict(summary: Mapping[str, Any]) -> str:
    """Which model is better and by how much, or why this cannot be told, in one line.

    Args:
        summary: A summary of `compare_models`; its own verdict is not read.
    """
    value, half, unit = summary["difference"], summary["half_width"], summary["unit"]
    a, b = _names(summary)
    if half is None:
        return "cannot tell: one datum has no error; a larger --n is needed"
    if value == half == 0:
        return f"no difference: {a} and {b} give the same values"
    if abs(value) > half:
        better, worse = (a, b) if value < 0 else (b, a)
        nats = _with_error(-abs(value), half, summary["nats_per_unit"])
        return (
            f"{better} is better than {worse} by {_with_error(-abs(value), half)} {unit} "
            f"({nats} nats per datum)"
        )
    return f"cannot tell: {a} − {b} is {_with_error(-value, half)} {unit}; {_remedy(summary)}"


def needed(budget: MeanBudget) -> int | None:
    """The number of data that would show a difference of the measured size.

    With N data the half-width of the interval is 1.96 s/√N + c. The spread s of the differences is
    known from n data, and c is the part of solver and rounding, which does not fall with N.

    Args:
        budget: The budget of a mean difference with a known standard error.

    Returns:
        The least N; None if c alone is not smaller than the difference.
    """
    solver = abs(budget.solver or 0) + 2 * (budget.solver_error or 0)
    room = abs(budget.value) - solver - abs(budget.rounding or 0)
    spread = budget.std_error * math.sqrt(budget.n)
    return math.ceil((QUANTILE * spread / room) ** 2) if room > 0 else None


def difference_table(summary: Mapping[str, Any]) -> str:
    """The verdict, both models, the difference with all known errors, and the data.

    Args:
        summary: A summary of `compare_models`.

    Returns:
        Lines that end in a newline.
    """
    budget, unit = _budget_of(summary["budget"], summary), summary["unit"]
    sign = " of log p in the units of the data" if summary["levels"] is None else ""
    lines = [
        printable(summary["verdict"]),
        "",
        f"{unit}{sign}, {summary['protocol']}; ± is half of the 95 % interval",
        *(_model(name, place, summary) for name, place in _places(summary).items()),
        _row("A − B, paired", f"{budget.value + 0.0:+.4f} ± {_size(budget.half_width)}"),
        _row("  not paired", f"± {_size(_unpaired(summary))}"),
        "",
        *_errors(budget),
        *_definition(budget, summary),
        "",
        *_about(summary),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def save_difference(path: Path, summary: Mapping[str, Any], a: Tensor, b: Tensor) -> None:
    """Draw the differences of all data as a histogram, and B against A.

    Args:
        path: PNG file to write.
        summary: A summary of `compare_models`.
        a: Value of each datum under A, in the unit of the summary, shape (n,).
        b: Value of each datum under B, shape (n,).
    """
    value, half, unit = summary["difference"], summary["half_width"], summary["unit"]
    names = [printable(name) for name in _names(summary)]
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    left.hist((a - b).tolist(), bins=min(max(len(a) // 4, 5), 40), color=COLOURS[3])
    left.axvline(0, color="black", lw=1)
    left.axvline(value, color=COLOURS[0], lw=2, label="mean")
    if half is not None:
        label = "95 % interval of the mean"
        left.axvspan(value - half, value + half, color=COLOURS[0], alpha=0.3, lw=0, label=label)
    left.set(xlabel=f"{names[0]} − {names[1]}, {unit}; below 0: {names[0]} is better")
    left.set(ylabel="number of data")
    left.legend(fontsize=8)
    right.plot(a.tolist(), b.tolist(), ".", color=COLOURS[0], alpha=0.6)
    right.axline((float(a.mean()), float(a.mean())), slope=1, color="black", lw=1)
    right.set(xlabel=f"{names[0]}, {unit}", ylabel=f"{names[1]}, {unit}")
    figure.suptitle(printable(summary["verdict"]), fontsize=10)
    save_figure(path, figure)


def _budget_of(values: Mapping[str, Any], summary: Mapping[str, Any]) -> MeanBudget:
    """A budget as it is printed: of log p for continuous data, otherwise of bits/dim."""
    budget = MeanBudget(**values)
    return of_log_prob(budget) if summary["levels"] is None else budget


def _places(summary: Mapping[str, Any]) -> dict[str, str]:
    return {"A": summary["checkpoint"], "B": summary["against"]}


def _names(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Short names of both models; A and B if they have the same name."""
    a, b = (Path(place).stem for place in _places(summary).values())
    return ("A", "B") if a == b else (a, b)


def _with_error(value: float, half: float, scale: float = 1.0) -> str:
    """A difference in which larger is better, with half of its interval."""
    return str(Estimate(-value * scale, half * scale, (2,), "difference"))


def _remedy(summary: Mapping[str, Any]) -> str:
    """What would decide between two models that cannot be told apart."""
    if summary["difference"] == 0:
        return "no number of data would show a difference of 0"
    number = needed(MeanBudget(**summary["budget"]))
    if number is None:
        return "more data cannot help, the errors of solver and dtype are too large"
    if number > MOST:
        return "no feasible number of data would show so small a difference"
    short = f" ({summary['data']} has {summary['of']:,})" if number > summary["of"] else ""
    return f"n = {number:,} would, if the difference stays the same{short}"


def _unpaired(summary: Mapping[str, Any]) -> float | None:
    """Half-width of the interval that two separate results would give."""
    halves = [one["half_width"] for one in summary["models"].values()]
    return None if None in halves else math.hypot(*halves)


def _model(name: str, place: str, summary: Mapping[str, Any]) -> str:
    found = _budget_of(summary["models"][name], summary)
    cost = f"{found.nfe:.0f} evaluations, {found.nfe_derivative:.0f} derivative passes"
    value = f"{found.value:.4f} ± {_size(found.half_width)}"
    return f"{_row(f'{name}  {printable(place)}', value)}{cost}"


def _errors(budget: MeanBudget) -> list[str]:
    """The parts of the error of the difference."""
    solver, rounding = _signed(budget.solver), _signed(budget.rounding)
    if budget.solver_error is not None:
        solver += f" ± {_size(budget.solver_error)}"
    measured = f"change when refined, on {budget.solver_n} data" if budget.solver_n else ""
    double = f"change in float64, on {budget.rounding_n} data" if budget.rounding_n else ""
    random = f"of n = {budget.n} differences, all that is random"
    return [
        _row("standard error", _size(budget.std_error)) + random,
        _row("solver", solver) + measured,
        _row("rounding", rounding) + double,
    ]


def _definition(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    """The part of the difference that comes from the definition of the protocol."""
    if not summary["protocol"].startswith("pf-ode"):
        return []
    return [
        "Not errors, but parts of the difference that come from the definition:",
        _row("  cut-off below t_min", _signed(budget.cut_off)) + f"t_min = {summary['t_min']:g}",
        _row("  prior in place of p at t = 1", _signed(budget.prior_mismatch)),
    ]


def _about(summary: Mapping[str, Any]) -> list[str]:
    levels = "continuous" if summary["levels"] is None else f"{summary['levels']} levels"
    rows = {
        "data": f"{summary['n']} of {summary['of']} in {summary['data']} ({summary['split']}), "
        f"{summary['dims']} dimensions, {levels}, draws per datum: {summary['draws']}",
        "method": summary["method"],
        "trace": summary["trace"],
        "seed": str(summary["seed"]),
    }
    return [f"{key:<16}{printable(text)}" for key, text in rows.items()]


def _row(name: str, value: str) -> str:
    return f"{name:<32}{value:<22}"


def _signed(value: float | None) -> str:
    """A systematic part with two significant digits."""
    return "not known" if value is None else f"{value + 0.0:+.2g}"


def _size(value: float | None) -> str:
    """A size with two significant digits."""
    return "unknown" if value is None or value != value else "0" if value == 0 else f"{value:.2g}"
