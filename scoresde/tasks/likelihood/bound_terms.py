"""The terms of DDPM's variational bound, as a table and as a figure over the times of the chain."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..._files import atomic_write
from ..._tensor import float64
from ...likelihood.vlb.chain import ReverseChain
from ...output.figures import new_figure, save_figure

__all__ = ["BoundTerms"]

COLUMNS = ("term", "t", "s", "steps", "value", "std_error", "cumulative", "cumulative_error")


@dataclass(frozen=True)
class BoundTerms:
    """Means over n data of the terms of the bound L_T + Σ L_{t−1} + L_0, per dimension.

    The data are independent, so a standard error is the spread over the data, divided by √n. It
    contains the errors of the draws.

    Attributes:
        unit: Unit of the values, such as "bits/dim".
        edges: Times that separate the terms L_{t−1}, decreasing, shape (M + 1,).
        steps: Number of steps of the chain in each of these terms, shape (M,); it is not an integer
            where an edge divides a step.
        values: L_T, then L_{t−1} of M parts of the chain, then L_0, shape (M + 2,).
        errors: Their standard errors, NaN for one datum, shape (M + 2,).
        sums: Running sums of the values, shape (M + 2,); the last one is the bound.
        sum_errors: The standard errors of the running sums, shape (M + 2,).
    """

    unit: str
    edges: Tensor
    steps: Tensor
    values: Tensor
    errors: Tensor
    sums: Tensor
    sum_errors: Tensor

    @classmethod
    def of(cls, terms: Tensor, chain: ReverseChain, scale: float, unit: str) -> BoundTerms:
        """Average the terms over the data.

        Args:
            terms: `Budget.terms` in nats, shape (n, M + 2).
            chain: The chain of the bound.
            scale: Nats per datum in one `unit`.
            unit: Unit of the result.
        """
        terms = terms / scale
        sums = terms.cumsum(1)
        return cls(unit, *chain.places, *_mean_and_error(terms), *_mean_and_error(sums))

    def write(self, path: Path) -> None:
        """Write one row per term as CSV; an unknown error is left empty."""
        names = ["L_T", *["L_{t-1}"] * len(self.steps), "L_0"]
        ends = [1.0, *self.edges.tolist()], [*self.edges.tolist(), 0.0]
        numbers = (self.values, self.errors, self.sums, self.sum_errors)
        steps = ["", *self.steps.tolist(), ""]
        columns = (names, *ends, steps, *(column.tolist() for column in numbers))
        with atomic_write(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in zip(*columns, strict=True):
                writer.writerow(["" if value != value else value for value in row])

    def draw(self, path: Path) -> None:
        """Draw the terms per step, and their running sum from noise to data."""
        figure = new_figure(11, 4.2)
        left, right = figure.subplots(1, 2)
        self._draw_steps(left)
        self._draw_sums(right)
        for axis, legend in ((left, "upper left"), (right, "center left")):
            # most of the bound is in a small part of [0, 1], at the end of the chain
            axis.set(xlabel="time t, from noise to data", xscale="log")
            axis.set_xlim(1.3, float(self.edges[-1]) / 1.5)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc=legend)
        figure.suptitle(_total(self))
        save_figure(path, figure)

    def _draw_steps(self, axis) -> None:  # noqa: ANN001 (matplotlib is imported only to draw)
        first, middle, last = self.values[0], self.values[1:-1] / self.steps, self.values[-1]
        error = self.errors[1:-1] / self.steps
        positive = middle.where(middle > 0, math.nan)  # an estimate of a small term may be negative
        axis.stairs(positive, self.edges, baseline=None, color="C0", label="$L_{t-1}$ of a step")
        low = (middle - error).clamp(min=float(positive.nan_to_num(math.inf).min()) / 3)
        ends = (first, 1, "$L_T$", "C1"), (last, float(self.edges[-1]), "$L_0$", "C2")
        for value, place, name, colour in ends:
            if value > 0:
                axis.plot(place, value, "o", color=colour, label=f"{name} = {float(value):.3g}")
        axis.fill_between(
            self.edges.repeat_interleave(2)[1:-1],
            *(bound.repeat_interleave(2) for bound in (low, middle + error)),
            color="C0",
            alpha=0.25,
            label="± one standard error",
        )
        axis.set(ylabel=f"{self.unit} per step", yscale="log", title="terms")

    def _draw_sums(self, axis) -> None:  # noqa: ANN001
        sums, error = self.sums[:-1], self.sum_errors[:-1]
        axis.plot(self.edges, sums, color="C0", label=r"$L_T + \sum L_{t-1}$")
        axis.fill_between(self.edges, sums - error, sums + error, color="C0", alpha=0.25)
        end, total = float(self.edges[-1]), float(self.sums[-1])
        axis.errorbar([end], [total], [float(self.sum_errors[-1])], fmt="ko", capsize=3)
        axis.plot([end, end], [float(sums[-1]), total], "k:", label="$L_0$")
        axis.axhline(total, color="k", lw=0.8, ls="--", label="bound")
        axis.set(ylabel=self.unit, title="running sum")


def _mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the rows and its standard error, NaN for one row."""
    values = values.to(torch.float64)
    error = values.std(0) if len(values) > 1 else float64([math.nan]).expand(values.shape[1])
    return values.mean(0), error / math.sqrt(len(values))


def _total(terms: BoundTerms) -> str:
    """The bound with its three parts, in words."""
    parts = terms.values[0], terms.values[1:-1].sum(), terms.values[-1]
    first, steps, last = (f"{float(part):.3g}" for part in parts)
    error = float(terms.sum_errors[-1])
    spread = "" if math.isnan(error) else f" ± {error:.2g}"
    return (
        f"{float(terms.sums[-1]):.4f}{spread} {terms.unit}  =  $L_T$ {first}  +  "
        f"$\\sum L_{{t-1}}$ {steps}  +  $L_0$ {last}"
    )
