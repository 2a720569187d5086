"""Conditions of samples: as requested, as in the data, and as arrays of a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, leaves, take_rows
from ..data import DataSpec, draw_sizes
from ..data.conditions import load_condition
from ..plain import nearest
from .class_labels import labels_in_turn, labels_of
from .given import GivenModel

__all__ = ["condition_arrays", "conditions_like", "requested_condition"]


def requested_condition(
    given: GivenModel,
    n: int,
    label: str | int | None = None,
    file: str | Path | None = None,
    seed: int = 0,
) -> Condition | None:
    """The condition of n samples, for `scoresde sample`.

    Args:
        given: The model.
        n: Number of samples.
        label: Name or number of the class of all samples; None for all classes in turn. A name wins
            over an equal number.
        file: A `.npy` or `.npz` file with the other conditions, or with all; one row is repeated.
            Without `label`, and without classes in the file, all classes come in turn. Without
            sizes of sets in the file, they have the shares of the training data.
        seed: Integer in [0, 2^64), for the sizes of sets.

    Returns:
        The condition with n rows; None for no condition.

    Raises:
        ValueError: If a condition is missing, not accepted, or does not suit the model; the message
            names the option.
    """
    wanted, parts = given.condition, {}
    if label is not None:
        parts["class"] = torch.full((n,), _class_number(str(label), given))
    if file is not None:
        parts |= _from_file(file, given, "class" in parts)
    if not parts and given.unconditional and wanted.classes is None and wanted.sizes is None:
        return None
    if "class" in wanted.kinds and "class" not in parts:
        parts["class"] = labels_in_turn(wanted.classes, n)
    if "size" in wanted.kinds and "size" not in parts and given.spec.size_counts is not None:
        parts["size"] = draw_sizes(given.spec, n, seed)
    missing = [kind for kind in wanted.kinds if kind not in parts]
    if missing:
        raise ValueError(f"--condition: must be given, {given.name} takes {wanted}")
    if not parts:
        return None
    y = parts if len(parts) > 1 else next(iter(parts.values()))
    try:
        return wanted.checked(bound_rows(y, n, "cpu"), n)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--condition: {file}: {error}") from error


def _class_number(label: str, given: GivenModel) -> int:
    """The number of the class that a text names."""
    names, classes = given.spec.class_names, given.classes
    if classes is None:
        raise ValueError(f"--label: {label} is no class of {given.name}: it has no classes")
    if names is not None and label in names:
        return names.index(label)
    if label.isascii() and label.isdigit() and int(label) < classes:
        return int(label)
    allowed = f"0 to {classes - 1}"
    if names is not None:
        allowed = f"{nearest(label, names[:20])}, or {allowed}"
    raise ValueError(f"--label: {label} is no class of {given.name}; {allowed}")


def _from_file(file: str | Path, given: GivenModel, labelled: bool) -> dict[str, Tensor]:
    """The conditions of a file by kind."""
    wanted = given.condition
    if not wanted:
        raise ValueError(f"--condition: {file}, but {given.name} takes no condition")
    kinds = {kind: shape for kind, shape in wanted.kinds.items() if kind != "class" or not labelled}
    if not kinds:
        raise ValueError(f"--condition: {file}, and --label: {given.name} takes classes alone")
    try:
        return load_condition(Path(file), kinds, given.spec.class_names)
    except (OSError, ValueError) as error:
        raise ValueError(f"--condition: {error}") from error


def conditions_like(labels: Condition, spec: DataSpec, n: int, how: str | None = None) -> Condition:
    """Conditions of n samples that are compared with data.

    Args:
        labels: The conditions of the data.
        spec: Description of the data.
        n: Number of samples.
        how: For class labels alone: "shares" or "uniform" as in `labels_of`, or None for all
            classes in turn. Other conditions are those of n data at equal distances, so that they
            have the data's distribution; for these `how` is not used.

    Returns:
        A condition with n rows.
    """
    if isinstance(labels, Tensor) and not labels.is_floating_point() and spec.classes is not None:
        if how is None:
            return labels_in_turn(spec.classes, n)
        return labels_of(labels, spec.classes, n, how)
    total = len(next(leaf for _, leaf in leaves(labels)))
    return take_rows(labels, torch.arange(n) * total // n)


def condition_arrays(y: Condition | None, condition: ConditionSpec) -> dict[str, np.ndarray]:
    """A condition as the arrays "labels", "y_vector", … of a result, as data have them.

    The tensors of other conditions are named after their place, such as `y['text'][0]`.

    Args:
        y: A condition, or None.
        condition: The conditions of the model; without kinds if they are not described.
    """
    if y is None:
        return {}
    if isinstance(y, Tensor) and len(condition.kinds) == 1:
        y = {next(iter(condition.kinds)): y}
    elif isinstance(y, Tensor):
        numbers = "vector" if y.ndim <= 2 else "array"
        y = {numbers if y.is_floating_point() else "class": y}
    known = isinstance(y, dict) and set(y) <= _ARRAYS.keys()
    named = {_ARRAYS[kind]: part for kind, part in y.items()} if known else dict(leaves(y))
    return {name: part.cpu().numpy() for name, part in named.items()}


_ARRAYS = {
    "class": "labels",
    "vector": "y_vector",
    "array": "y_array",
    "tokens": "y_tokens",
    "size": "sizes",
}
