"""Score-based SDE/ODE generative models.

    import scoresde
    checkpoint = scoresde.load("digits-vp")
    out = scoresde.sample(checkpoint.model)

`scoresde.X` is a module of this package, or the object that a package in `_ROOMS` exports as X. It
is imported when it is first used, so that `import scoresde` alone is instant.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__version__ = "0.2.0"

__all__: list[str]  # made by `__getattr__`, like all names

# In the order of their imports: a name of an early package imports no later package.
_ROOMS = (
    *("sde", "score", "noise", "exact", "loss", "samplers", "data", "likelihood"),
    *("distribution", "classification", "guidance", "inverse", "autoencoder", "names", "tasks"),
    *("comparison", "verification"),
)


def __getattr__(name: str) -> Any:
    if name == "__all__":
        public = [name for room in _rooms() for name in room.__all__]
        return ["__version__", "grid", "metrics", "nets", *_ROOMS, *public]
    if not name.startswith("__"):
        if find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        for room in _rooms():
            if name in room.__all__:
                return getattr(room, name)
    raise AttributeError(f"module 'scoresde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__getattr__("__all__"))


def _rooms() -> Iterator[ModuleType]:
    return (import_module(f"{__name__}.{room}") for room in _ROOMS)
