"""The cells of a comparison: sampler × grid × budget, each with the most steps it allows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._tensor import check_number
from ..fingerprint import fingerprint
from ..grid import snapped, uniform
from ..names.grids import GridFile
from ..plain import check_unique
from ..samplers import Sampler, sample
from ..sde import SDE
from ..steps import Grid, count_evaluations, free_model, largest_steps, on_ladder

__all__ = ["Cell", "Entry", "asked", "plan_cells"]

# Largest difference in t between the ends of a grid from a file and those of the comparison.
SAME_END = 1e-9
SLUG_AT_MOST = 60  # characters of a name in a file name: a grid's name may be a long path


@dataclass(frozen=True)
class Entry:
    """A sampler to be compared.

    Attributes:
        label: Its name in tables and figures.
        sampler: The sampler.
        tolerances: For an adaptive method, rtol = atol of each of its cells; empty for a sampler
            that takes the steps of a grid.
    """

    label: str
    sampler: Sampler
    tolerances: tuple[float, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One measurement: a sampler on a time grid that its budget allows.

    Attributes:
        label: The sampler's label.
        sampler: The sampler.
        grid: Name of the grid; empty for an adaptive method.
        budget: Evaluations allowed per sample, the final denoising included; None for an
            adaptive method.
        tolerance: rtol = atol of an adaptive method.
        ts: Time grid, shape (N + 1,); None if the cell cannot run.
        cost: Evaluations per sample, counted on N(0, 1). Only those of an adaptive method depend
            on the model.
        deterministic: Whether the end point depends only on x_T.
        reason: Why it cannot run.
    """

    label: str
    sampler: Sampler
    grid: str = ""
    budget: int | None = None
    tolerance: float | None = None
    ts: Tensor | None = None
    cost: int = 0
    deterministic: bool = True
    reason: str = ""

    @property
    def name(self) -> str:
        """The request of this cell in words, unique within a plan."""
        parts = (self.label, self.grid, asked(self.budget, self.tolerance))
        return " ".join(part for part in parts if part)

    @property
    def slug(self) -> str:
        """The readable part of the cell's file name; two cells may have the same."""
        limit = f"nfe{self.budget}" if self.tolerance is None else f"tol{self.tolerance:g}"
        parts = [self.label, *([self.grid] if self.grid else []), limit]
        texts = [re.sub(r"[^A-Za-z0-9._=-]+", "-", part)[-SLUG_AT_MOST:] for part in parts]
        return "--".join(texts)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the sampler and its times; a cell that cannot run has none."""
        # Stored comparisons have an empty reason in it.
        return fingerprint({"sampler": self.sampler, "ts": self.ts, "reason": ""})

    @property
    def steps(self) -> int | None:
        """N, the grid's number of steps; None for an adaptive method, or if it cannot run."""
        return None if self.ts is None or self.tolerance is not None else len(self.ts) - 1


def asked(budget: int | None, tolerance: float | None) -> str:
    """The budget of a cell, or the tolerance of an adaptive method, in words."""
    return f"NFE ≤ {budget}" if tolerance is None else f"tolerance {tolerance:g}"


def plan_cells(
    sde: SDE,
    entries: Sequence[Entry],
    grids: Mapping[str, Grid | GridFile],
    budgets: Sequence[int],
    t_min: float,
    snap: bool = False,
) -> list[Cell]:
    """All cells: sampler × grid × budget, and sampler × tolerance for adaptive methods.

    A grid from a file has its own number of steps. It gives one cell, at the least budget that
    allows it.

    Args:
        sde: The SDE of the model.
        entries: Samplers, each once.
        grids: Grid functions, or grids from files, by name.
        budgets: Evaluations per sample, the final denoising included; each at least 1.
        t_min: Last time.
        snap: Whether the model is exact at the discrete times of its ladder only. All grids are
            then moved to these times.

    Returns:
        The cells in the order asked; those that cannot run carry the reason.

    Raises:
        TypeError: If an entry has tolerances and its sampler is not adaptive.
        ValueError: If a sampler, budget or tolerance is given twice, `t_min` is out of range, or
            a file's grid does not run from 1 to `t_min`.
    """
    check_number("t_min", t_min, above=0, below=1)
    check_unique("sampler", [entry.label for entry in entries])
    check_unique("nfe", budgets)
    for budget in budgets:
        check_number("nfe", budget, at_least=1)
    fixed = {
        name: _times_of_file(sde, name, grid, t_min, snap)
        for name, grid in grids.items()
        if isinstance(grid, GridFile)
    }
    cells: list[Cell] = []
    for entry in entries:
        wanted = _wanted(entry, grids, budgets)
        reason = entry.sampler.refusal(snap)
        if reason is not None:
            cells += [replace(cell, reason=reason) for cell in wanted]
            continue
        deterministic = not _is_random(sde, entry.sampler, t_min)
        for cell in (replace(cell, deterministic=deterministic) for cell in wanted):
            if cell.tolerance is not None:
                ts = uniform(sde, 1, t_min)
                cells.append(replace(cell, ts=ts, cost=count_evaluations(sde, cell.sampler, ts)))
            elif cell.grid in fixed:
                cells.append(_on_fixed_times(sde, cell, fixed[cell.grid], budgets))
            else:
                grid = grids[cell.grid]
                cells.append(_within_budget(sde, cell, on_ladder(grid) if snap else grid, t_min))
    return cells


def _wanted(
    entry: Entry, grids: Mapping[str, Grid | GridFile], budgets: Sequence[int]
) -> list[Cell]:
    """The cells of one sampler, without times."""
    label, sampler = entry.label, entry.sampler
    if entry.tolerances:
        if not sampler.adaptive:
            raise TypeError(f"{label} has no tolerances: it takes the steps of a grid")
        check_unique("tolerance", entry.tolerances)
        return [
            Cell(label, replace(sampler, rtol=tol, atol=tol), tolerance=tol)
            for tol in entry.tolerances
        ]
    return [
        Cell(label, sampler, name, budget)
        for name, grid in grids.items()
        for budget in ([max(budgets)] if isinstance(grid, GridFile) else budgets)
    ]


def _within_budget(sde: SDE, cell: Cell, grid: Grid, t_min: float) -> Cell:
    """The cell with the most steps that its budget allows, or the reason why there are none."""
    steps = largest_steps(sde, cell.sampler, grid, cell.budget, t_min)
    ts = grid(sde, max(steps, 1), t_min)
    cost = count_evaluations(sde, cell.sampler, ts)
    if steps == 0:
        return replace(cell, reason=f"one step takes {cost} evaluations with the final denoising")
    return replace(cell, ts=ts, cost=cost)


def _on_fixed_times(sde: SDE, cell: Cell, ts: Tensor, budgets: Sequence[int]) -> Cell:
    """The cell on given times, with the least budget that allows them."""
    cost = count_evaluations(sde, cell.sampler, ts)
    enough = [budget for budget in budgets if budget >= cost]
    if not enough:
        reason = f"its {len(ts) - 1} steps take {cost} evaluations with the final denoising"
        return replace(cell, reason=reason)
    return replace(cell, budget=min(enough), ts=ts, cost=cost)


def _times_of_file(sde: SDE, name: str, grid: GridFile, t_min: float, snap: bool) -> Tensor:
    """The times of a file's grid, which must have the ends of all other cells."""
    ts = grid.times(sde)
    if abs(float(ts[0]) - 1) > SAME_END or abs(float(ts[-1]) - t_min) > SAME_END:
        raise ValueError(
            f"grid {name} runs from t = {float(ts[0]):g} to {float(ts[-1]):g}, and a comparison "
            f"from 1 to t_min = {t_min:g}"
        )
    return snapped(sde, ts) if snap else ts


def _is_random(sde: SDE, sampler: Sampler, t_min: float) -> bool:
    """Whether two seeds lead from one x_T to two end points, tried on N(0, 1)."""
    model, ts = free_model(sde), uniform(sde, 3, t_min)
    start = torch.ones(1, 1) * sde.prior_std
    first, second = (sample(model, sampler, ts, (1, 1), seed=s, x_init=start).x for s in (0, 1))
    return not torch.equal(first, second)
