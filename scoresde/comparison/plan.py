"""The cells of a comparison: sampler × grid × budget, each with the most steps in its budget."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .._identity import foreign_identity
from ..fingerprint import fingerprint
from ..grid import snapped, uniform
from ..names.grids import GridFile
from ..names.samplers import sampler_label
from ..samplers import DDIM, Sampler
from ..samplers.recommended import recommended
from ..samplers.steps import Grid, count_evaluations, draws_noise, largest_steps, on_ladder
from ..score import ScoreModel
from ..sde import SDE
from .labels import RECOMMENDED

__all__ = ["Cell", "asked", "likely_evaluations", "plan_cells", "recommended_cells"]

# An adaptive method takes more evaluations on a network than on N(0, 1), where they are counted:
# 1.1 to 4.4 times for dopri5, bosh3 and dopri8 on four shipped networks, and twice in the middle.
ADAPTIVE_FACTOR = 2

SAME_START = 1e-9  # largest difference between t = 1 and the first time of a grid from a file
SLUG_AT_MOST = 60  # characters of a name in a file name: a grid's name may be a long path


@dataclass(frozen=True)
class Cell:
    """One measurement: a sampler on a time grid that its budget allows.

    Attributes:
        label: The sampler's label.
        sampler: The sampler.
        grid: Name of the grid; empty for an adaptive method. A grid may have a last time of its
            own.
        budget: Evaluations allowed per sample, the final denoising included; None for an
            adaptive method.
        ts: Time grid, shape (N + 1,); None if the cell cannot run.
        cost: Evaluations per sample, counted on N(0, 1). Only for an adaptive method do they depend
            on the model.
        deterministic: Whether the end point depends only on x_T.
        denoise: Whether to finish with E[x_0 | x] at the last time.
        setting: The sampler that was chosen, as text, for "recommended"; otherwise empty.
        reason: The reason why the cell cannot run.
    """

    label: str
    sampler: Sampler
    grid: str = ""
    budget: int | None = None
    ts: Tensor | None = None
    cost: int = 0
    deterministic: bool = True
    denoise: bool = True
    setting: str = ""
    reason: str = ""

    @property
    def tolerance(self) -> float | None:
        """rtol = atol of an adaptive method; None for a sampler on a grid."""
        return self.sampler.rtol if self.sampler.adaptive else None

    @property
    def name(self) -> str:
        """The request of this cell in words, unique within a plan."""
        parts = (self.label, self.grid, asked(self.budget, self.tolerance))
        return " ".join(part for part in parts if part)

    @property
    def slug(self) -> str:
        """The readable part of the cell's file name; two cells may share it."""
        limit = f"nfe{self.budget}" if self.tolerance is None else f"tol{self.tolerance:g}"
        parts = [part for part in (self.label, self.grid, limit) if part]
        return "--".join(re.sub(r"[^A-Za-z0-9._=-]+", "-", p)[-SLUG_AT_MOST:] for p in parts)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the sampler and its times; a cell that cannot run has no times.

        For a sampler of the user its code is a part of it.
        """
        # Stored comparisons contain an empty reason in this fingerprint.
        content = {"sampler": self.sampler, "ts": self.ts, "reason": ""}
        if (code := foreign_identity(self.sampler)) is not None:
            content["sampler"] = code
        return fingerprint(content if self.denoise else content | {"denoise": False})

    @property
    def steps(self) -> int | None:
        """N, the grid's number of steps; None for an adaptive method, or if it cannot run."""
        return None if self.ts is None or self.tolerance is not None else len(self.ts) - 1


def likely_evaluations(cell: Cell) -> int:
    """Evaluations per sample that a cell is expected to take; exact unless it is adaptive."""
    return cell.cost if cell.tolerance is None else ADAPTIVE_FACTOR * cell.cost


def asked(budget: int | None, tolerance: float | None) -> str:
    """The budget of a cell, or the tolerance of an adaptive method, in words."""
    return f"NFE ≤ {budget}" if tolerance is None else f"tolerance {tolerance:g}"


def plan_cells(
    sde: SDE,
    samplers: Iterable[tuple[str, Sampler]],
    grids: Mapping[str, Grid | GridFile],
    budgets: Sequence[int],
    t_min: float,
    snap: bool = False,
    learned_variance: bool = False,
    evaluations: int = 1,
) -> list[Cell]:
    """All cells: sampler × grid × budget, and one for each adaptive method.

    A grid from a file has a fixed number of steps. It gives one cell, at the least budget that
    allows these steps.

    Args:
        sde: The SDE of the model.
        samplers: Label and sampler; an adaptive method appears once per tolerance.
        grids: Grid functions, or grids from files, by name.
        budgets: Evaluations per sample, the final denoising included; all different, at least 1.
        t_min: Last time of the grids that have none of their own.
        snap: Whether the model is exact only at the discrete times of its ladder. All grids are
            then moved to these times.
        learned_variance: Whether the model has a learned variance.
        evaluations: Evaluations of networks that one of the model takes at most.

    Returns:
        The cells in the requested order; cells that cannot run hold the reason.

    Raises:
        ValueError: If a file's grid does not begin at t = 1.
    """
    known: dict[str, Grid | Tensor] = {}
    for name, grid in grids.items():
        if isinstance(grid, GridFile):
            known[name] = _times_of_file(sde, name, grid, snap)
        else:
            known[name] = on_ladder(grid) if snap else grid
    cells: list[Cell] = []
    for label, sampler in samplers:
        reason = sampler.refusal(snap, learned_variance) or ""
        deterministic = bool(reason) or not draws_noise(sde, sampler, t_min)
        cell = Cell(label, sampler, deterministic=deterministic, reason=reason)
        if sampler.adaptive:
            wanted = [(cell, uniform(sde, 1, t_min))]
        else:
            wanted = [
                (replace(cell, grid=name, budget=budget), grid)
                for name, grid in known.items()
                for budget in (sorted(budgets)[-1:] if isinstance(grid, Tensor) else budgets)
            ]
        cells += [
            c if reason else _with_times(sde, c, grid, budgets, t_min, evaluations)
            for c, grid in wanted
        ]
    return cells


def _with_times(
    sde: SDE,
    cell: Cell,
    grid: Grid | Tensor,
    budgets: Sequence[int],
    t_min: float,
    each: int,
) -> Cell:
    """The cell with its times and counted evaluations, or with the reason why it cannot run.

    A grid function gives the most steps that the cell's budget allows. Given times get the least
    budget that allows them.
    """
    if isinstance(grid, Tensor):
        ts = grid
    else:
        steps = largest_steps(sde, cell.sampler, grid, cell.budget // each, t_min)
        ts = grid(sde, max(steps, 1), t_min)
    cost, steps = each * count_evaluations(sde, cell.sampler, ts), len(ts) - 1
    if cell.budget is None:
        return replace(cell, ts=ts, cost=cost)
    if cost > cell.budget:
        words = "one step takes" if steps == 1 else f"its {steps} steps take"
        return replace(cell, reason=f"{words} {cost} evaluations with the final denoising")
    if isinstance(grid, Tensor):
        cell = replace(cell, budget=min(budget for budget in budgets if budget >= cost))
    return replace(cell, ts=ts, cost=cost)


def _times_of_file(sde: SDE, name: str, grid: GridFile, snap: bool) -> Tensor:
    """The times of a file's grid, which must begin at t = 1, where all cells have one x_T."""
    ts = grid.times(sde)
    if abs(float(ts[0]) - sde.t_regular) > SAME_START:
        raise ValueError(
            f"grid {name} begins at t = {float(ts[0]):.7g}, and all samples of a comparison at "
            f"t = {sde.t_regular:.10g}"
        )
    return snapped(sde, ts) if snap else ts


def recommended_cells(
    model: ScoreModel, budgets: Sequence[int], shape: Sequence[int]
) -> list[Cell]:
    """One cell for each budget with the settings that `recommended` chooses for it.

    Args:
        model: The score model; it is not evaluated.
        budgets: Evaluations per sample, the final denoising included.
        shape: Shape of one sample without its batch axis.
    """
    cells = []
    for budget in budgets:
        try:
            chosen = recommended(model, budget, shape, model.sde.t_regular)
        except ValueError as error:
            cells.append(Cell(RECOMMENDED, DDIM(), budget=budget, reason=str(error)))
            continue
        sampler, ts = chosen.sampler, chosen.ts
        cost = count_evaluations(model.sde, sampler, ts) - (not chosen.denoise)
        cost *= model.evaluations
        cell = Cell(
            RECOMMENDED,
            sampler,
            chosen.grid,
            budget,
            ts,
            cost,
            deterministic=not draws_noise(model.sde, sampler, float(ts[-1])),
            denoise=chosen.denoise,
            setting=sampler_label(sampler),
        )
        cells.append(cell)
    return cells
