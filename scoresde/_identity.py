"""The identity of a model or a sampler in memory: a fingerprint of all that it computes with.

A checkpoint on disk has a checksum. An object has tensors, settings, and code. Code of an installed
package is identified by its name and version, and the user's own code by its bytecode, together
with everything that it refers to: closures, defaults and global names.
"""

from __future__ import annotations

import dis
import enum
import functools
import logging
import sys
import sysconfig
import uuid
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from inspect import Signature
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .evaluation import NFE
from .fingerprint import fingerprint

__all__ = ["UnknownIdentityError", "foreign_identity", "identity", "is_foreign"]

PLAIN = (bool, int, float, str, bytes, np.generic, np.ndarray, Tensor, torch.dtype, torch.device)
# Attributes of a module that are not settings; the last two are marks of torch.compile.
BASE = frozenset(vars(nn.Module())) | {"_compiled_call_impl", "_is_torch_compile"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
INSTALLED = tuple({sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")})
_PROCESS = uuid.uuid4().hex
PACKAGES = {"site-packages", "dist-packages"}  # folders of installed packages, of any environment
# Classes and functions of these packages are known by name; results store scoresde's own version.
NAMED = {"scoresde", "torch", "numpy", *sys.stdlib_module_names}


class UnknownIdentityError(TypeError):
    """An object holds something whose content cannot be determined."""


def identity(value: Any) -> str:
    """64 hexadecimal digits that differ for objects that compute different things.

    Args:
        value: A score model, a sampler, a function, or anything that these hold.

    Raises:
        UnknownIdentityError: If it holds an object without known content, such as a generator or
            an open file; the message says where.
    """
    return fingerprint(_Walk().of(value, type(value).__name__))


def foreign_identity(value: Any) -> str | None:
    """The identity of an object if the user's own code is a part of it; otherwise None.

    Of an object whose content is not known the result differs in every process.

    Args:
        value: An instance of a dataclass, such as a sampler.
    """
    if not is_foreign(value):
        return None
    try:
        return identity(value)
    except UnknownIdentityError:
        return f"{_PROCESS}-{id(value)}"


def is_foreign(value: Any) -> bool:
    """Whether the class of an object, or of one of its fields, is not of this package."""
    if not is_dataclass(value):
        return False
    own = _package(type(value).__module__) == "scoresde"
    return not own or any(is_foreign(getattr(value, f.name)) for f in fields(value))


class _Walk:
    """One walk through an object; every object is entered once, so that circles end."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.held: list[Any] = []  # keeps the ids of temporary objects from being used again

    def of(self, value: Any, where: str) -> Any:
        """The content of a value as nested lists that `fingerprint` reads."""
        if value is None or isinstance(value, PLAIN):
            return [type(value).__name__, value]
        if isinstance(value, nn.Module) and hasattr(value, "_orig_mod"):  # of torch.compile
            value = value._orig_mod
        if id(value) in self.seen:
            return ["seen", self.seen[id(value)]]
        self.seen[id(value)] = len(self.seen)
        self.held.append(value)
        if isinstance(value, (list, tuple)):
            return ["sequence", *(self.of(v, f"{where}[{i}]") for i, v in enumerate(value))]
        if isinstance(value, Mapping):
            items = [(self.of(k, where), self.of(v, f"{where}[{k!r}]")) for k, v in value.items()]
            return ["mapping", sorted(map(fingerprint, items))]
        if isinstance(value, (set, frozenset)):
            return ["set", sorted(fingerprint(self.of(item, where)) for item in value)]
        return self._of_code(value, where)

    def _of_code(self, value: Any, where: str) -> Any:
        """The content of functions, classes and packages, and of other objects."""
        if isinstance(value, FunctionType):
            return self._of_function(value, where)
        if isinstance(value, MethodType):
            parts = (value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
        elif isinstance(value, (BuiltinFunctionType, np.ufunc)):
            owner = getattr(value, "__self__", None)
            parts = (value.__name__, None if isinstance(owner, (ModuleType, type)) else owner)
        elif isinstance(value, type):
            return self._of_class(value, where)
        elif isinstance(value, ModuleType):
            return ["package", value.__name__, _version(value.__name__)]
        elif isinstance(value, (property, staticmethod, classmethod, functools.cached_property)):
            return self.of(_function_of(value), where)
        elif hasattr(value, "__wrapped__"):  # such as functools.cache
            parts = (value.__wrapped__,)
        else:
            return self._of_object(value, where)
        return [type(value).__name__, *(self.of(part, where) for part in parts)]

    def _of_object(self, value: Any, where: str) -> Any:
        """The content of an instance: its class and its attributes."""
        if isinstance(value, (enum.Enum, PurePath, torch.layout, torch.memory_format, Signature)):
            return [type(value).__name__, str(value)]
        if isinstance(value, (NFE, logging.Logger)):  # counts and messages change no number
            return [type(value).__name__]
        if isinstance(value, nn.Module):
            return self._of_module(value, where)
        cls, slots = type(value), []
        for base in cls.__mro__:
            slots += [n for n in getattr(base, "__slots__", ()) if hasattr(value, n)]
        if _package(cls.__module__) in NAMED - {"scoresde"} or not (
            slots or hasattr(value, "__dict__")
        ):
            raise UnknownIdentityError(f"the content of {where}, a {cls.__name__}, is not known")
        state = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
        return [self.of(cls, where), *self._of_state(_lasting(cls, state), where)]

    def _of_module(self, module: nn.Module, where: str) -> Any:
        """The content of a module: class, tensors, submodules, settings and hooks."""
        if isinstance(module, torch.jit.ScriptModule):
            raise UnknownIdentityError(f"{where} is a TorchScript module")
        state = {k: v for k, v in vars(module).items() if k not in BASE}
        state = _lasting(type(module), state)
        state |= module._parameters | module._buffers | module._modules
        state |= {name: list(vars(module)[name].values()) for name in HOOKS}
        return [self.of(type(module), where), *self._of_state(state, where)]

    def _of_state(self, state: Mapping[str, Any], where: str) -> list[Any]:
        """The content of named values, in the order of their names."""
        return [[name, self.of(state[name], f"{where}.{name}")] for name in sorted(state)]

    def _of_class(self, cls: type, where: str) -> Any:
        """A class by name; the user's own classes also by the code of their methods."""
        name = [cls.__module__, cls.__qualname__, _version(cls.__module__)]
        if _is_named(cls.__module__):
            return ["class", *name]
        code = {
            key: member
            for key, member in vars(cls).items()
            if isinstance(member, (*PLAIN, FunctionType, property, staticmethod, classmethod))
            and key not in ("__module__", "__doc__", "__qualname__")
        }
        bases = [self.of(base, where) for base in cls.__bases__]
        return ["class", *name, bases, *self._of_state(code, cls.__name__)]

    def _of_function(self, function: FunctionType, where: str) -> Any:
        """A function by name; the user's own functions by code and everything they refer to."""
        home = function.__globals__.get("__name__", "")
        if _is_named(home):
            name, cells = [home, function.__qualname__, _version(home)], function.__closure__ or ()
            # A function made by another one is known by its name and its closure.
            return ["function", *name, *(self._of_cell(cell, where) for cell in cells)]
        where = f"{where}, {function.__qualname__}"
        names = sorted(_globals(function.__code__) & function.__globals__.keys())
        used = {name: function.__globals__[name] for name in names}
        return [
            "function",
            _code(function.__code__),
            self.of(function.__defaults__, where),
            self.of(function.__kwdefaults__, where),
            [self._of_cell(cell, where) for cell in function.__closure__ or ()],
            *self._of_state(used, where),
        ]

    def _of_cell(self, cell: Any, where: str) -> Any:
        try:
            return self.of(cell.cell_contents, where)
        except ValueError:  # a variable that is not assigned yet
            return "empty"


def _lasting(cls: type, state: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes without those that are computed from others when they are first used."""
    cached = functools.cached_property
    return {k: v for k, v in state.items() if not isinstance(getattr(cls, k, None), cached)}


def _code(code: CodeType) -> list[Any]:
    """Bytecode, names and constants, those of inner functions included."""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value: Any) -> str:
    """A constant as text; the order of a set's elements is that of this process only."""
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _globals(code: CodeType) -> set[str]:
    """Global names that the code reads, that of inner functions included."""
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    names = {i.argval for i in dis.get_instructions(code) if i.opname in loads}
    return names.union(*(_globals(c) for c in code.co_consts if isinstance(c, CodeType)))


def _function_of(member: Any) -> Any:
    """The functions of a property, static method or class method."""
    if isinstance(member, property):
        return (member.fget, member.fset)
    return member.func if isinstance(member, functools.cached_property) else member.__func__


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_named(module: str) -> bool:
    """Whether code of a module is identified by name: that of an installed package."""
    if _package(module) in NAMED:
        return True
    file = getattr(sys.modules.get(_package(module)), "__file__", None)
    if file is None:
        return False
    return file.startswith(INSTALLED) or not PACKAGES.isdisjoint(PurePath(file).parts)


def _version(module: str) -> str:
    """The version that the package of a module states; empty without one."""
    return str(getattr(sys.modules.get(_package(module)), "__version__", ""))
