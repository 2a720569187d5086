"""List samplers and their parameters from their docstrings, for `scoresde samplers`."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

from ..names.samplers import SAMPLERS

__all__ = ["list_samplers"]


def list_samplers(name: str | None = None) -> list[dict[str, Any]]:
    """List the samplers, with the meaning of their parameters.

    Args:
        name: One of the names in `SAMPLERS`; None for all.

    Returns:
        One dict per sampler: name, description and parameters. A parameter is a dict of name,
        default, and meaning with the allowed range.
    """
    return [_described(one) for one in (SAMPLERS if name is None else [name])]


def _described(name: str) -> dict[str, Any]:
    make = SAMPLERS[name]
    source = make.func if isinstance(make, partial) else make
    text = inspect.getdoc(source) or ""
    meanings = _arguments(text)
    parameters = [
        {"name": p.name, "default": p.default, "meaning": meanings[p.name]}
        for p in inspect.signature(make).parameters.values()
    ]
    return {"name": name, "about": _first_line(text), "parameters": parameters}


def _first_line(text: str) -> str:
    """The first line of a docstring, without the formula that may follow."""
    return text.partition("\n")[0].partition(":  ")[0].rstrip(".:")


def _arguments(text: str) -> dict[str, str]:
    """The texts in the "Args:" section of a docstring, by argument name, each on one line."""
    section = re.search(r"^Args:\n((?: {4}.*\n?)+)", text, re.MULTILINE)
    entries = re.split(r"^ {4}(?=\w+: )", section[1] if section else "", flags=re.MULTILINE)
    pairs = (" ".join(entry.split()).partition(": ") for entry in entries if entry.strip())
    return {name: meaning for name, _, meaning in pairs}
