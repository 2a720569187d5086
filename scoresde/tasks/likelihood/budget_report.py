"""The error budget of a mean likelihood, as a plain-text table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..._text import printable
from ...likelihood.mean_budget import MeanBudget
from ...output.figures import new_figure, save_figure

__all__ = ["THROUGH_AUTOENCODER", "budget_table", "of_log_prob", "save_budget"]

THROUGH_AUTOENCODER = "bound through the autoencoder"


def budget_table(summary: Mapping[str, Any]) -> str:
    """The mean with all known errors, then the data and the method.

    Args:
        summary: A summary of `scoresde likelihood`.

    Returns:
        Lines that end in a newline.
    """
    budget = MeanBudget(**summary["budget"])
    if summary["levels"] is None:
        budget = of_log_prob(budget)
    lines = [
        *_headline(budget, summary),
        "",
        *_random(budget, summary),
        *_systematic(budget),
        _interval(budget, summary["unit"]),
        "",
        *_definition(budget, summary),
        "",
        *_about(budget, summary),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def of_log_prob(budget: MeanBudget) -> MeanBudget:
    """The budget of a mean log p: the value and all signed terms of −log p with the other sign."""
    signed = ("value", "solver", "rounding", "cut_off", "prior_mismatch")
    values = {name: getattr(budget, name) for name in signed}
    return replace(budget, **{k: None if v is None else 0.0 - v for k, v in values.items()})


def _headline(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    """The mean: bits/dim of levels, and log p itself of continuous data, with its units."""
    label = summary.get("label")  # summaries of earlier versions have none
    return [*_mean(budget, summary), *([] if label is None else [label])]


def _mean(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    error, protocol = budget.std_error, summary["protocol"]
    if "bound" in summary:
        protocol = f"{summary['bound']} ({protocol})"
    if summary["levels"] is not None:
        return [f"{budget.value:.4f} ± {_size(error)} {summary['unit']}   {protocol}"]
    dims, scaled = summary["dims"], summary.get("log_prob_nats_model_scale")
    units = "" if scaled is None else f" in the units of {printable(summary['data'])}"
    mean = f"{budget.value:.4f} ± {_size(error)} {summary['unit']}"
    if summary["unit"] == "nats/dim":
        total = None if error is None else error * dims
        mean = f"{budget.value * dims:.4f} ± {_size(total)} nats per datum{units} ({mean})"
    else:  # sets of different sizes have no dimension of their own
        mean += units
    lines = [f"log p = {mean}   {protocol}"]
    if scaled is not None:
        lines.append(
            f"log p = {scaled:.4f} nats per datum in the model's scale; the transform adds "
            f"{summary['log_det_nats']:.4f}"
        )
    return lines


def save_budget(path: Path, summary: Mapping[str, Any], typical: float) -> None:
    """Draw the sizes of all errors of the mean, and of a typical single datum, as bars.

    Args:
        path: PNG file to write.
        summary: A summary of `scoresde likelihood`.
        typical: Root mean square of the standard errors of single data; NaN if unknown.
    """
    budget, unit = MeanBudget(**summary["budget"]), summary["unit"]
    bars = [
        ("one datum, random", typical, "C7"),
        ("mean: finite test set", budget.set_error, "C0"),
        ("mean: probes and nodes", budget.probe_error, "C0"),
        (f"mean: {_drawn(summary)}", budget.draw_error, "C0"),
        ("mean: solver", budget.solver, "C1"),
        ("mean: float32", budget.rounding, "C1"),
        ("definition: cut-off at t_min", budget.cut_off, "C2"),
        ("definition: prior for p at t = 1", budget.prior_mismatch, "C2"),
    ]
    known = [(name, abs(v), colour) for name, v, colour in bars if v is not None and v == v and v]
    figure = new_figure(7.0, 0.36 * len(known) + 1.1)
    axes = figure.subplots()
    axes.barh(
        [name for name, _, _ in known], [v for _, v, _ in known], color=[c for *_, c in known]
    )
    for i, (_, value, _) in enumerate(known):
        axes.text(value, i, f" {value:.1g}", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"size, {unit}")
    sign, name = (-1, "log p = ") if summary["levels"] is None else (1, "")
    value = f"{name}{sign * budget.value:.4f} ± {_size(budget.std_error)}"
    axes.set_title(f"{value} {unit}, n = {budget.n}")
    save_figure(path, figure)


def _random(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    random = summary["levels"] is not None or "bound" in summary
    draws = "unknown from one draw" if summary["draws"] == 1 and random else ""
    return [
        _row("standard error of the mean", _size(budget.std_error), "all that is random"),
        _row("  finite test set", _size(budget.set_error), f"n = {budget.n}"),
        _row("  probes and nodes", _size(budget.probe_error), ""),
        _row(
            f"  {_drawn(summary)}",
            _size(budget.draw_error),
            draws and f"{draws}; in the first line",
        ),
    ]


def _systematic(budget: MeanBudget) -> list[str]:
    solver = _signed(budget.solver)
    if budget.solver_error is not None:
        solver += f" ± {_size(budget.solver_error)}"
    measured = f"change when refined, on {budget.solver_n} data" if budget.solver_n else ""
    float64 = f"change in float64, on {budget.rounding_n} data" if budget.rounding_n else ""
    return [_row("solver", solver, measured), _row("rounding", _signed(budget.rounding), float64)]


def _interval(budget: MeanBudget, unit: str) -> str:
    if budget.half_width is None:
        return _row("95 % interval", "unknown", "one datum")
    low, high = budget.value - budget.half_width, budget.value + budget.half_width
    return _row("95 % interval", f"{low:.4f} … {high:.4f}", f"{unit}, all of the above")


def _definition(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    """The terms that separate the number from the log-density of the data."""
    if not summary["protocol"].startswith("pf-ode"):
        return ["A bound of the reverse SDE's model: no cut-off, and the prior's part is exact."]
    size, note = _signed(budget.cut_off), f"t_min = {summary['t_min']:g}"
    if budget.cut_off is None:
        size, note = "not known", f"{note}; the score there is not that of a smooth density"
    what = "data's density"
    bound = []
    if "bound" in summary:
        what = "density of the latents"
        bound = [f"A {summary['bound']}: log p(x) is larger by the mean KL(q(z | x) ‖ p(z | x))."]
    return [
        *bound,
        f"Not errors, but the difference from the {what} if the score is exact:",
        _row("  cut-off below t_min", size, note),
        _row("  prior in place of p at t = 1", _signed(budget.prior_mismatch), ""),
    ]


def _drawn(summary: Mapping[str, Any]) -> str:
    """The name of the random error of the points that replace a datum."""
    return "draws of the latents" if "bound" in summary else "dequantization"


def _about(budget: MeanBudget, summary: Mapping[str, Any]) -> list[str]:
    levels = "continuous" if summary["levels"] is None else f"{summary['levels']} levels"
    density, truth = summary["true_density"], {}
    if density is not None:
        if summary["levels"] is None:
            density = -density
        name = "log p = " if summary["levels"] is None else ""
        truth = {"truth": f"{name}{density:.4f} {summary['unit']}, the exact density's mean"}
    rows = {
        "model": summary["checkpoint"],
        "data": f"{summary['n']} of {summary['of']} in {summary['data']} ({summary['split']}), "
        f"{summary['dims']} dimensions, {levels}, draws per datum: {summary['draws']}",
        **truth,
        "method": summary["method"],
        "trace": summary["trace"],
        "cost per datum": f"{budget.nfe:.0f} evaluations and {budget.nfe_derivative:.0f} "
        "derivative passes",
        "seed": str(summary["seed"]),
    }
    return [f"{key:<16}{printable(text)}" for key, text in rows.items()]


def _row(name: str, value: str, note: str) -> str:
    return f"{name:<32}{value:<22}{note}"


def _size(value: float | None) -> str:
    """A standard error with two significant digits."""
    return "unknown" if value is None or value != value else "0" if value == 0 else f"{value:.2g}"


def _signed(value: float | None) -> str:
    return "not measured" if value is None else f"{value:+.2g}"
