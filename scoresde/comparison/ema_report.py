"""The table and the figure of `scoresde ema`, from its summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..metrics import Estimate
from ..output.figures import new_figure, save_figure

__all__ = ["save_sweep", "sweep_table"]


def _name(summary: dict[str, Any], width: float | None) -> str:
    return f"EMA, decay {summary['ema_decay']:g}" if width is None else f"{width:g}"


def sweep_table(summary: dict[str, Any]) -> str:
    """The rows of a summary as text.

    Args:
        summary: A summary of `sweep_averages`.
    """
    to = "the EMA" if summary["reference"] is None else f"σ_rel {summary['reference']:g}"
    lines = [f"{'σ_rel':<18}{summary['unit']:<22}{'minus that of ' + to:<26}residual of the fit"]
    for row in summary["rows"]:
        own = _number(row["value"], row["std_error"])
        change = _number(row["difference"], row["difference_error"], "+")
        residual = "" if row["residual"] is None else f"{row['residual']:.1e}"
        name = _name(summary, row["sigma_rel"])
        lines.append(f"{name:<18}{own:<22}{change:<26}{residual}".rstrip())
    lines.append(
        f"smallest: σ_rel {summary['best']:g} of those measured, after {summary['step']} steps; "
        "± one standard error"
    )
    return "\n".join(lines) + "\n"


def _number(value: float | None, error: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    if not error:
        return f"{value:{sign}.3g}"
    text = str(Estimate(value, error, (1,), ""))
    return text if text.startswith("-") or not sign else f"{sign}{text}"


def save_sweep(path: Path, summary: dict[str, Any]) -> None:
    """Draw quality against relative width; on the right the paired differences, if they are known.

    Args:
        path: PNG file to write.
        summary: A summary of `sweep_averages`.
    """
    rows = [row for row in summary["rows"] if row["sigma_rel"] is not None]
    paired = any(row["difference_error"] for row in rows)
    figure = new_figure(10 if paired else 5.5, 4)
    axes = figure.subplots(1, 2 if paired else 1, squeeze=False)[0]
    for row in summary["rows"]:
        if row["sigma_rel"] is None:
            label = _name(summary, None)
            axes[0].axhline(row["value"], color="#CC6677", ls="--", label=label)
            axes[0].legend()
    _errorbars(axes[0], rows, "value", "std_error")
    axes[0].set(ylabel=summary["unit"], title=f"{summary['n']} data, step {summary['step']}")
    if paired:
        to = "the EMA" if summary["reference"] is None else f"σ_rel {summary['reference']:g}"
        rows = [row for row in rows if row["difference"] is not None]
        _errorbars(axes[1], rows, "difference", "difference_error")
        axes[1].axhline(0, color="#CC6677", ls="--")
        axes[1].set(ylabel=f"{summary['unit']} minus that of {to}", title="paired differences")
    save_figure(path, figure)


def _errorbars(axis: Any, rows: Sequence[dict[str, Any]], value: str, error: str) -> None:
    x = [row["sigma_rel"] for row in rows]
    y = [row[value] for row in rows]
    bars = [row[error] or 0.0 for row in rows]
    axis.errorbar(x, y, bars, fmt="o-", color="#332288", capsize=3)
    axis.set(xlabel="relative width σ_rel of the average", xscale="log")
    axis.set_xticks(x, [f"{width:g}" for width in x], rotation=45)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
