"""The files of a comparison's folder, and functions that read and write them.

scoresde.json        all settings, and fingerprints of everything that determines the results
machine.json         the machine and Python, on which only times depend
start.npz            the noise x_T from which every sampler starts
reference.npz        the exact solution of the ODE from the same noise, and its error
quality.json         reference data, feature space and floor of the quality metrics
solution.npz         the quality metrics of the exact solution
floor.npz            how much each row moves the values of the floor
cells/KEY.npz        the measured values of one cell with the influence of each row, and its first
                     samples
likelihood/          the likelihood of test data, in the form of `scoresde likelihood`
results.csv, .json   one table of all cells
parts/               finished files of a comparison that was stopped

The KEY of a cell ends with a fingerprint of everything that determines its numbers. When a
comparison is repeated, only the columns of seconds, memory and processes of
results.csv change.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from .._files import atomic_write
from .._text import csv_text
from ..metrics import Estimate
from ..output.files import read_arrays, read_json, write_json
from ..output.parts import load_part, save_part
from .checked import check_fields, estimates_from_json, estimates_to_json, read_tables
from .influences import INFLUENCES, influence_arrays, with_influences
from .metric_table import METRICS
from .plan import asked

__all__ = [
    "CELLS",
    "COLUMNS",
    "FLOOR",
    "RESULTS",
    "CellResult",
    "load_array",
    "load_cell",
    "read_results",
    "save_cell",
    "table_row",
    "write_tables",
]

CELLS = "cells"
FLOOR = "floor.npz"
RESULTS = "results.json"
SPENT = ("seconds", "seconds_low", "seconds_high", "seconds_bare", "memory", "processes")
MEASURED = ("nfe", "nfe_derivative", "flops", "n", "features", "x_init_sha256", *SPENT)
# Fields of a cell that comparisons of earlier versions do not have.
ADDED_LATER = {
    "setting": "",
    **dict.fromkeys(("t_min", "nfe_derivative", "flops", "seconds_low", "seconds_high", "memory")),
    "processes": 1,
}
STATUSES = ("done", "skipped", "failed")
# Columns of a metric: the value, its standard error, and the ends of its 95 % interval.
OF_METRIC = ("", "_se", "_low", "_high")
COLUMNS = (  # of results.csv
    *("sampler", "setting", "grid", "t_min", "nfe_asked", "tolerance", "status", "steps"),
    *("nfe", "nfe_derivative", "flops", "n"),
    *(metric + end for metric in METRICS for end in OF_METRIC),
    *("features", "deterministic", "x_init_sha256", "reason", *SPENT),
)


@dataclass(frozen=True)
class CellResult:
    """The measured values of one cell.

    Attributes:
        key: Name of the cell's file, without its ending; it ends with a fingerprint.
        sampler: Label of the sampler.
        grid: Name of the grid; empty for an adaptive method.
        setting: The sampler that was chosen for "recommended"; otherwise empty.
        nfe_asked: The budget; None for an adaptive method.
        tolerance: rtol = atol of an adaptive method.
        status: "done", "skipped" (cannot run) or "failed" (gave up; runs again when resumed).
        deterministic: Whether the end point depends only on x_T.
        reason: The reason why the cell was skipped or failed.
        steps: Steps of the grid.
        t_min: Last time of the cell's grid.
        nfe: Evaluations per sample, counted, the final denoising included.
        nfe_derivative: Derivative passes per sample, counted.
        flops: Floating point operations of the network per sample, as
            `measure.flops_per_evaluation` counts them; None if none are counted.
        n: Number of samples.
        features: Feature space of the metrics, with its hash; empty without quality metrics.
        x_init_sha256: Digest of x_T.
        seconds: Wall time of all samples: the median of three runs, or the time of the only run if
            that takes half a second or more.
        seconds_low: The shortest run.
        seconds_high: The longest run.
        seconds_bare: Wall time of the same number of evaluations of the model alone.
        memory: Largest memory of tensors on the GPU, in bytes; None on the CPU.
        processes: Number of processes that measured cells at the same time.
        metrics: Estimates by the name of the metric.
    """

    key: str
    sampler: str
    grid: str
    nfe_asked: int | None
    tolerance: float | None
    status: str
    deterministic: bool
    setting: str = ""
    reason: str = ""
    steps: int | None = None
    t_min: float | None = None
    nfe: int | None = None
    nfe_derivative: int | None = None
    flops: int | None = None
    n: int = 0
    features: str = ""
    x_init_sha256: str = ""
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    seconds_bare: float | None = None
    memory: int | None = None
    processes: int = 1
    metrics: dict[str, Estimate] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """Budget or tolerance, in words."""
        return asked(self.nfe_asked, self.tolerance)

    @property
    def name(self) -> str:
        """The request of this cell in words, as `Cell.name`."""
        return " ".join(part for part in (self.sampler, self.grid, self.asked) if part)

    @property
    def overhead(self) -> float | None:
        """Wall time divided by that of the model alone; None if a time is unknown."""
        if not self.seconds or not self.seconds_bare:
            return None
        return self.seconds / self.seconds_bare


def save_cell(path: Path, made_from: str, result: CellResult, x: Tensor) -> None:
    """Write the result of a cell and its first samples.

    Args:
        path: The .npz file.
        made_from: Fingerprint of everything that determines the numbers.
        result: A result with the status "done".
        x: Samples, shape (m, *D), of any dtype.
    """
    values = {name: getattr(result, name) for name in MEASURED}
    values["metrics"] = estimates_to_json(result.metrics)
    save_part(path, made_from, {"x": x.numpy()} | influence_arrays(result.metrics), values)


def load_cell(path: Path, made_from: str, planned: CellResult) -> CellResult | None:
    """Read a file of `save_cell`.

    Args:
        path: The .npz file.
        made_from: Fingerprint of everything that determines the numbers.
        planned: The result of the cell without measured values.

    Returns:
        The complete result; None if the file does not exist, is damaged, or has another
        fingerprint.

    Warns:
        UserWarning: If the file is damaged.
    """
    part = load_part(path, made_from)
    if part is None:
        return None
    metrics = estimates_from_json(part.about["metrics"], str(path))
    metrics = with_influences(metrics, part.arrays, str(path))
    return replace(planned, **part.about | {"status": "done", "metrics": metrics})


def load_array(path: Path, name: str) -> Tensor:
    """One array of an .npz file, as a tensor.

    Raises:
        ValueError: If the file is damaged, or has no such tensor.
    """
    try:
        return torch.from_numpy(_arrays(path, [name])[name])
    except KeyError as error:
        raise ValueError(f"{path} is damaged; the command that made it makes it again") from error


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names that a file has."""
    content = path.read_bytes()
    try:
        return read_arrays(content, names)
    except Exception as error:  # damaged bytes raise errors of many kinds
        raise ValueError(f"{path} is damaged; the command that made it makes it again") from error


def read_results(folder: Path) -> tuple[list[CellResult], dict[str, Any]]:
    """Read results.json of a finished comparison.

    Returns:
        The results of all cells in the requested order, and the other tables of the file in the
        form of `read_tables`.

    Raises:
        FileNotFoundError: If the folder has no such file.
        ValueError: If the file is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no results.json of `scoresde bench`; an interrupted comparison is "
            "finished by the same command"
        )
    values = check_fields(read_json(path), {"cells": list}, str(path))
    cells = [_read_cell(cell, f"{path}: cells[{i}]") for i, cell in enumerate(values["cells"])]
    tables = read_tables(values, str(path))
    if quality := tables["quality"]:
        floor = _moved(folder / FLOOR, quality["floor_values"])
        tables["quality"] = quality | {"floor_values": floor}
    return [
        replace(cell, metrics=_moved(folder / CELLS / f"{cell.key}.npz", cell.metrics))
        for cell in cells
    ], tables


def _moved(path: Path, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Estimates with the influences in a file; without this file they remain as they are."""
    arrays = _arrays(path, INFLUENCES) if path.is_file() else {}
    return with_influences(metrics, arrays, str(path))


def _read_cell(values: Any, where: str) -> CellResult:
    """A checked result from plain data; with status "done" it must have its measured values."""
    hints = get_type_hints(CellResult) | {"metrics": dict}
    if isinstance(values, dict):
        values = ADDED_LATER | values
    check_fields(values, hints, where)
    if unknown := values.keys() - hints.keys():
        raise ValueError(f"{where}: {', '.join(sorted(unknown))} is not known")
    if not re.fullmatch(r"[A-Za-z0-9._=-]+", values["key"]):
        raise ValueError(f"{where}.key must be a name of a file, got {values['key']!r}")
    if values["status"] not in STATUSES:
        raise ValueError(f"{where}.status must be one of {', '.join(STATUSES)}")
    metrics = estimates_from_json(values["metrics"], f"{where}.metrics")
    result = CellResult(**values | {"metrics": metrics})
    if result.status == "done" and (result.nfe is None or result.seconds is None):
        raise ValueError(f"{where} is done, but nfe or seconds are missing")
    if (result.nfe_asked is None) == (result.tolerance is None):
        raise ValueError(f"{where} must have one of nfe_asked and tolerance")
    if result.status == "done" and result.tolerance is None and result.steps is None:
        raise ValueError(f"{where} is done, but steps are missing")
    return result


def write_tables(folder: Path, results: Iterable[CellResult], about: Mapping[str, Any]) -> None:
    """Write results.csv and results.json.

    Args:
        folder: The comparison's folder.
        results: The results of all cells.
        about: Further plain data for results.json.
    """
    results = list(results)
    cells = [
        asdict(replace(r, metrics={})) | {"metrics": estimates_to_json(r.metrics)} for r in results
    ]
    write_json(folder / RESULTS, {**about, "cells": cells})
    with atomic_write(folder / "results.csv", "w") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(_row(result) for result in results)


def table_row(result: CellResult) -> dict[str, Any]:
    """One cell as a row of results.csv, with numbers as numbers; what it lacks is None."""
    row = {name: getattr(result, name, None) for name in COLUMNS}
    for name, estimate in result.metrics.items():
        numbers = (estimate.value, estimate.std_error, *estimate.interval())
        row |= {name + end: number for end, number in zip(OF_METRIC, numbers, strict=True)}
    return row


def _row(result: CellResult) -> dict[str, Any]:
    row = {k: csv_text(v) if isinstance(v, str) else v for k, v in table_row(result).items()}
    numbers = {name + end for name in result.metrics for end in OF_METRIC}
    return row | {key: repr(row[key]) for key in numbers}
