"""The error of a network at each noise level, on its training data and on held-out data.

    error(t) = mean |ε(α x_0 + σ ε, t) − ε|² / D,

at twelve times that are evenly spaced in λ = log(α/σ). Each datum has the same noise at all times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import map_condition
from ..data import Dataset
from ..evaluation import evaluating, own_context
from ..fingerprint import fingerprint
from ..grid import snapped
from ..metrics import Estimate
from ..output.figures import line_style, new_figure
from ..output.parts import load_part, save_part
from ..score.sets import only_present, share_present
from ..tasks.given import GivenModel
from ..validation import noised
from .plots import Drawn, Name, name_lines, saved, span, style
from .summary import number_text
from .sweep import Sweep

__all__ = ["NOISE_LEVELS", "NoiseLevels"]

NOISE_LEVELS = "noise_levels.npz"
COUNT = 12  # noise levels
NUMBERS = 512  # of the data's numbers about as many, and at least LEAST data
LEAST = 64
SURE = 3  # standard errors


@dataclass(frozen=True)
class NoiseLevels:
    """Errors of a network at some noise levels.

    Attributes:
        n: Number of data of each split.
        levels: σ/α, decreasing.
        errors: Errors by the name of the split, one for each level.
        means: Mean error over all levels by the name of the split.
    """

    n: int
    levels: np.ndarray
    errors: dict[str, list[Estimate]]
    means: dict[str, Estimate]

    @classmethod
    def read(cls, folder: Path) -> NoiseLevels | None:
        """The errors in the folder of a comparison; None if they were not measured.

        Raises:
            ValueError: If the file is damaged.
        """
        path = folder / NOISE_LEVELS
        if not path.is_file():
            return None
        part = load_part(path)
        try:
            n, splits = part.about["n"], part.about["splits"]
            rows = {split: part.arrays[f"split_{i}"] for i, split in enumerate(splits)}
            levels = part.arrays["levels"]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged; the command that made it makes it again"
            ) from error
        errors = {split: [_estimate(row) for row in found] for split, found in rows.items()}
        return cls(n, levels, errors, {s: _estimate(found.mean(0)) for s, found in rows.items()})

    @property
    def text(self) -> str:
        """Whether an error is above 1, and how much larger the error of held-out data is."""
        above = [
            level
            for found in self.errors.values()
            for level, e in zip(self.levels, found, strict=True)
            if e.value - SURE * e.std_error > 1
        ]
        text = "The error is nowhere above 1, as is normal."
        if above:
            ends = " to ".join(map(number_text, sorted({max(above), min(above)}, reverse=True)))
            text = f"The error is above 1 at σ/α = {ends}: the network is wrong there."
        if len(self.means) == 2:
            seen, new = self.means.values()
            gap, error = new.value - seen.value, math.hypot(new.std_error, seen.std_error)
            names = " and ".join(f"{v} on {split} data" for split, v in self.means.items())
            sign = "a sign of overfitting" if gap > SURE * error else "no sign of overfitting"
            text += f" The mean over all noise levels is {names}: {sign}."
        return text

    @property
    def figure(self) -> Drawn:
        """The errors against the noise level, which decreases to the right."""
        figure = new_figure(5.0, 3.0)
        axes = figure.subplots()
        names = []
        for i, (split, found) in enumerate(self.errors.items()):
            look = line_style(i) | {"lw": 1.3, "ms": 4.5, "mec": "#ffffff", "mew": 0.5}
            values = np.array([e.value for e in found])
            low, high = np.array([span(e) for e in found]).T
            axes.errorbar(self.levels, values, [values - low, high - values], capsize=1.5, **look)
            names.append(Name(f"{split} data", (self.levels[-1], values[-1]), look))
        axes.set(xscale="log", xlabel="noise level σ/α", ylabel="error |ε̂ − ε|²/D")
        axes.set_ylim(bottom=0)
        axes.invert_xaxis()
        style(axes)
        name_lines(axes, names)
        return saved(figure, "noise_levels")


def usable(sweep: Sweep, given: GivenModel, data: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The data on which the error is measured, by split; empty if they do not say the condition.

    Args:
        sweep: The sweep.
        given: Its model.
        data: The data by split.
    """
    if not given.condition and sweep.settings.y is not None:
        return {}
    found = {}
    for split, each in data.items():
        n = min(len(each), max(LEAST, NUMBERS // sweep.spec.dims))
        try:
            own = each.given_for(given.condition) if given.condition else replace(each, labels=None)
        except ValueError:  # the conditions of the samples were given, and the data have none
            return {}
        found[split] = own.taken(torch.linspace(0, len(own) - 1, n).round().long())
    return found


def made_from(sweep: Sweep, data: Mapping[str, Dataset]) -> str:
    """Fingerprint of everything that determines the errors."""
    contents = {split: each.fingerprint for split, each in data.items()}
    return fingerprint([sweep.common, contents, COUNT])


def likely_evaluations(sweep: Sweep, data: Mapping[str, Dataset]) -> float:
    """Expected cost, in evaluations of the network for all samples of a cell."""
    return COUNT * sum(map(len, data.values())) / sweep.settings.n


def measure(sweep: Sweep, given: GivenModel, data: Mapping[str, Dataset], folder: Path) -> None:
    """Measure the errors and write them to a folder.

    Args:
        sweep: The sweep.
        given: Its model.
        data: The data by split, as `usable` gives them.
        folder: Folder of the comparison.
    """
    sde = sweep.model.sde
    first, last = (node.lam for node in sde.nodes([1.0, sweep.settings.t_min]))
    times = sde.t_of_lam(torch.linspace(first, last, COUNT, dtype=torch.float64)).clamp(0, 1)
    if given.snapped:
        times = snapped(sde, times)
    nodes = sde.nodes(times)
    arrays: dict[str, Any] = {"levels": np.array([node.sigma / node.alpha for node in nodes])}
    for i, each in enumerate(data.values()):
        arrays[f"split_{i}"] = _errors(sweep, each, nodes)
    about = {"n": min(map(len, data.values())), "splits": list(data)}
    save_part(folder / NOISE_LEVELS, made_from(sweep, data), arrays, about)


@own_context()
def _errors(sweep: Sweep, data: Dataset, nodes: list[Any]) -> np.ndarray:
    """The error of each datum at each time, shape (times, n)."""
    model, device = sweep.model, sweep.settings.device
    found = np.empty((len(nodes), len(data)))
    for rows in torch.arange(len(data)).split(sweep.settings.batch):
        x0, eps = (x.to(device) for x in noised(data, slice(int(rows[0]), int(rows[-1]) + 1), 0))
        y = data.taken(rows).labels
        bound = model if y is None else model.given(map_condition(lambda v: v.to(device), y))
        with evaluating(bound):
            eps, share = only_present(bound, eps), share_present(bound, x0)
            for k, node in enumerate(nodes):
                guess = bound.eps(node.alpha * x0 + node.sigma * eps, node.t)
                error = _per_datum(only_present(bound, guess - eps))
                found[k, rows.numpy()] = error if share is None else error / share.cpu().numpy()
    return found


def _per_datum(difference: Tensor) -> np.ndarray:
    return difference.double().square().flatten(1).mean(1).cpu().numpy()


def _estimate(values: np.ndarray) -> Estimate:
    """Mean and standard error."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(float(values.mean()), error, (len(values),), "error")
