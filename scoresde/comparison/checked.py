"""Checks of stored results: their files may be damaged, or come from another person.

Every value that the report and the tables use is checked. A wrong value is an error that names its
file and key.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, get_type_hints

from ..data import DataSpec
from ..metrics import Estimate, SquareLaw
from ..plain import ConfigError, check_types
from .metric_table import METRICS

__all__ = [
    "LABELS",
    "check_fields",
    "check_settings",
    "estimates_from_json",
    "estimates_to_json",
    "read_tables",
]

LARGEST = 2**64  # largest whole number that is accepted: seeds are below it
SHOWN_CHARACTERS = 60  # characters of a wrong value in an error

# The shares of the classes among the samples of a conditional model, as text for the report.
LABELS = {"shares": "its share of the training data", "uniform": "the same share"}

SETTING_TYPES = {
    **dict.fromkeys(("command", "checkpoint", "sha256", "sde", "device"), str),
    **dict.fromkeys(("n", "seed", "batch", "likelihood"), int),
    **dict.fromkeys(("samplers", "grids"), list[str]),
    "data": dict,
    "nfe": list[int],
    "t_min": float,
}
OPTIONAL_TYPES = {
    **{"reference_t": float, "features": str, "metrics": list[str], "guidance": str},
    "latent_shape": list[int],
}
REFERENCE_TYPES = {
    "method": str,
    "tolerance": float,
    "nfe": int,
    "error_tolerance": float,
    "error": dict,
}
QUALITY_TYPES = {
    **dict.fromkeys(("data", "reference", "floor", "features", "kernel"), str),
    "dimension": int,
    "floor_values": dict,
}
LIKELIHOOD_TYPES = {
    **dict.fromkeys(("unit", "data", "split", "protocol", "method", "trace"), str),
    **dict.fromkeys(("n", "of", "draws", "seed"), int),
    **dict.fromkeys(("mean", "t_min", "nfe", "nfe_derivative", "seconds"), float),
    "std_error": float | None,
    "levels": int | None,
}
TABLE_TYPES = {
    "reference": REFERENCE_TYPES,
    "quality": QUALITY_TYPES,
    "likelihood": LIKELIHOOD_TYPES,
}
ESTIMATE_TYPES = {
    "value": float | None,
    "std_error": float | None,
    "n": list[int],
    "name": str,
    "note": str,
}


def check_fields(
    values: Any, hints: Mapping[str, Any], where: str, largest: int = LARGEST
) -> dict[str, Any]:
    """Check that plain data are a table with these keys, whose values have these types.

    Args:
        values: Plain data; more keys are allowed.
        hints: Type by key.
        where: File and key path, for messages.
        largest: Whole numbers must not be larger in absolute value.

    Returns:
        The values, unchanged.

    Raises:
        ValueError: If a key is missing, or its value has another type; the message names the key.
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
    """Check that the report can be made from the settings of a comparison.

    Args:
        values: Plain data.
        where: The file, for messages.

    Returns:
        The values, unchanged.

    Raises:
        ValueError: If a setting is missing or has another type.
    """
    settings = check_fields(values, SETTING_TYPES, where)
    optional = {key: kind for key, kind in OPTIONAL_TYPES.items() if key in settings}
    check_fields(settings, optional, where)
    if settings.get("labels") not in (None, *LABELS):
        raise ValueError(f"{where}.labels must be one of {', '.join(LABELS)}")
    hints = get_type_hints(DataSpec)
    # `from_dict` checks transforms itself: they are plain data here, and objects in a DataSpec.
    known = {k: hint for k, hint in hints.items() if k in settings["data"] and k != "transform"}
    check_fields(settings["data"], known, f"{where}: data", largest=2**31)
    try:
        DataSpec.from_dict(settings["data"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: data: {error}") from error
    return settings


def read_tables(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The checked tables of results.json, apart from its cells.

    Args:
        values: The plain data of the file.
        where: The file, for messages.

    Returns:
        "strips", a list of folders, and "reference", "quality" and "likelihood", each a table or
        None. The "error" of the reference solution is an `Estimate`, and "floor_values" of the
        quality metrics are `Estimate`s by name.

    Raises:
        ValueError: If a value is missing or has another type.
    """
    check_fields(values, {"strips": list[str]}, where)
    for name in values["strips"]:
        # A parent folder would be read without end.
        if not re.fullmatch(r"strips/[A-Za-z0-9_-]+", name):
            raise ValueError(f"{where}: strips must be folders in strips/, got {_short(name)}")
    found = {"strips": values["strips"]}
    for key, hints in TABLE_TYPES.items():
        table = values.get(key)
        found[key] = None if table is None else check_fields(table, hints, f"{where}: {key}")
    if reference := found["reference"]:
        error = {"error": reference["error"]}
        found["reference"] = reference | estimates_from_json(error, f"{where}: reference", error)
    if quality := found["quality"]:
        floor = estimates_from_json(quality["floor_values"], f"{where}: quality")
        found["quality"] = quality | {"floor_values": floor}
    return found


def estimates_to_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Estimates as plain data; NaN becomes None, because JSON has no NaN."""
    plain = {name: _estimate_to_json(estimate) for name, estimate in estimates.items()}
    return {name: {k: None if v != v else v for k, v in e.items()} for name, e in plain.items()}


def _estimate_to_json(estimate: Estimate) -> dict[str, Any]:
    law = {} if estimate.law is None else {"law": asdict(estimate.law)}
    fields = {key: getattr(estimate, key) for key in ESTIMATE_TYPES}
    return fields | {"n": list(estimate.n)} | law


def estimates_from_json(
    values: Any, where: str, known: Iterable[str] = METRICS
) -> dict[str, Estimate]:
    """Estimates by name; the inverse of `estimates_to_json`.

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
        fields = check_fields(about, ESTIMATE_TYPES, f"{where}.{name}")
        plain = {key: math.nan if fields[key] is None else fields[key] for key in ESTIMATE_TYPES}
        if plain["std_error"] < 0:
            raise ValueError(f"{where}.{name}.std_error must be at least 0")
        law = None
        if "law" in about:  # comparisons before version 0.3 have none
            hints = get_type_hints(SquareLaw)
            given = check_fields(about["law"], hints, f"{where}.{name}.law")
            law = SquareLaw(**{key: given[key] for key in hints})
            if min(law.null, law.slope) < 0:
                raise ValueError(f"{where}.{name}.law: null and slope must be at least 0")
        found[name] = Estimate(**plain | {"n": tuple(fields["n"]), "law": law})
    return found


def _short(value: object) -> str:
    try:
        text = json.dumps(value, default=repr)
    except ValueError:  # a number with thousands of digits
        return "a very long number"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
