"""Classes of the user by their place, `package.module:Name`, with their parameters.

Only the user's own words are resolved here: a config file, the command line or a call in Python.
The module is imported, which runs its code. Nothing in a checkpoint ever comes here.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from .._text import reason_of
from ..plain import ConfigError, construct, is_class_path, split_name

__all__ = ["checked_kind", "class_path", "construct_imported", "import_any", "import_object"]


def class_path(cls: type) -> str:
    """The place of a class as text, `package.module:Name`.

    A class of the script that Python runs has the name of the script's file as its module.
    """
    module = cls.__module__
    if module == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        module = Path(file).stem
    return f"{module}:{cls.__qualname__}"


def import_object(path: str, noun: str) -> Callable[..., Any]:
    """The class or function at `package.module:Name`; its module is imported, which runs its code.

    Modules in the present folder are found as well.

    Args:
        path: The place.
        noun: The kind of object, for messages: "network", "SDE".

    Raises:
        ConfigError: If the module cannot be imported, or has no such class or function.
    """
    found = import_any(path, noun)
    if not callable(found):
        raise ConfigError(
            f"{noun} {path!r}: must be a class or a function that makes the {noun}, got "
            f"{type(found).__name__}"
        )
    return found


def import_any(path: str, noun: str) -> Any:
    """Like `import_object`, for an object of any kind.

    Raises:
        ConfigError: If the module cannot be imported, or has no such object.
    """
    if not is_class_path(path) or path.count(":") != 1:
        raise ConfigError(f"{noun} {path!r}: write the place of a class as package.module:Name")
    module, _, names = path.partition(":")
    found = _imported(module, f"{noun} {path!r}")
    for name in names.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{noun} {path!r}: {module} has no {name!r}{hint}")
        found = getattr(found, name)
    return found


def construct_imported(
    noun: str,
    text: str,
    kind: type,
    stored: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
) -> Any:
    """The object that `package.module:Name` or `package.module:Name:key=value` describes.

    Args:
        noun: The kind of object, for messages.
        text: The place, with parameters.
        kind: The base class that the object must have.
        stored: Parameters to use if the text gives none, as far as there are such parameters.
        shape: Value of the parameter `shape`, if there is one.

    Raises:
        ConfigError: If it cannot be imported or made, or is not of the kind.
    """
    module, _, rest = text.strip().partition(":")
    name, _, pairs = rest.partition(":")
    path = f"{module}:{name}"
    make = import_object(path, noun)
    _, arguments = split_name(noun, f"{name}:{pairs}" if pairs else name, [name])
    known = inspect.signature(make).parameters
    if not arguments:
        arguments = {key: value for key, value in (stored or {}).items() if key in known}
    if shape is not None and "shape" in known:
        arguments = {"shape": list(shape), **arguments}
    with redirect_stdout(sys.stderr):
        made = construct(make, arguments, f"{noun} {path}")
    return checked_kind(made, kind, f"{noun} {path}")


def checked_kind(made: object, kind: type, where: str) -> Any:
    """The object, or a ConfigError if it is not of the kind that is needed there."""
    if not isinstance(made, kind):
        raise ConfigError(
            f"{where}: must make a {kind.__module__.split('.')[0]} {kind.__name__}, got "
            f"{type(made).__name__}"
        )
    return made


def _imported(module: str, where: str) -> Any:
    """The module, looked for in the present folder first, as by `python -m`.

    What it prints goes to stderr: stdout is for the command's results.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            return import_module(module)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{where}: there is no module {error.name!r}, neither in {folder} nor installed"
            ) from error
        raise ConfigError(f"{where}: {module} cannot be imported: {reason_of(error)}") from error
    except BaseException as error:  # the module may raise anything, SystemExit included
        raise ConfigError(
            f"{where}: importing {module} raised {type(error).__name__}: {reason_of(error)}"
        ) from error
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for modules that it imports later, after those installed
