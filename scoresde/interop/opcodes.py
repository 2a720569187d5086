"""Interpreter of pickle's opcodes that runs nothing: what a file names becomes inert records.

A pickle is a program for a small stack machine (the standard library describes its opcodes in
`pickletools`). Python's own machine imports and calls what the program names. This one builds
lists, tuples, dictionaries, numbers and text. Each named class or function becomes a `Record`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

from .limits import Budget, Refusal
from .records import Record, described, record_of

__all__ = ["as_key", "interpret"]

_MOST_BITS = 1024  # of an integer; a UUID has 128
_KEYS = (str, int, float, bool, bytes, type(None))
_REFUSED = {"NEXT_BUFFER", "EXT1", "EXT2", "EXT4"}  # buffers and names from outside the file
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Record("builtins", "set", ()),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def as_key(key: Any) -> Any:
    """The key of a dictionary, checked.

    Only keys whose hash is cheap, and random for text, are allowed. With tuples or large integers
    a small file could keep a dictionary busy for hours.

    Raises:
        Refusal: If it is not text, bytes, a number of at most 64 bits or None.
    """
    if type(key) not in _KEYS or (type(key) is int and key.bit_length() > 64):
        raise Refusal(f"a key of a dictionary is {described(key)}, not text or a small number")
    return key


def interpret(
    file: IO[bytes],
    budget: Budget,
    call: Callable[[Record, Any], Any],
    build: Callable[[Record, Any], Any],
    persistent: Callable[[Any], Any],
) -> Any:
    """The object of the pickle at the file's position, which is moved behind it.

    Args:
        file: Its `read` and `readline` must not allocate more than the file holds.
        budget: Is charged for each opcode.
        call: (name, arguments) ↦ what stands for the call, for every call of the pickle.
        build: (record, state) ↦ what stands for the record with its state.
        persistent: Persistent id ↦ what stands for it.

    Raises:
        Refusal: If the pickle is damaged, or too large, or does what no checkpoint does.
        ValueError: If an opcode or its argument is damaged.
    """
    machine = _Machine(call, build, persistent)
    for opcode, argument, _ in pickletools.genops(file):
        budget.take_operations()
        name = opcode.name
        if name in ("PROTO", "FRAME"):  # a frame only says how much to read ahead
            continue
        if name == "STOP":
            return machine.pop()
        step = _STEPS.get(name)
        if step is not None:
            step(machine, argument)
        elif name in _CONSTANTS:
            machine.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            machine.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            machine.stack.append(tuple([machine.pop() for _ in range(_TUPLES[name])][::-1]))
        else:
            machine.push(argument, name)
    raise Refusal("damaged: its pickle has no end")


class _Machine:
    """Stack, marks and memo of the interpreter; one method for each opcode that takes objects."""

    def __init__(
        self,
        call: Callable[[Record, Any], Any],
        build: Callable[[Record, Any], Any],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.call, self.build_with, self.persistent = call, build, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.memo_keys: dict[int, list[int]] = {}  # of each record by its id, for `build`

    def pop(self) -> Any:
        if not self.stack:
            raise Refusal("damaged: it takes an object from an empty stack")
        return self.stack.pop()

    def top(self, kind: type | tuple[type, ...]) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise Refusal(
                f"damaged: it adds elements to {described(self.stack[-1] if self.stack else None)}"
            )
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """The objects above the last mark, which are taken away with it."""
        if not self.below:
            raise Refusal("damaged: it has no mark where one is needed")
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def push(self, argument: Any, name: str) -> None:
        plain = (str, bytes, int, float, bool, bytearray)
        if not isinstance(argument, plain) or name in _REFUSED:
            raise Refusal(f"it has the opcode {name}, which no checkpoint has")
        if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
            raise Refusal(f"an integer has {argument.bit_length():,} bits, more than {_MOST_BITS}")
        self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_top(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.top(object))

    def append(self, _: Any) -> None:
        self._extend([self.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self.marked())

    def _extend(self, values: list[Any]) -> None:
        target = self.top((list, Record))
        (target if isinstance(target, list) else target.items).extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def set_items(self, _: Any) -> None:
        self._update(self.marked())

    def _update(self, flat: list[Any]) -> None:
        target = self.top((dict, Record))
        if isinstance(target, dict):
            target.update(_dictionary(flat))
        else:
            target.items.extend(_pairs(flat))

    def memoize(self, argument: int | None) -> None:
        key, value = len(self.memo) if argument is None else argument, self.top(object)
        self.memo[key] = value
        if isinstance(value, Record):
            self.memo_keys.setdefault(id(value), []).append(key)

    def recall(self, argument: int) -> None:
        if argument not in self.memo:
            raise Refusal(f"damaged: it recalls object {argument}, which was not stored")
        self.stack.append(self.memo[argument])

    def name(self, argument: str) -> None:
        self.stack.append(record_of(*argument.split(" ", 1)))

    def name_on_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refusal(f"damaged: it names a class by {described(module)} and {described(name)}")
        self.stack.append(record_of(module, name))

    def reduce(self, _: Any) -> None:
        arguments = self.pop()
        self._call(self.pop(), arguments)

    def new_with_names(self, _: Any) -> None:
        named = self.pop()
        if not isinstance(named, dict):
            raise Refusal(f"damaged: it gives named arguments as {described(named)}")
        self.reduce(None)
        if isinstance(self.stack[-1], Record):
            self.stack[-1].kwargs = named

    def instance(self, argument: str) -> None:
        self._call(record_of(*argument.split(" ", 1)), tuple(self.marked()))

    def object(self, _: Any) -> None:
        parts = self.marked()
        if not parts:
            raise Refusal("damaged: it makes an object without a class")
        self._call(parts[0], tuple(parts[1:]))

    def _call(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, Record) or not isinstance(arguments, tuple):
            raise Refusal(f"damaged: it calls {described(called)} with {described(arguments)}")
        self.stack.append(self.call(called, arguments))

    def build(self, _: Any) -> None:
        state = self.pop()
        target = self.top(object)
        if not isinstance(target, Record):
            return  # attributes of a dictionary or a tensor, which are not kept
        made = self.build_with(target, state)
        if made is not target:
            self.stack[-1] = made
            for key in self.memo_keys.pop(id(target), []):
                if self.memo[key] is target:
                    self.memo[key] = made

    def by_id(self, _: Any) -> None:
        self.stack.append(self.persistent(self.pop()))

    def by_text_id(self, argument: str) -> None:
        self.stack.append(self.persistent(argument))


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    if len(flat) % 2:
        raise Refusal("damaged: it has a key without a value")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _dictionary(flat: list[Any]) -> dict[Any, Any]:
    return {as_key(key): value for key, value in _pairs(flat)}


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop_top,
    "POP_MARK": lambda machine, _: machine.marked() and None,
    "DUP": _Machine.duplicate,
    "LIST": lambda machine, _: _push(machine, list),
    "TUPLE": lambda machine, _: _push(machine, tuple),
    "DICT": lambda machine, _: _push(machine, _dictionary),
    "FROZENSET": lambda machine, _: _push(
        machine, lambda items: Record("builtins", "frozenset", (items,))
    ),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "PUT": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_names,
    "INST": _Machine.instance,
    "OBJ": _Machine.object,
    "BUILD": _Machine.build,
    "PERSID": _Machine.by_text_id,
    "BINPERSID": _Machine.by_id,
}


def _push(machine: _Machine, make: Callable[[list[Any]], Any]) -> None:
    """Put one object made from the marked ones on the stack."""
    made = make(machine.marked())
    machine.stack.append(made)
