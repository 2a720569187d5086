"""Classes of labelled data: from names or integers to the numbers 0 … K − 1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["Classes", "natural_order", "number_labels"]

# The classes that a checkpoint stores: names in the order of their numbers, or only their number.
Classes = Sequence[str] | int

_LISTED = 10  # class names in one message
_MOST_CLASSES = 1 << 31  # a larger label is not a class number


def natural_order(names: Iterable[str]) -> list[str]:
    """Names in natural order: runs of digits compare as numbers, everything else as text.

    So "2" comes before "10", "img9" before "img10", and numbers before words.
    """
    return sorted(names, key=_natural_key)


def _natural_key(name: str) -> tuple:
    # Text and digits alternate, text first. Numbers compare by their length without leading zeros,
    # then by their digits, which is numeric order for numbers of any length.
    pieces = re.split(r"([0-9]+)", name)
    for i in range(1, len(pieces), 2):
        digits = pieces[i].lstrip("0")
        pieces[i] = (len(digits), digits)
    return (pieces, name)


def number_labels(
    source: str, labels: np.ndarray, known: Classes | None
) -> tuple[Tensor, int, tuple[str, ...] | None]:
    """Class numbers of the labels.

    - Names are numbered by their position in `known`. If `known` is None, they are numbered in the
      natural order of all names that occur. If `known` is a number K, the names must be 0 … K − 1
      written as text.
    - Integers are class numbers already.

    Args:
        source: Name of the data in messages.
        labels: Names (text) or class numbers (integers), shape (N,), N at least 1.
        known: All classes, if they are known; no label may be of another class.

    Returns:
        Class numbers, int64 (N,); the number K of classes; their names, or None.

    Raises:
        ValueError: If a label is negative or belongs to none of the known classes.
    """
    text = labels.dtype.kind == "U"
    if known is None and text:
        known = natural_order(set(labels.tolist()))
    number = _numbers_of_names if text else _checked_numbers
    numbers = torch.from_numpy(number(source, labels, known))
    if isinstance(known, Sequence):
        return numbers, len(known), tuple(known)
    return numbers, int(numbers.max()) + 1 if known is None else known, None


def _numbers_of_names(source: str, labels: np.ndarray, known: Classes) -> np.ndarray:
    labels = labels.tolist()
    if isinstance(known, Sequence):
        place = {name: number for number, name in enumerate(known)}
        unknown = set(labels) - set(known)
        allowed = _listed(known)
    else:
        place = {name: _numeral(name) for name in set(labels)}
        unknown = [name for name, number in place.items() if number is None or number >= known]
        allowed = f"the numbers 0 … {known - 1}: their names are not known"
    if unknown:
        raise ValueError(
            f"{source}: class {_listed(natural_order(unknown))} is none of the classes; "
            f"they are {allowed}"
        )
    return np.array([place[name] for name in labels], np.int64)


def _numeral(name: str) -> int | None:
    """The number that a name spells in at most ten digits, or None."""
    return int(name) if re.fullmatch(r"[0-9]{1,10}", name) else None


def _checked_numbers(source: str, labels: np.ndarray, known: Classes | None) -> np.ndarray:
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise ValueError(f"{source}: labels must be at least 0, got {least}")
    count = len(known) if isinstance(known, Sequence) else known
    if count is not None and most >= count:
        raise ValueError(f"{source}: labels must lie in 0 … {count - 1}, got {most}")
    if isinstance(known, Sequence) and _misleading(known):
        raise ValueError(
            f"{source}: labels must be text, since the classes are named {_listed(known)}: "
            "an integer could be the number of a class or its name"
        )
    if most >= _MOST_CLASSES:
        raise ValueError(f"{source}: labels must be below {_MOST_CLASSES}, got {most}")
    return labels.astype(np.int64)


def _misleading(names: Sequence[str]) -> bool:
    """Whether a name is a number that differs from the number of its class."""
    return any(_numeral(name) not in (None, number) for number, name in enumerate(names))


def _listed(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
