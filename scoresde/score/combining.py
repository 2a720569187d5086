"""Linear combinations of tensors with the entries of a node, and what a result depends on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

__all__ = ["cast", "combine", "depends_on"]


def cast(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A node's entry in the dtype and on the device of x if it is a tensor; a number as it is."""
    return value.to(x) if isinstance(value, Tensor) else value


def combine(a: float | Tensor, x: Tensor, b: float | Tensor, y: Tensor) -> Tensor:
    """a x + b y in new memory, leaving out terms whose factor is the number 0 or 1."""
    ours = not (isinstance(b, float) and b == 1.0)
    second = cast(b, x) * y if ours else y
    if isinstance(a, float) and a == 0.0:
        return second if ours else y.clone()
    if not isinstance(a, float):
        return cast(a, x) * x + second
    return second.add_(x, alpha=a) if ours else torch.add(second, x, alpha=a)


def depends_on(out: Tensor, x: Tensor) -> bool:
    """Whether x is in the graph of `out`; trained weights alone make `out` require gradients."""
    if not out.requires_grad:
        return False
    goal, waiting, seen = get_gradient_edge(x).node, [get_gradient_edge(out).node], set()
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return False
