"""Names of the models, samplers and grids of a comparison, given as texts or as objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._tensor import check_type
from ..grid import check_grid
from ..names.grids import GridFile
from ..names.samplers import parse_sampler, sampler_label
from ..plain import check_unique
from ..samplers import Sampler
from ..tasks.live import name_of

__all__ = ["RECOMMENDED", "named_grids", "named_models", "named_samplers"]

RUN_FILES = ("checkpoint", "best")  # in the folder of a training run, whose name says more
RECOMMENDED = "recommended"  # the settings of `scoresde.recommended`, by the budget of each cell


def named_models(models: Any) -> dict[str, Any]:
    """Models by name, each in a form that `given_model` reads.

    Args:
        models: A model, several in a list, or models by name in a dict. The name or path of a
            checkpoint may begin with a name for the tables, "A=path". Two models that would have
            the same name get numbers: "net", "net-2".

    Raises:
        ValueError: If there is no model, a checkpoint or a name before "=" is given twice, or a
            name cannot be that of a folder.
    """
    if isinstance(models, Mapping):
        found = dict(models)
    else:
        found = {}
        several = models if isinstance(models, (list, tuple)) else [models]
        check_unique("checkpoint", [str(one) for one in several if isinstance(one, (str, Path))])
        for one in several:
            name, model = _named_model(one)
            if name in found and isinstance(one, str) and one.startswith(f"{name}="):
                raise ValueError(f"checkpoint {one}: the name {name} is given twice")
            free, number = name, 2
            while free in found:
                free, number = f"{name}-{number}", number + 1
            found[free] = model
    if not found:
        raise ValueError("model must be at least one model, got none")
    for name in found:
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.=+-]*", name)):
            raise ValueError(
                "model: the names become folders and must consist of letters, digits and _.=+-, "
                f"got {name!r}"
            )
    return found


def _named_model(model: Any) -> tuple[str, Any]:
    """The name of a model, and the model; a text `A=path` gives A and the path."""
    if isinstance(model, str):
        name, equals, path = model.partition("=")
        if equals and path and re.fullmatch(r"\w[\w.+-]*", name) and not Path(model).exists():
            return name, path
    if isinstance(model, (str, Path)) and Path(model).stem in RUN_FILES:
        return _as_name(Path(model).absolute().parent.name), model
    return _as_name(name_of(model)), model


def _as_name(text: str) -> str:
    """A text as a name for a folder."""
    return re.sub(r"[^\w.=+-]+", "-", text).lstrip("-.=+") or "model"


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
