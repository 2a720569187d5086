"""Accuracy against cost of log-likelihoods, as a table, a verdict and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import LogLocator

from scoresde.output.figures import COLOURS, MARKERS, new_figure, png_bytes

__all__ = [
    "ALLOWED",
    "CONTROLLED",
    "ODE",
    "PATH",
    "STANDARD",
    "Row",
    "figure",
    "table",
    "verdict",
    "winners",
]

STANDARD, ODE = "standard", "other ODE solves, fixed probes"
PATH, CONTROLLED = "path quadrature", "path quadrature, Gaussian control (*)"
KINDS = (STANDARD, ODE, PATH, CONTROLLED)

ALLOWED = 1e-3  # bias of a mean, bits/dim


@dataclass(frozen=True)
class Row:
    """The cost of a method per sample, and its errors in bits/dim; NaN if not applicable.

    Attributes:
        label: The method.
        kind: Its group.
        nfe: Forward passes.
        passes: Derivative passes.
        units: Forward and derivative passes together, in forward passes.
        draws: Number of seeds.
        rms: Root mean square error of one sample.
        bias: Mean error.
        bias_error: Standard error of `bias`.
        stated: Root mean square of the stated standard errors.
        cover: Share of the stated 95 % intervals that hold the truth.
        bare_rms: `rms` without the path's correction.
        bare_bias: `bias` without the path's correction.
        path_bias: Mean error from the path's steps.
        path_bias_error: Standard error of `path_bias`.
    """

    label: str
    kind: str
    nfe: float
    passes: float
    units: float
    draws: int
    rms: float
    bias: float
    bias_error: float
    stated: float
    cover: float = math.nan
    bare_rms: float = math.nan
    bare_bias: float = math.nan
    path_bias: float = math.nan
    path_bias_error: float = math.nan

    @property
    def fits(self) -> bool:
        """Whether the path bias is allowed, and the measured bias does not contradict it."""
        return abs(self.path_bias) <= ALLOWED and abs(self.bias) <= ALLOWED + 2 * self.bias_error


HEADINGS = (
    ("NFE", 5), ("passes", 7), ("units", 8), ("of std", 8), ("draws", 6), ("RMS", 8),
    ("bias ± SE", 18), ("path bias ± SE", 18), ("stated", 8), ("cover", 7), ("RMS", 8), ("bias", 9),
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """All rows, in the given order; the last two columns are without the path's correction."""
    width = max(len(row.label) for row in rows)
    head = "".join(f"{name:>{w}}" for name, w in HEADINGS)
    lines = [f"{'':{width}}{head}  (not corrected)"]
    for row in rows:
        cells = (
            f"{row.nfe:.0f}",
            f"{row.passes:.0f}",
            f"{row.units:.1f}",
            f"1/{rows[0].units / row.units:.1f}",
            f"{row.draws}",
            f"{row.rms:.4f}",
            _interval(row.bias, row.bias_error),
            _interval(row.path_bias, row.path_bias_error),
            _number(row.stated, ".4f"),
            _number(row.cover, ".1%"),
            _number(row.bare_rms, ".4f"),
            _number(row.bare_bias, "+.4f"),
        )
        said = (f"{cell:>{w}}" for cell, (_, w) in zip(cells, HEADINGS, strict=True))
        lines.append(f"{row.label:{width}}{''.join(said)}")
    return "\n".join(lines)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _interval(value: float, error: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.5f} ±{error:.5f}"


def winners(rows: Sequence[Row]) -> dict[str, Row]:
    """The best of the paths with an allowed bias and at most the standard's error."""
    standard = rows[0]
    good = [r for r in rows if r.fits and r.rms <= standard.rms]
    if not good:
        return {}
    found = {"cheapest": min(good, key=lambda r: (r.units, r.rms))}
    for part in (5, 10):
        cheap = [r for r in good if part * r.units <= standard.units]
        if cheap:
            found[f"best at ≤ 1/{part}"] = min(cheap, key=lambda r: r.rms)
    return found


def verdict(rows: Sequence[Row]) -> str:
    """The cheapest path as good as the standard, and the best ones at fractions of its cost."""
    standard, found = rows[0], winners(rows)
    asked = f"RMS ≤ {standard.rms:.4f} (the standard's) and |bias| ≤ {ALLOWED:g} bits/dim"
    lines = [f"verdict: {asked}"]
    for name in ("cheapest", "best at ≤ 1/5", "best at ≤ 1/10"):
        lines.append(f"  {name:15} {_said(standard, found[name]) if name in found else 'none'}")
    return "\n".join(lines)


def _said(standard: Row, row: Row) -> str:
    return (
        f"{row.label}: 1/{standard.units / row.units:.1f} of the cost, RMS {row.rms:.4f}, "
        f"bias {_interval(row.bias, row.bias_error)}, "
        f"path bias {_interval(row.path_bias, row.path_bias_error)}"
    )


def figure(rows: Sequence[Row], title: str) -> bytes:
    """RMS error against cost, both logarithmic, as PNG; small hollow marks: no correction."""
    canvas, standard = new_figure(7.5, 5), rows[0]
    axes = canvas.subplots()
    for i, kind in enumerate(KINDS):
        # an exact trace's error is off the scale
        own = [r for r in rows if r.kind == kind and r.rms > 0.02 * standard.rms]
        style = {"color": COLOURS[i], "marker": "*" if kind == STANDARD else MARKERS[i], "ls": ""}
        xs, size = [r.units for r in own], 14 if kind == STANDARD else 6
        axes.plot(xs, [r.rms for r in own], ms=size, label=kind, **style)
        axes.plot(xs, [r.bare_rms for r in own], ms=4, mfc="none", **style)
    ringed = winners(rows).values()
    ring = {"ms": 14, "mfc": "none", "mec": "black", "ls": "", "label": "of the verdict"}
    axes.plot([r.units for r in ringed], [r.rms for r in ringed], "o", **ring)
    _guides(axes, standard)
    axes.set(xscale="log", yscale="log", xlabel="forward passes per sample", title=title)
    axes.set(ylabel="RMS error of one log-likelihood, bits/dim")
    axes.grid(alpha=0.3, which="both")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    canvas.legend(fontsize="small", loc="outside lower center", ncols=3)
    return png_bytes(canvas)


def _guides(axes: Any, standard: Row) -> None:
    """Lines at the standard's error and at fractions of its cost."""
    axes.axhline(standard.rms, color="grey", lw=0.8, ls="--")
    for part in (1, 5, 10):
        units = standard.units / part
        axes.axvline(units, color="grey", lw=0.8, ls="--")
        text = "standard's cost" if part == 1 else f"1/{part}"
        axes.text(units, 0.02, f" {text}", transform=axes.get_xaxis_transform(), fontsize="small")
