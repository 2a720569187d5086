"""Results of a comparison at equal evaluations, as a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from paired import BORROWED, OURS, RECOMMENDED

from scoresde.output.figures import line_style, new_figure, png_bytes

__all__ = ["LIBRARIES", "PairedResult", "figure", "leaders", "table"]

LIBRARIES = (OURS, RECOMMENDED, "diffusers", "azula", BORROWED)
PEERS = ("diffusers", "azula")


@dataclass(frozen=True)
class PairedResult:
    """One run: library, family, setting, counted evaluations and error."""

    library: str
    family: str
    setting: str
    budget: int
    nfe: int
    rmse: float


def leaders(
    results: Sequence[PairedResult], key: Callable[[PairedResult], Any], n: int = 1
) -> list[PairedResult]:
    """The best n results of each group with the same key, the best one last."""
    groups: dict[Any, list[PairedResult]] = {}
    for result in sorted(results, key=lambda r: r.rmse):
        groups.setdefault(key(result), []).append(result)
    return [result for group in groups.values() for result in group[:n][::-1]]


def table(results: Sequence[PairedResult], budgets: Sequence[int]) -> str:
    """A row per library, a column per number of evaluations, ratios to ours, and the settings."""
    best = {(r.library, r.budget): r for r in leaders(results, lambda r: (r.library, r.budget))}
    libraries = [name for name in LIBRARIES if any(key[0] == name for key in best)]
    lines = [f"{'NFE':22s}" + "".join(f"{budget:>9d}" for budget in budgets)]

    def row(name: str, cells: Sequence[float | None], form: str) -> None:
        said = ("-" if cell is None else f"{cell:{form}}" for cell in cells)
        lines.append(f"{name:22s}" + "".join(f"{cell:>9s}" for cell in said))

    cells = {
        name: [best[name, b].rmse if (name, b) in best else None for b in budgets]
        for name in libraries
    }
    for name in libraries:
        row(name, cells[name], ".3g")
    for name in libraries:
        if name not in (OURS, RECOMMENDED) and OURS in cells:
            pairs = zip(cells[OURS], cells[name], strict=True)
            row(f"ours/{name}", [a / b if a and b else None for a, b in pairs], ".2f")
    for name in PEERS:
        ratios = [
            best[RECOMMENDED, b].rmse / best[name, b].rmse
            for b in budgets
            if (RECOMMENDED, b) in best and (name, b) in best
        ]
        if ratios:
            row(f"{RECOMMENDED}/{name}", ratios, ".2f")
            lines.append(f"  worst {max(ratios):.2f}, geometric mean {geometric_mean(ratios):.2f}")
    for budget in budgets:
        lines.append(f"\nbest with at most {budget} evaluations")
        for name in libraries:
            if (name, budget) in best:
                r = best[name, budget]
                lines.append(f"  {r.rmse:8.3g}  {name} {r.family}: {r.setting} ({r.nfe} NFE)")
    return "\n".join(lines)


def figure(results: Sequence[PairedResult], title: str) -> bytes:
    """Error against evaluations as PNG: thin lines for families, thick lines for libraries."""
    canvas = new_figure(7.5, 5)
    axes = canvas.subplots()
    for i, library in enumerate(LIBRARIES):
        own, style = [r for r in results if r.library == library], line_style(i)
        for family in {r.family for r in own}:
            _line(axes, [r for r in own if r.family == family], lw=0.6, alpha=0.35, ms=0, **style)
        if own:
            _line(axes, own, lw=2, ms=5, label=library, **style)
    axes.set(xscale="log", yscale="log", xlabel="network evaluations (NFE)", title=title)
    axes.set(ylabel="RMSE to the exact ODE solution", ylim=(None, 1))
    ticks = sorted({r.budget for r in results})
    axes.set_xticks(ticks, ticks, minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return png_bytes(canvas)


def _line(axes: Any, results: Sequence[PairedResult], **style: Any) -> None:
    best = sorted(leaders(results, lambda r: r.budget), key=lambda r: r.budget)
    axes.plot([r.budget for r in best], [r.rmse for r in best], **style)
