"""Where along the trajectory the error of samplers arises: their states against the exact ones.

A few deterministic samplers run again on a few samples. After each step the state x of the sampler
is compared with the solution x* of the probability-flow ODE at the same time and from the same
noise:

    error = √(mean (x − x*)²) / √(α² + σ²),   the mean over samples and dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._condition import take_rows
from .._tensor import NonFiniteError
from ..fingerprint import fingerprint
from ..output.figures import line_style, new_figure
from ..output.parts import load_part, save_part
from ..samplers import ProbabilityFlowODE, sample
from ..sde import SDE
from .draw import draw
from .labels import RECOMMENDED
from .plan import Cell
from .plots import Drawn, Name, name_lines, saved, style
from .summary import number_text
from .sweep import Sweep

__all__ = ["TRAJECTORY", "Trajectories"]

TRAJECTORY = "trajectory.npz"
SHOWN = 4  # samplers
NUMBERS = 64  # of the samples' numbers about as many, and at least LEAST samples
LEAST = 8
METHOD, TOLERANCE = "dopri5", 1e-5  # of the exact states
EVALUATIONS = 16  # of the method from one time to the next, about
SAME_TIME = 10  # digits


@dataclass(frozen=True)
class Trajectories:
    """The errors of some samplers after each of their steps.

    Attributes:
        budget: The evaluations that the samplers were allowed.
        n: Number of samples.
        names: Name of each sampler.
        levels: Noise level σ/α after each step, for each sampler.
        errors: Error after each step, for each sampler.
    """

    budget: int
    n: int
    names: list[str]
    levels: list[np.ndarray]
    errors: list[np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> Trajectories | None:
        """The errors in the folder of a comparison; None if they were not measured.

        Raises:
            ValueError: If the file is damaged.
        """
        path = folder / TRAJECTORY
        if not path.is_file():
            return None
        part = load_part(path)
        try:
            budget, n, names = (part.about[key] for key in ("budget", "n", "names"))
            found = [[part.arrays[f"{kind}_{i}"] for i in range(len(names))] for kind in KINDS]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged; the command that made it makes it again"
            ) from error
        return cls(budget, n, names, *found) if names else None

    @property
    def text(self) -> str:
        """The noise level from which on the error of each sampler is at least half the last one."""
        each = zip(self.names, self.levels, self.errors, strict=True)
        texts = [f"{number_text(_half(*found))} ({name})" for name, *found in each]
        return f"Half of the last error has arisen by σ/α = {', '.join(texts)}."

    @property
    def figure(self) -> Drawn:
        """The error after each step against the noise level, which decreases to the right."""
        figure = new_figure(5.0, 3.0)
        axes = figure.subplots()
        names = []
        for i, (name, levels, errors) in enumerate(
            zip(self.names, self.levels, self.errors, strict=True)
        ):
            look = line_style(i) | {"lw": 1.3, "ms": 4.5, "mec": "#ffffff", "mew": 0.5}
            axes.plot(levels, errors, **look)
            names.append(Name(name, (levels[-1], errors[-1]), look))
        axes.set(xscale="log", yscale="log", xlabel="noise level σ/α", ylabel="error of the state")
        axes.invert_xaxis()
        style(axes)
        name_lines(axes, names)
        return saved(figure, "trajectory")


KINDS = ("levels", "errors")


def chosen(cells: Sequence[Cell]) -> list[Cell]:
    """At most four deterministic cells of the middle budget: recommended, then as in the plan."""
    cells = [c for c in cells if c.deterministic and c.ts is not None and c.tolerance is None]
    budgets = sorted({cell.budget for cell in cells})
    if not budgets:
        return []
    same = [cell for cell in cells if cell.budget == budgets[(len(budgets) - 1) // 2]]
    return sorted(same, key=lambda cell: cell.label != RECOMMENDED)[:SHOWN]


def made_from(sweep: Sweep) -> str:
    """Fingerprint of everything that determines the errors."""
    cells = [cell.fingerprint for cell in chosen(sweep.cells)]
    return fingerprint([sweep.common, cells, _few(sweep), METHOD, TOLERANCE])


def likely_evaluations(sweep: Sweep) -> float:
    """Expected cost, in evaluations of the network for all samples of a cell."""
    if sweep.solver is None:
        return 0.0
    cells = chosen(sweep.cells)
    exact = EVALUATIONS * len(_times(cells))
    return (exact + sum(cell.cost for cell in cells)) * _few(sweep) / sweep.settings.n


def measure(sweep: Sweep, folder: Path) -> None:
    """Measure the errors and write them to a folder.

    Args:
        sweep: A sweep with a reference solution.
        folder: Folder of the comparison.
    """
    cells = chosen(sweep.cells)
    exact = _exact(sweep, _times(cells))
    names, arrays = [], {}
    for cell in cells:
        try:
            states = _states(sweep, cell)
        except NonFiniteError:
            continue  # the sweep says so of this cell
        level, error = zip(
            *(_error(sweep.model.sde, t, x, exact[_key(t)]) for t, x in states), strict=True
        )
        arrays |= {f"levels_{len(names)}": np.array(level), f"errors_{len(names)}": np.array(error)}
        several = len({c.label for c in cells}) < len(cells) and not cell.setting
        names.append(f"{cell.label} · {cell.grid}" if several else cell.label)
    about = {"budget": cells[0].budget, "n": _few(sweep), "names": names}
    save_part(folder / TRAJECTORY, made_from(sweep), arrays, about)


def _half(levels: np.ndarray, errors: np.ndarray) -> float:
    """The noise level from which on the errors are at least half the last one."""
    below = np.flatnonzero(errors < errors[-1] / 2)
    return float(levels[below[-1] + 1 if len(below) else 0])


def _few(sweep: Sweep) -> int:
    """Number of samples."""
    return min(sweep.settings.n, max(LEAST, NUMBERS // sweep.spec.dims))


def _key(t: float) -> float:
    return round(float(t), SAME_TIME)


def _times(cells: Sequence[Cell]) -> list[float]:
    """All times of the cells' grids, decreasing."""
    return sorted({_key(t) for cell in cells for t in cell.ts}, reverse=True)


def _exact(sweep: Sweep, times: Sequence[float]) -> dict[float, Tensor]:
    """The solution of the ODE at each time, by time."""
    settings, few = sweep.settings, _few(sweep)
    solver = ProbabilityFlowODE(METHOD, TOLERANCE, TOLERANCE)
    y = None if settings.y is None else take_rows(settings.y, slice(few))
    x = sweep.start[:few].double()
    found = {times[0]: x}
    for pair in pairwise(times):
        same = {"seed": settings.seed, "y": y, "device": settings.device, "denoise": False}
        x = sample(sweep.model, solver, pair, x_init=x, dtype=torch.float64, **same).scaled
        found[pair[1]] = x.cpu()
    return found


def _states(sweep: Sweep, cell: Cell) -> list[tuple[float, Tensor]]:
    """Time and state after each step of a cell."""
    found: list[tuple[float, Tensor]] = []

    def on_step(step: int, t: float, x: Tensor) -> None:
        if step < len(cell.ts):  # a sampler may have a last step of its own to σ = 0
            found.append((float(cell.ts[step]), x.detach().double().cpu()))

    few = _few(sweep)
    settings = replace(sweep.settings, batch=few)
    draw(settings, sweep.model, cell.sampler, cell.ts, n=few, denoise=cell.denoise, on_step=on_step)
    return found


def _error(sde: SDE, t: float, x: Tensor, exact: Tensor) -> tuple[float, float]:
    """Noise level σ/α and error of a state at time t."""
    (node,) = sde.nodes([t])
    error = (x - exact.to(x.device)).square().mean().sqrt()
    return node.sigma / node.alpha, float(error) / (node.alpha**2 + node.sigma**2) ** 0.5
