"""Files with the settings of a network, for formats that do not hold them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._text import reason_of
from ..checkpoint import CheckpointError
from .plain_json import parsed, read_text

__all__ = ["read_settings_of", "without_like"]

_MOST_BYTES = 1 << 20


def read_settings_of(
    source: str | Path,
    published: Mapping[str, dict[str, Any]],
    checked: Callable[[Any], dict[str, Any]],
) -> dict[str, Any]:
    """The settings of a published name, or of a TOML or JSON file.

    Args:
        source: A key of `published`, or the path of a file that ends with .toml or .json.
        published: Settings by name.
        checked: The settings of a file's content; it raises TypeError or ValueError.

    Raises:
        CheckpointError: If there are no such settings, or `checked` raises.
    """
    if str(source) in published:
        return dict(published[str(source)])
    path = Path(source)
    if path.suffix not in (".toml", ".json"):
        raise CheckpointError(
            f"settings must be a .toml or .json file or one of {', '.join(published)}, got {source}"
        )
    text = read_text(path, _MOST_BYTES)
    try:
        tables = tomllib.loads(text) if path.suffix == ".toml" else parsed(path, text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CheckpointError(f"not a toml file: {reason_of(error)}", path) from error
    try:
        return checked(tables)
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error), path) from error


def without_like(
    table: Mapping[str, Any], published: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The keys of a file, and the published settings that its key `like` names, or None.

    Raises:
        ValueError: If there are no published settings of that name.
    """
    given = dict(table)
    like = given.pop("like", None)
    if like is None:
        return given, None
    if not isinstance(like, str) or like not in published:
        raise ValueError(f"like must be one of {', '.join(published)}, got {like!r}")
    return given, dict(published[like])
