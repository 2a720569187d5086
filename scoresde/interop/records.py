"""Records of what a pickle names, and the limits of the tree in which they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .limits import Refusal

__all__ = ["Record", "check_tree", "described", "foreign_names", "record_of"]

_DEEPEST = 200
_MOST_OBJECTS = 5_000_000  # of the tree; one that occurs twice counts twice
_TOO_DEEP = f"its objects are nested more than {_DEEPEST} deep"
_END = object()

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "commands": "subprocess"}
# With these a pickle runs a program or a text in a reader that obeys it. The list is for the user's
# information. It protects nobody: here nothing that a pickle names is ever imported or called.
_RUNNING_MODULES = {
    *("os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "ctypes", "importlib"),
    *("runpy", "code", "pdb", "timeit", "profile", "cProfile", "pickle", "_pickle", "marshal"),
    *("webbrowser", "pip", "torch.hub", "torch.jit", "torch.package"),
    *("torch.utils.cpp_extension", "torch.fx.graph_module", "numpy.testing"),
}
_RUNNING = {
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.open", "builtins.__import__"),
    *("builtins.input", "builtins.breakpoint", "torch.load", "numpy.load"),
    *("torch.serialization.load", "torch.serialization._load"),
    *("types.FunctionType", "types.CodeType", "multiprocessing.Process"),
}


@dataclass(eq=False, slots=True)
class Record:
    """A class or function that a pickle names, with what the pickle gives to it. It does nothing.

    Attributes:
        module: Name of the module.
        name: Name of the class or function.
        args: The arguments of the call; None where the name alone is given.
        kwargs: The named arguments of the call.
        state: The state that the object would get.
        items: The elements that it would get, or (key, value) pairs.
    """

    module: str
    name: str
    args: tuple | None = None
    kwargs: dict | None = None
    state: Any = None
    items: list = field(default_factory=list)

    def __repr__(self) -> str:
        return f"{self.module[:60]}.{self.name[:60]}"


def record_of(module: str, name: str) -> Record:
    """The record of a named class or function; modules that Python 3 renamed have the new names.

    Raises:
        Refusal: For what runs programs in other readers. No checkpoint names it, and the user
            should know of such a file.
    """
    module = _RENAMED.get(module, module)
    record = Record(module, name)
    if module in _RUNNING_MODULES or f"{module}.{name}" in _RUNNING:
        raise Refusal(
            f"it names {record!r}, with which a file can run any program; nothing was run here, "
            "but do not open the file with other programs"
        )
    return record


def described(value: Any) -> str:
    """An object of a pickle for a message: its class, or the name of a record."""
    kind = type(value).__name__
    if value is None:
        return "nothing (None)"
    return repr(value) if isinstance(value, Record) else f"{'an' if kind == 'int' else 'a'} {kind}"


def foreign_names(tree: Any) -> dict[str, int]:
    """The classes and functions that a file names and that were not rebuilt, with their numbers.

    Args:
        tree: What `read_pickle` returned.
    """
    found, seen, waiting = Counter(), set(), [tree]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend(_children(value))
            if isinstance(value, Record):
                found[f"{value.module}.{value.name}"] += 1
    return dict(found)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, Record):
        yield from (value.args, value.kwargs, value.state, value.items)


@dataclass(slots=True)
class _Visit:
    """An object on the way from the root: what of it is left, and the size of what was seen."""

    value: Any
    children: Iterator[Any]
    objects: int = 1
    height: int = 1


def check_tree(tree: Any) -> None:
    """Raise unless the objects form a tree of limited depth and size.

    Objects that occur several times are counted each time, because a program that walks through
    the tree meets them as often.

    Raises:
        Refusal: If an object contains itself, or there are too many or too deep ones.
    """
    done: dict[int, _Visit] = {}
    path = [_Visit(tree, _children(tree))]
    on_path = {id(tree)}
    while path:
        top = path[-1]
        child = next(top.children, _END)
        if child is _END:
            done[id(top.value)] = path.pop()
            on_path.discard(id(top.value))
            if path:
                _count(path, top)
        elif not isinstance(child, (list, tuple, dict, Record)):
            top.objects += 1
        elif id(child) in on_path:
            raise Refusal("one of its objects contains itself")
        elif id(child) in done:
            _count(path, done[id(child)])
        else:
            on_path.add(id(child))
            path.append(_Visit(child, _children(child)))
            if len(path) > _DEEPEST:
                raise Refusal(_TOO_DEEP)


def _count(path: list[_Visit], child: _Visit) -> None:
    """Add a finished object to the last one of the path."""
    top = path[-1]
    top.objects += child.objects
    top.height = max(top.height, child.height + 1)
    if top.objects > _MOST_OBJECTS:
        raise Refusal(f"it stands for more than {_MOST_OBJECTS:,} objects")
    if top.height > _DEEPEST:
        raise Refusal(_TOO_DEEP)
