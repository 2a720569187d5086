"""Files with the settings of a network, for formats that do not hold them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointError

__all__ = ["read_settings_of"]


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
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", path) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not a {path.suffix[1:]} file: {error}", path) from error
    try:
        return checked(tables)
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error), path) from error
