"""The numbers of two results of one kind, and which of them differ beyond their errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..metrics import Estimate, difference
from ..output.files import read_arrays, read_json
from ..output.manifest import Manifest
from ..output.result_folder import SUMMARY
from .records import CellResult, read_results

__all__ = ["Number", "numbers_of"]

ROUNDING = 1e-4  # root mean square of a difference from rounding, relative to that of the samples


@dataclass(frozen=True)
class Number:
    """A number that two results do not share.

    Attributes:
        name: What it is.
        a: Its value in the first folder, with its error if it is known.
        b: Its value in the second folder.
        difference: B − A with its standard error.
        beyond: Whether it is beyond the errors: 0 is outside the interval of the difference. The
            level is corrected for the number of comparisons (Bonferroni), together 95 %.
        how: "paired" if both share the random numbers or the data; "independent"; or the reason
            for which the numbers have no difference.
    """

    name: str
    a: str
    b: str
    difference: str
    beyond: bool
    how: str


@dataclass(frozen=True)
class _Pair:
    """Two estimates of a number, and their difference with a part c that is not random."""

    name: str
    a: Estimate
    b: Estimate
    change: Estimate | None
    how: str
    systematic: float = 0.0

    def number(self, level: float) -> Number | None:
        """The result for an interval of this level; None if both are equal."""
        if self.change is None:
            return Number(self.name, str(self.a), str(self.b), "", False, self.how)
        value = self.change.value
        if value == 0 and self.change.std_error in (0.0, math.inf):
            return None
        if value == 0 and self.a.value == self.b.value:
            return None
        low, high = self.change.interval(level)
        beyond = low - self.systematic > 0 or high + self.systematic < 0
        shown = [str(self.a), str(self.b), str(self.change)]
        return Number(self.name, *shown, beyond, self.how)


def numbers_of(
    kind: str, folders: tuple[Path, Path], manifests: list[Manifest]
) -> tuple[int, list[Number]]:
    """All numbers of two folders that are not equal.

    Args:
        kind: "sample", "bench", "likelihood" or "likelihood --against".
        folders: The folders.
        manifests: Their manifests.

    Returns:
        How many numbers were compared, and those that are not equal.

    Raises:
        ValueError: If a file is damaged.
    """
    if kind == "sample":
        return _of_samples(folders, manifests)
    pairs = list(_of_cells(folders) if kind == "bench" else _of_data(folders, manifests))
    level = 1 - 0.05 / max(len(pairs), 1)
    return len(pairs), [n for n in (pair.number(level) for pair in pairs) if n is not None]


def _of_cells(folders: tuple[Path, Path]) -> Iterator[_Pair]:
    """The metrics of all cells that both comparisons have."""
    one, other = ({_key(c): c for c in read_results(folder)[0]} for folder in folders)
    for key in one.keys() & other.keys():
        a, b = one[key], other[key]
        for metric in a.metrics.keys() & b.metrics.keys():
            yield _of_metric(metric, a, b)


def _key(cell: CellResult) -> tuple[str, float | None]:
    return cell.name, cell.t_min


def _of_metric(metric: str, a: CellResult, b: CellResult) -> _Pair:
    """One metric of a cell in both comparisons; of the same x_T, paired."""
    one, other = a.metrics[metric], b.metrics[metric]
    name, paired = f"{a.name}: {metric}", a.x_init_sha256 == b.x_init_sha256 != ""
    if a.features != b.features and metric not in ("paired_rmse", "sliced_w2"):
        return _Pair(name, one, other, None, "other features; not comparable")
    try:
        change = difference(other, one, paired=paired)
    except ValueError:
        return _Pair(name, one, other, None, "other n or reference; not comparable")
    return _Pair(name, one, other, change, "paired" if paired else "independent")


def _of_data(folders: tuple[Path, Path], manifests: list[Manifest]) -> Iterator[_Pair]:
    """The mean likelihood, or the difference of two models; over the same data, paired."""
    found = [read_json(folder / SUMMARY) for folder in folders]
    a, b = (_mean(summary) for summary in found)
    unit = found[0]["unit"]
    name = f"{'mean' if 'mean' in found[0] else 'difference of the models'}, {unit}"
    if found[0]["protocol"] != found[1]["protocol"] or unit != found[1]["unit"]:
        yield _Pair(name, a, b, None, "other protocols; not comparable")
        return
    column = unit.replace("/", "_per_") + ("" if "mean" in found[0] else "_difference")
    rows = [read_arrays((f / "per_image.npz").read_bytes(), ("row", column)) for f in folders]
    one, other = (torch.from_numpy(each[column]) for each in rows)
    same = manifests[0].sources["data"].sha256 == manifests[1].sources["data"].sha256
    systematic = sum(_systematic(summary) for summary in found)
    if same and (rows[0]["row"].tolist() == rows[1]["row"].tolist()) and len(one) > 1:
        moved = other - one
        error = float(moved.std()) / math.sqrt(len(moved))
        change = Estimate(float(moved.mean()), error, (len(moved),), name)
        if not moved.any():
            systematic = 0.0
        yield _Pair(name, a, b, change, "paired", systematic)
    else:
        error = math.hypot(a.std_error, b.std_error)
        change = Estimate(b.value - a.value, error, (*a.n, *b.n), name)
        yield _Pair(name, a, b, change, "independent", systematic)


def _mean(summary: dict) -> Estimate:
    """The mean of a summary with its standard error, NaN for one datum."""
    budget = summary["budget"]
    error = math.nan if budget["std_error"] is None else budget["std_error"]
    return Estimate(budget["value"], error, (budget["n"],), "mean")


def _systematic(summary: dict) -> float:
    """The part of the 95 % interval that comes from solver and rounding."""
    found = summary["budget"]
    parts = abs(found["solver"] or 0) + 2 * (found["solver_error"] or 0)
    return parts + abs(found["rounding"] or 0)


def _of_samples(folders: tuple[Path, Path], manifests: list[Manifest]) -> tuple[int, list[Number]]:
    """The samples; row i of both starts from the same x_T for equal seed and noise version."""
    arrays = [read_arrays((f / "samples.npz").read_bytes(), ("x", "nfe")) for f in folders]
    one, other = (torch.from_numpy(each["x"]).double() for each in arrays)
    evaluations = [int(each["nfe"]) for each in arrays]
    numbers = []
    if evaluations[0] != evaluations[1]:
        change = f"{evaluations[1] - evaluations[0]:+d}"
        numbers.append(Number("NFE", *map(str, evaluations), change, True, "counted"))
    keys = ("seed", "noise")
    start = [[m.settings.get(key) for key in keys] for m in manifests]
    if start[0] != start[1] or one.shape[1:] != other.shape[1:]:
        how = "not the same x_T; `scoresde bench` compares distributions"
        shapes = [str(tuple(x.shape)) for x in (one, other)]
        return 2, [*numbers, Number("samples", *shapes, "", False, how)]
    n = min(len(one), len(other))
    moved = (other[:n] - one[:n]).flatten(1).square().mean(1).sqrt()
    if moved.any():
        size = float(one[:n].square().mean().sqrt())
        shown = f"RMSE {float(moved.mean()):.3g} (largest of a sample {float(moved.max()):.3g})"
        beyond = float(moved.mean()) > ROUNDING * size
        name, shapes = f"{n} samples", [f"RMS {size:.3g}", f"RMS {_rms(other[:n]):.3g}"]
        numbers.append(Number(name, *shapes, shown, beyond, "paired: same x_T"))
    return 2, numbers


def _rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())
