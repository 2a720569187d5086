"""Modules in the pickles of EDM: the classes, their arguments and their tensors.

The pickle of a module holds its class's name, the source of its class, and its state: the arguments
of its constructor, tensors and submodules. The source is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .records import Record

__all__ = ["StoredModule", "stored_module"]

_CALL = ("torch_utils.persistence", "_reconstruct_persistent_obj")


@dataclass(frozen=True)
class StoredModule:
    """A module with a class of EDM.

    Attributes:
        name: Name of its class.
        arguments: Those of the constructor.
        state: Its attributes; submodules are below "_modules".
    """

    name: str
    arguments: Mapping[str, Any]
    state: Mapping[str, Any]

    def submodule(self, name: str) -> StoredModule:
        """A submodule with a class of EDM.

        Raises:
            ValueError: If there is none.
        """
        return stored_module(_table(self.state, "_modules").get(name), f"{self.name}.{name}")

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers by name, also those of submodules."""
        return dict(_tensors(self.state, ""))


def stored_module(value: Any, what: str) -> StoredModule:
    """What a pickle holds of a module.

    Args:
        value: Part of the content of `read_pickle`.
        what: Name of it, for messages.

    Raises:
        ValueError: If it is no such module.
    """
    content = _content(value)
    arguments = content.get("state", {}).get("_init_kwargs")
    if not isinstance(content.get("class_name"), str) or not isinstance(arguments, dict):
        raise ValueError(f"{what} is no network with its class and arguments")
    if content["state"].get("_init_args"):
        raise ValueError(f"{what} has arguments without names")
    return StoredModule(content["class_name"], arguments, content["state"])


def _content(value: Any) -> dict[str, Any]:
    """The table that stands for a module with a class of EDM; empty for other values."""
    if not isinstance(value, Record) or (value.module, value.name) != _CALL:
        return {}
    table = value.args[0] if value.args else None
    fits = isinstance(table, dict) and isinstance(table.get("state"), dict)
    return table if fits else {}


def _table(state: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = state.get(key)
    return found if isinstance(found, dict) else {}


def _tensors(state: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key in ("_parameters", "_buffers"):
        for name, value in _table(state, key).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, value in _table(state, "_modules").items():
        inner = _content(value).get("state") or getattr(value, "state", None)
        if isinstance(inner, dict):
            yield from _tensors(inner, f"{prefix}{name}.")
