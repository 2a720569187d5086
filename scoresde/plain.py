"""From plain data to objects. Keys and types are checked against the constructor's signature."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

__all__ = [
    "ConfigError",
    "check_keys",
    "check_types",
    "check_unique",
    "check_values",
    "construct",
    "construct_named",
    "is_class_path",
    "nearest",
    "split_kind",
    "split_name",
]


class ConfigError(ValueError):
    """A config that cannot be used: file, key path and reason in one line."""


def is_class_path(text: str) -> bool:
    """Whether a text begins with `package.module:Name`; `name:key=value` does not."""
    return _CLASS_PATH.fullmatch(text.strip()) is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """Text for an error message: the nearest known name, if one is near, and all known names."""
    known = list(known)
    close = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(known) or 'none'}"


def split_kind(
    kinds: Mapping[str, type], values: Mapping[str, Any], where: str
) -> tuple[type, dict[str, Any]]:
    """The class named by `values["kind"]`, and the other values.

    Raises:
        ConfigError: If the kind is missing or unknown (with the nearest one).
    """
    arguments = dict(values)
    kind = arguments.pop("kind", None)
    if kind is None:
        raise ConfigError(f"{where}: missing kind; allowed: {', '.join(kinds)}")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}.kind: {kind!r} is unknown; {nearest(str(kind), kinds)}")
    return kinds[kind], arguments


def construct(make: Callable[..., Any], values: Mapping[str, Any], where: str) -> Any:
    """`make(**values)`, after `check_values`.

    Args:
        make: A class, a function, or a partial of one.
        values: Plain data.
        where: Source and key path, for messages.

    Raises:
        ConfigError: On an unknown, missing or mistyped key, or if `make` refuses a value.
    """
    check_values(make, values, where)
    try:
        return make(**values)
    except ConfigError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {error}") from error


def construct_named(noun: str, text: str, known: Mapping[str, Callable[..., Any]]) -> Any:
    """The object that `name` or `name:key=value:key=value` describes.

    Args:
        noun: The kind of object, for messages: "sampler", "trace".
        text: The name, with the parameters that differ from their defaults.
        known: The class or function that makes the object, by name.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    name, arguments = split_name(noun, text, known)
    return construct(known[name], arguments, f"{noun} {name}")


def split_name(noun: str, text: str, known: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The name, and the parameters with their values, of `name:key=value:key=value`.

    Raises:
        ConfigError: If the name is not one of `known`, or a parameter is malformed.
    """
    name, *pairs = text.strip().split(":")
    if name not in known:
        raise ConfigError(f"{noun} {name!r} is unknown; {nearest(name, known)}")
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{noun} {text!r}: write parameters as key=value, got {pair!r}")
        if key in arguments:
            raise ConfigError(f"{noun} {text!r}: {key} is given twice")
        arguments[key] = _value(value)
    return name, arguments


def check_values(
    make: Callable[..., Any], values: Mapping[str, Any], where: str, skip: Iterable[str] = ()
) -> None:
    """Check keys against the signature of `make` and types against its hints, without calling it.

    Args:
        make: A class, a function, or a partial of one.
        values: Plain data.
        where: Source and key path, for messages.
        skip: Arguments that may not come from plain data.

    Raises:
        ConfigError: On an unknown, missing or mistyped key.
    """
    parameters = {k: p for k, p in inspect.signature(make).parameters.items() if k not in skip}
    named = {k: p for k, p in parameters.items() if p.kind not in _VARIABLE}
    required = [n for n, p in named.items() if p.default is inspect.Parameter.empty]
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    check_keys(values, [*named, *values] if anything else named, where, required)
    check_types(values, _hints(make.func if isinstance(make, partial) else make), where)


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError on a value that does not fit the type hint of its key, if it has one."""
    for key, value in values.items():
        if key in hints and not _matches(value, hints[key]):
            raise ConfigError(f"{where}.{key} must be {_say(hints[key])}, got {value!r}")


def check_keys(
    values: Mapping[str, Any], known: Iterable[str], where: str, required: Iterable[str] = ()
) -> None:
    """Raise ConfigError if `values` is not a table, has an unknown key or lacks a required one."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a table, got {values!r}")
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(str(key), known)}")
    if missing := [key for key in required if key not in values]:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")


def check_unique(name: str, values: Iterable[object]) -> None:
    """Raise ValueError if a value comes twice; `name` is the noun for the message."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} {value} is given twice")
        seen.add(value)


_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_CLASS_PATH = re.compile(rf"{_DOTTED}:{_DOTTED}(:.*)?", re.DOTALL)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """Type hints of a function's arguments, or of a class's constructor; none if unreadable."""
    # A dataclass, or a class that takes over a dataclass's constructor, has its hints itself.
    own = isinstance(make, type) and "__init__" in vars(make)
    fields = is_dataclass(make) and ("__dataclass_fields__" in vars(make) or not own)
    try:
        return typing.get_type_hints(
            make.__init__ if isinstance(make, type) and not fields else make
        )
    except (NameError, TypeError, AttributeError):  # names that only a type checker knows
        return {}


def _matches(value: Any, hint: Any) -> bool:
    """Whether plain data fit a type hint. An integer fits float, a bool does not fit int."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (dict, abc.Mapping):
        return isinstance(value, Mapping)
    if origin in (typing.Union, types.UnionType):
        return any(_matches(value, a) for a in arguments)
    if origin is typing.Literal:
        # The constructor names the allowed ones.
        return any(type(value) is type(argument) for argument in arguments)
    if isinstance(origin, type) and issubclass(origin, abc.Sequence) | issubclass(list, origin):
        return isinstance(value, (list, tuple)) and all(_matches(v, arguments[0]) for v in value)
    if not isinstance(hint, type) or hint is object:  # Any, or a type variable
        return True
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


_ONE = {
    **{int: "an integer", float: "a number", str: "text", bool: "true or false"},
    **{Path: "a path", dict: "a table"},
}
_MANY = {int: "integers", float: "numbers", str: "texts", bool: "true or false"}


def _say(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_say(a) for a in arguments if a is not types.NoneType)
    if origin is typing.Literal:
        return "text"
    if origin is not None:
        return f"a list of {_MANY.get(arguments[0], arguments[0])}"
    return _ONE.get(hint, getattr(hint, "__name__", str(hint)))
