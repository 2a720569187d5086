"""Results as they are read back: the files may be damaged, or come from somebody else.

Every value that the report and the tables use is checked. A wrong one gives an error that names
its file and key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, get_type_hints

from ..data import DataSpec
from ..metrics import Estimate
from ..plain import ConfigError, check_types

__all__ = ["check_fields", "check_settings", "check_tables", "read_estimates"]

LARGEST = 2**64  # largest whole number that is accepted: seeds are below it
SHOWN = 60  # characters of a wrong value in an error

SETTINGS = {
    **dict.fromkeys(("command", "checkpoint", "sha256", "sde", "device"), str),
    **dict.fromkeys(("n", "seed", "batch", "likelihood"), int),
    **dict.fromkeys(("samplers", "grids"), list[str]),
    "data": dict,
    "nfe": list[int],
    "t_min": float,
}
REFERENCE = {
    "method": str,
    "tolerance": float,
    "nfe": int,
    "error_tolerance": float,
    "error": dict,
}
QUALITY = {
    **dict.fromkeys(("data", "reference", "floor", "features", "kernel"), str),
    "dimension": int,
    "floor_values": dict,
}
LIKELIHOOD = {
    **dict.fromkeys(("unit", "data", "split", "protocol", "method", "trace"), str),
    **dict.fromkeys(("n", "of", "draws", "seed"), int),
    **dict.fromkeys(("mean", "t_min", "nfe", "nfe_derivative", "seconds"), float),
    "std_error": float | None,
    "levels": int | None,
}
ESTIMATE = {
    "value": float | None,
    "std_error": float | None,
    "n": list[int],
    "name": str,
    "note": str,
}


def check_fields(
    values: Any, hints: Mapping[str, Any], where: str, largest: int = LARGEST
) -> dict[str, Any]:
    """The values, if they are a table that has these keys with values of these types.

    Args:
        values: Plain data; more keys are allowed.
        hints: Type by key.
        where: File and key path, for messages.
        largest: Limit of the size of whole numbers.

    Raises:
        ValueError: If a key is missing or has another type; names it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table, got {_short(values)}")
    for key, hint in hints.items():
        if key not in values:
            raise ValueError(f"{where}: {key} is missing")
        value = values[key]
        try:
            check_types({key: value}, {key: hint}, where)
        except ConfigError as error:
            text = str(error).rpartition(", got ")[0]
            raise ValueError(f"{text}, got {_short(value)}") from error
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > largest:
                raise ValueError(f"{where}.{key}: {_short(number)} is too large")
    return values


def check_settings(values: Any, where: str) -> dict[str, Any]:
    """The settings of a comparison, if the report can be made from them.

    Args:
        values: Plain data.
        where: The file, for messages.

    Raises:
        ValueError: If a setting is missing or has another type.
    """
    settings = check_fields(values, SETTINGS, where)
    if settings.get("labels") not in (None, "shares", "uniform"):
        raise ValueError(f"{where}.labels must be shares or uniform")
    hints = get_type_hints(DataSpec)
    known = {key: hint for key, hint in hints.items() if key in settings["data"]}
    check_fields(settings["data"], known, f"{where}: data", largest=2**31)
    try:
        DataSpec.from_dict(settings["data"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: data: {error}") from error
    return settings


def check_tables(values: Any, where: str, metrics: Mapping[str, str]) -> dict[str, Any]:
    """What results.json holds beside the cells, if the report can be made from it.

    Args:
        values: Plain data.
        where: The file, for messages.
        metrics: Titles by name of all metrics there are.

    Raises:
        ValueError: If a value is missing or has another type.
    """
    check_fields(values, {"cells": list, "strips": list[str]}, where)
    for name in values["strips"]:
        if not re.fullmatch(r"strips/[A-Za-z0-9_-]+", name):  # only below, or reading has no end
            raise ValueError(f"{where}: strips must be folders in strips/, got {_short(name)}")
    known = {"reference": REFERENCE, "quality": QUALITY, "likelihood": LIKELIHOOD}
    for key, hints in known.items():
        if values.get(key) is not None:
            check_fields(values[key], hints, f"{where}: {key}")
    if values.get("reference") is not None:
        read_estimates({"error": values["reference"]["error"]}, f"{where}: reference", ["error"])
    if values.get("quality") is not None:
        read_estimates(values["quality"]["floor_values"], f"{where}: quality", metrics)
    return values


def read_estimates(values: Any, where: str, known: Any) -> dict[str, Estimate]:
    """Estimates by name, from plain data in which None is NaN.

    Args:
        values: A table of tables.
        where: File and key path, for messages.
        known: Names that are allowed.

    Raises:
        ValueError: If a name is unknown, or a value is missing or has another type.
    """
    found = {}
    for name, about in check_fields(values, {}, where).items():
        if name not in known:
            raise ValueError(f"{where}: {_short(name)} is not one of {', '.join(known)}")
        fields = check_fields(about, ESTIMATE, f"{where}.{name}")
        plain = {key: math.nan if fields[key] is None else fields[key] for key in ESTIMATE}
        if plain["std_error"] < 0:
            raise ValueError(f"{where}.{name}.std_error must be at least 0")
        found[name] = Estimate(**plain | {"n": tuple(fields["n"])})
    return found


def _short(value: object) -> str:
    try:
        text = json.dumps(value, default=repr)
    except ValueError:  # a number of thousands of digits
        return "a very long number"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
