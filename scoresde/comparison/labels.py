"""Names of the samplers and grids of a comparison, given as texts or as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .._tensor import check_type
from ..grid import check_grid
from ..names.grids import GridFile
from ..names.samplers import parse_sampler, sampler_label
from ..plain import check_unique
from ..samplers import Sampler

__all__ = ["RECOMMENDED", "named_grids", "named_samplers"]

RECOMMENDED = "recommended"  # the settings of `scoresde.recommended`, by the budget of each cell


def named_samplers(samplers: Any) -> dict[str, Sampler | None]:
    """Samplers by name; "recommended" is None, because its sampler depends on the budget.

    Args:
        samplers: A sampler, several in a list, or samplers by name in a dict. Each is an object or
            a text as `parse_sampler` reads it.

    Raises:
        ConfigError: If a text is wrong.
        TypeError: If an entry is neither a text nor a sampler.
        ValueError: If two have the same name.
    """
    found: dict[str, Sampler | None] = {}
    for name, sampler in _entries("sampler", samplers, _sampler_label):
        if isinstance(sampler, str):
            sampler = None if sampler.strip() == RECOMMENDED else parse_sampler(sampler)
        found[name] = sampler
    return found


def named_grids(grids: Any) -> dict[str, Any]:
    """Grids by name: texts as `parse_grid` reads them, grid functions, or `GridFile`s of times.

    Args:
        grids: A grid, several in a list, or grids by name in a dict. Each is a text, a function of
            (sde, steps, t_min), or a tensor, array or list of decreasing times.

    Raises:
        TypeError: If an entry is neither.
        ValueError: If times do not decrease within [0, 1], or two grids have the same name.
    """
    if _is_times(grids):
        grids = [grids]
    found = {}
    for name, grid in _entries("grid", grids, _grid_label):
        if _is_times(grid):
            grid = GridFile(name, "ts", tuple(check_grid(grid).tolist()))
        elif not (isinstance(grid, (str, GridFile)) or callable(grid)):
            raise TypeError(
                f"grid {name} must be a text, a function or times, got {type(grid).__name__}"
            )
        found[name] = grid
    return found


def _sampler_label(sampler: Any) -> str:
    check_type("sampler", sampler, Sampler)
    return sampler_label(sampler)


def _entries(noun: str, given: Any, label: Any) -> list[tuple[str, Any]]:
    """Names and values of what was given."""
    if isinstance(given, Mapping):
        for value in given.values():
            if value is not None and not isinstance(value, str):
                label(value)  # refuses an object of another kind
        return [(str(name).strip(), value) for name, value in given.items()]
    values = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    named = [(v.strip() if isinstance(v, str) else label(v), v) for v in values]
    check_unique(noun, [name for name, _ in named])
    return named


def _is_times(grid: Any) -> bool:
    """Whether a grid is given by its times."""
    numbers = isinstance(grid, (list, tuple)) and all(isinstance(v, (int, float)) for v in grid)
    return isinstance(grid, (Tensor, np.ndarray)) or (numbers and bool(grid))


def _grid_label(grid: Any) -> str:
    if _is_times(grid):
        return f"{len(grid) - 1} steps to t = {float(grid[-1]):g}"
    if isinstance(grid, GridFile):
        return grid.path
    return getattr(grid, "__name__", type(grid).__name__)
