"""Which networks a model can call: its own submodules, and those that its functions refer to."""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

__all__ = ["float_parameters", "reachable_modules"]

# Code of these packages holds no network of the user, and searching it would take long. Attributes
# of our own objects are searched, because they may hold a network or a function of the user.
_SILENT = frozenset({"torch", "torchvision", "numpy", "scipy", *sys.stdlib_module_names})
_OWN = __name__.partition(".")[0]  # whose functions refer to no network by a global name
_SEARCHED = 10_000  # objects after which the search ends
_BASE = frozenset(vars(nn.Module()))


def reachable_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that a call of `model` may run.

    PyTorch knows only the registered submodules of a module. Other networks are found by following
    references: a function may use a network through a closure, a default argument, a global name,
    a method's owner or a `partial`, and an object may keep one in an attribute or a list.

    Args:
        model: Any module.

    Yields:
        The module itself and all other modules found, each once.
    """
    seen: set[int] = set()
    waiting: deque[Any] = deque([model])
    while waiting and len(seen) < _SEARCHED:
        value = waiting.popleft()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        waiting.extend(_references(value))


def float_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The floating parameters of a model, also of networks that its functions use."""
    for module in reachable_modules(model):
        yield from (p for p in module.parameters(recurse=False) if p.is_floating_point())


def _references(value: Any) -> Iterator[Any]:
    """The objects that a module, a function, a container or an object of the user refers to."""
    if isinstance(value, nn.Module):
        yield from value._modules.values()
        if not _is_silent(type(value).__module__):
            yield from (v for name, v in vars(value).items() if name not in _BASE)
            yield type(value).forward
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, dict):
        yield from list(islice(value.values(), _SEARCHED))
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from list(islice(value, _SEARCHED))
    elif hasattr(value, "__wrapped__"):  # such as functools.cache
        yield value.__wrapped__
    elif not isinstance(value, (type, ModuleType)) and not _is_silent(type(value).__module__):
        yield from list(getattr(value, "__dict__", {}).values())
        yield from (v for v in vars(type(value)).values() if isinstance(v, FunctionType))
        for name in getattr(type(value), "__slots__", ()):
            yield getattr(value, name, None)


def _of_function(function: FunctionType) -> Iterator[Any]:
    """A function's closure, defaults, wrapped function, and the globals that its code names."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not assigned yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield getattr(function, "__wrapped__", None)
    module = function.__globals__.get("__name__")
    if _is_silent(module) or _package(module) == _OWN:
        return
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, (ModuleType, type)) and not _is_silent(value.__name__):
            yield from (vars(value).get(attribute) for attribute in names)  # package.network
        else:
            yield value


def _names(code: CodeType) -> set[str]:
    """Names that a function's code uses, functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_silent(module: str | None) -> bool:
    return _package(module) in _SILENT


def _package(module: str | None) -> str | None:
    """The first part of a module's name."""
    return None if module is None else module.partition(".")[0]
