"""What a sweep leaves in its folder, and how it is read back.

settings.json          what defines the results
machine.json           where they were made: what only times depend on
start.npz              the noise x_T that every sampler starts from
reference.npz, .json   the exact solution from there, and what was found out about it
quality.json           reference data, feature space and floor of the quality metrics
cells/KEY.json, .npz   one measurement each, and the first samples
likelihood/            bits/dim of test data, as `scoresde likelihood` leaves them
results.csv, .json     all of it in one table
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._files import atomic_write, clean_stale
from ..metrics import Estimate
from .outputs import write_json
from .quality import METRICS

__all__ = [
    "CELLS",
    "COLUMNS",
    "Result",
    "estimate_from_json",
    "estimate_to_json",
    "load_array",
    "read_json",
    "read_results",
    "write_tables",
]

CELLS = "cells"
MEASURES = ("paired_rmse", *METRICS)
COLUMNS = (
    *("sampler", "grid", "nfe_asked", "tolerance", "status", "steps", "nfe", "n"),
    *(name for measure in MEASURES for name in (measure, f"{measure}_se")),
    *("features", "deterministic", "x_init_sha256", "reason", "seconds", "seconds_bare"),
)


@dataclass(frozen=True)
class Result:
    """What was measured in one cell.

    Attributes:
        key: Name of the cell's files.
        sampler: Label of the sampler.
        grid: Name of the grid; empty for an adaptive method.
        nfe_asked: The budget; None for an adaptive method.
        tolerance: rtol = atol of an adaptive method.
        status: "done", "skipped" (cannot run) or "failed" (gave up; tried again on resuming).
        deterministic: Whether the end point depends on x_T alone.
        reason: Why it was skipped or failed.
        steps: Steps of the grid.
        nfe: Evaluations per sample, counted, the final denoising included.
        n: Number of samples.
        features: Feature space of the metrics, with its hash; empty if none were measured.
        x_init_sha256: Digest of the noise they start from.
        seconds: Wall time of all samples.
        seconds_bare: Time of as many passes of the network alone.
        metrics: Estimates by name.
    """

    key: str
    sampler: str
    grid: str
    nfe_asked: int | None
    tolerance: float | None
    status: str
    deterministic: bool
    reason: str = ""
    steps: int | None = None
    nfe: int | None = None
    n: int = 0
    features: str = ""
    x_init_sha256: str = ""
    seconds: float | None = None
    seconds_bare: float | None = None
    metrics: dict[str, Estimate] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """What was asked, in words."""
        if self.tolerance is not None:
            return f"tolerance {self.tolerance:g}"
        return f"NFE ≤ {self.nfe_asked}"

    @property
    def overhead(self) -> float | None:
        """Wall time over that of the network alone."""
        if not self.seconds or not self.seconds_bare:
            return None
        return self.seconds / self.seconds_bare

    def save(self, folder: Path) -> None:
        """Write the cell's JSON file, which says that the cell is finished."""
        values = asdict(self)
        values["metrics"] = {k: estimate_to_json(v) for k, v in self.metrics.items()}
        write_json(_cell_path(folder, self.key, "json"), values)

    @classmethod
    def load(cls, folder: Path, key: str) -> Result | None:
        """Read a cell; None if it was not measured, or failed."""
        path = _cell_path(folder, key, "json")
        for name in (path, _cell_path(folder, key, "npz")):
            clean_stale(name)
        if not path.exists():
            return None
        values = read_json(path)
        values["metrics"] = {k: estimate_from_json(v) for k, v in values["metrics"].items()}
        result = cls(**values)
        return None if result.status == "failed" else result


def estimate_to_json(estimate: Estimate) -> dict[str, Any]:
    """Plain data; NaN becomes None, because JSON has none."""
    values = asdict(estimate) | {"n": list(estimate.n)}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def estimate_from_json(values: Mapping[str, Any]) -> Estimate:
    """The inverse of `estimate_to_json`."""
    plain = {k: math.nan if v is None else v for k, v in values.items()}
    return Estimate(**plain | {"n": tuple(values["n"])})


def read_json(path: Path) -> Any:
    """Plain data from a JSON file.

    Raises:
        ValueError: If it is not JSON; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def load_array(path: Path, name: str) -> Tensor:
    """One tensor of a file of arrays.

    Raises:
        ValueError: If the file is damaged, or has no such tensor.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name])
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}; remove it to have it made again") from error


def read_results(folder: Path) -> list[Result]:
    """The results of a finished sweep, in its own order.

    Raises:
        FileNotFoundError: If the folder holds none.
        ValueError: If a file is damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no results.json of `scoresde bench`; an interrupted comparison is "
            "finished by the same command"
        )
    results = []
    for values in read_json(path)["cells"]:
        metrics = {k: estimate_from_json(v) for k, v in values["metrics"].items()}
        results.append(Result(**values | {"metrics": metrics}))
    return results


def write_tables(folder: Path, results: Iterable[Result], about: Mapping[str, Any]) -> None:
    """Write results.csv and results.json.

    Args:
        folder: The sweep's folder.
        results: All cells.
        about: Plain data that results.json holds beside the cells.
    """
    results = list(results)
    cells = []
    for result in results:
        metrics = {k: estimate_to_json(v) for k, v in result.metrics.items()}
        cells.append(asdict(result) | {"metrics": metrics})
    write_json(folder / "results.json", {**about, "cells": cells})
    with atomic_write(folder / "results.csv", "w") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(_row(result) for result in results)


def _row(result: Result) -> dict[str, Any]:
    row = {name: getattr(result, name) for name in COLUMNS if hasattr(result, name)}
    for name in MEASURES:
        estimate = result.metrics.get(name)
        row[name] = None if estimate is None else repr(estimate.value)
        row[f"{name}_se"] = None if estimate is None else repr(estimate.std_error)
    return row


def _cell_path(folder: Path, key: str, suffix: str) -> Path:
    return folder / CELLS / f"{key}.{suffix}"
