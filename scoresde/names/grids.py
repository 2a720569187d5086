"""Time grids from text: by name, or from a JSON file.

uniform                   a name
karras:rho=5              with a parameter
uniform:t_min=0.05        with its own last time
uniform:ladder=true       moved to the discrete times of a `TabulatedVP`
mine.json, list:mine      a file

A file holds one of

[1.0, 0.5, 0.1, 0.001]                    times t, decreasing in [0, 1]
{"ts": [1.0, 0.5, 0.1, 0.001]}            times t, as above
{"sigmas": [80.0, 5.3, 0.4, 0.002]}       σ/α, decreasing and above 0
{"lams": [-4.4, -1.7, 0.9, 6.2]}          λ = log(α/σ), increasing

and nothing else.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_number, check_type, float64
from ..grid import GRIDS, INFINITE_AT_NOISE, check_grid, snapped
from ..plain import ConfigError, check_values, nearest, split_name
from ..sde import SDE, VP

__all__ = ["GridFile", "NamedGrid", "parse_grid", "read_grid"]

KINDS = ("ts", "sigmas", "lams")
MOST_TIMES = 1_000_001  # what --steps allows

# A λ in a file may be outside the SDE's range by this much, from rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class NamedGrid:
    """A grid function of `scoresde.grid` with its parameters.

    Attributes:
        name: Name of the function.
        parameters: Names and values of its parameters other than the ends.
        t_min: Its own last time, in (0, 1); None if the caller decides.
        ladder: Whether its times are moved to the discrete times of a `TabulatedVP`. A network
            with the label "index" is then evaluated at labels that it was trained on only, and
            without it at labels between them as well.
        t_max: Its first time; None for `sde.t_regular`. It is no part of its name, because it
            follows from model and sampler. A grid of equal steps in λ or σ/α begins at
            `sde.t_regular` where α(t_max) = 0.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()
    t_min: float | None = None
    ladder: bool = False
    t_max: float | None = None

    def __post_init__(self) -> None:
        check_type("ladder", self.ladder, bool)
        if self.t_min is not None:
            check_number("t_min", self.t_min, above=0, below=1)

    def __str__(self) -> str:
        """The text from which `parse_grid` makes this grid."""
        last = () if self.t_min is None else (("t_min", self.t_min),)
        parts = [self.name, *(f"{k}={v!r}" for k, v in (*self.parameters, *last))]
        return ":".join([*parts, *(["ladder=true"] if self.ladder else [])])

    def __call__(self, sde: SDE, steps: int, t_min: float | None = None) -> Tensor:
        """The times under an SDE, shape (steps + 1,).

        Args:
            sde: The SDE.
            steps: N ≥ 1.
            t_min: Last time of a grid without its own; None for 1e-3.
        """
        last = t_min if self.t_min is None else self.t_min
        ends = {} if last is None else {"t_min": last}
        if self.t_max is not None and self.name not in INFINITE_AT_NOISE:
            ends["t_max"] = self.t_max
        ts = GRIDS[self.name](sde, steps, **ends, **dict(self.parameters))
        return snapped(sde, ts) if self.ladder else ts


@dataclass(frozen=True)
class GridFile:
    """The numbers of a grid file, checked. The times may depend on the SDE.

    Attributes:
        path: The file, as the caller gave it.
        kind: "ts", "sigmas" or "lams".
        values: N + 1 numbers, from noise to data.
    """

    path: str
    kind: str
    values: tuple[float, ...]

    @property
    def steps(self) -> int:
        """The number of steps N."""
        return len(self.values) - 1

    def times(self, sde: SDE) -> Tensor:
        """The grid under an SDE.

        Args:
            sde: The SDE; times of the kind "ts" do not depend on it.

        Returns:
            Decreasing times, shape (N + 1,), float64.

        Raises:
            ConfigError: If a noise level is outside the SDE's range, or there is no score at the
                last time; the message gives file and position.
        """
        values = float64(self.values)
        ts = values if self.kind == "ts" else self._times_of_levels(sde, values)
        try:
            # Two levels may have the same time after rounding, and σ may be 0 at the last time.
            sde.nodes(check_grid(ts))
        except ValueError as error:
            raise ConfigError(f"{self.path}: {error}") from error
        return ts

    def _times_of_levels(self, sde: SDE, values: Tensor) -> Tensor:
        lam = values if self.kind == "lams" else -values.log()
        low, high = sde.lam(float64([1.0, 0.0])).tolist()
        bad = torch.nonzero((lam < low - ROUNDING) | (lam > high + ROUNDING)).flatten().tolist()
        if bad:
            ends = (low, high) if self.kind == "lams" else (math.exp(-high), math.exp(-low))
            raise ConfigError(
                f"{self.path}: {self.kind}[{bad[0]}] = {self.values[bad[0]]!r} is outside the "
                f"range of {type(sde).__name__}, {ends[0]:.6g} to {ends[1]:.6g}"
            )
        return sde.t_of_lam(lam).clamp(0, 1)


def read_grid(path: str) -> GridFile:
    """Read and check a file.

    Args:
        path: A JSON file: an array of times, or an object with one of "ts", "sigmas", "lams".

    Raises:
        ConfigError: If the file cannot be read or is not a grid; the message gives file and
            position.
    """
    try:
        values = _parse(path)
        kind, values = _only_entry(values) if isinstance(values, dict) else ("ts", values)
        if not isinstance(values, list):
            raise ValueError(f"{kind} must be an array of numbers, got {_short(values)}")
        if not 2 <= len(values) <= MOST_TIMES:
            raise ValueError(f"{kind} must hold 2 to {MOST_TIMES} numbers, got {len(values)}")
        numbers = tuple(_number(f"{kind}[{i}]", value) for i, value in enumerate(values))
        _check_order(kind, numbers)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return GridFile(path, kind, numbers)


def _parse(path: str) -> Any:
    """The JSON value that a file holds."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_each_key_once, parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError gives line and column
        raise ValueError(f"not valid JSON: {error}") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _only_entry(values: dict[str, Any]) -> tuple[str, Any]:
    """The key and the value of an object with exactly one known key."""
    for key in values:
        if key not in KINDS:
            raise ValueError(f"unknown key {key!r}; {nearest(key, KINDS)}")
    if len(values) != 1:
        raise ValueError(f"must hold one of {', '.join(KINDS)}, got {len(values)}")
    return next(iter(values.items()))


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} must be a number, got {_short(value)}")
    if not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} must be finite, got {_short(value)}")
    return float(value)


def _check_order(kind: str, numbers: tuple[float, ...]) -> None:
    """Raise unless all numbers are in their range, and decrease from noise to data in σ/α."""
    for i, number in enumerate(numbers):
        if kind == "ts" and not 0 <= number <= 1:
            raise ValueError(f"ts[{i}] must lie in [0, 1], got {number!r}")
        if kind == "sigmas" and not number > 0:
            raise ValueError(
                f"sigmas[{i}] must be greater than 0, got {number!r} (leave a final 0 out: it is "
                "the final denoising)"
            )
    sign, word = (1, "increase") if kind == "lams" else (-1, "decrease")
    for i, (a, b) in enumerate(pairwise(numbers)):
        if not sign * a < sign * b:
            raise ValueError(
                f"{kind} must {word} strictly, got {kind}[{i}] = {a!r} and {kind}[{i + 1}] = {b!r}"
            )


def _short(value: object) -> str:
    """The value as JSON, cut to 40 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def parse_grid(text: str) -> NamedGrid | GridFile:
    """A grid by name, or the times of a file.

    Args:
        text: `name` or `name:key=value`, of which one key may be t_min, the last time; a path that
            ends in `.json`, or `list:path`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), a value is wrong, or
            the file is not a grid.
    """
    text = text.strip()
    if text.startswith("list:") or text.endswith(".json"):
        return read_grid(text.removeprefix("list:"))
    name, arguments = split_name("grid", text, GRIDS)
    ladder = arguments.pop("ladder", False)
    check_values(GRIDS[name], arguments, f"grid {name}", ("sde", "steps", "t_max"))
    try:
        t_min = arguments.pop("t_min", None)
        grid = NamedGrid(name, tuple(arguments.items()), t_min)
        grid(VP(), 1)  # raises on a value out of range; the range is the same for every SDE
        return replace(grid, ladder=ladder)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"grid {name}: {error}") from error
