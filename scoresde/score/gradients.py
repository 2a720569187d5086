"""Gradients through a model: what it depends on, and whether it is differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from .._reachable import float_parameters, reachable_modules
from .base import ScoreModel, Time
from .recomputing import Sources, again, conditions_of, recomputing, with_conditions

__all__ = ["with_gradients"]


def with_gradients(model: ScoreModel, x: Tensor, t: Time) -> ScoreModel:
    """The model with evaluations that the backward pass computes again.

    The gradients are those with respect to x, the bound condition, the parameters that the model
    can reach, and other tensors that it uses. One evaluation of the first sample finds these, and
    checks that the model is differentiable.

    Args:
        model: Score model with its condition bound.
        x: The first states of the batch, shape (B, *D).
        t: A time at which the model may be evaluated.

    Returns:
        A model like the given one, for use while gradients are enabled.

    Raises:
        ValueError: If neither x, nor the condition, nor a weight requires gradients.
        RuntimeError: If the model is not differentiable in x, or depends on nothing that requires
            gradients.
    """
    # Modules may share a weight, whose derivative counts once.
    weights = list(dict.fromkeys(w for w in float_parameters(model) if w.requires_grad))
    modules = list(reachable_modules(model))
    given = [x, *conditions_of(model)]
    asked = any(tensor.requires_grad for tensor in given)
    found = _used(model, x, t, modules) if len(x) else []
    known = {id(weight) for weight in weights}
    captured = [leaf for leaf in found if id(leaf) not in known]
    if not (asked or weights or captured):
        raise ValueError(
            "grad=True needs x, x_init, y or a weight of the model that requires gradients, got "
            "none; the weights of a loaded model do so after model.requires_grad_(True)"
        )
    if not (asked or found) and len(x):
        raise RuntimeError(
            f"gradients were asked of {_name(model)}, which detaches its weights (computed from "
            "copies or under torch.no_grad?)"
        )
    return recomputing(model, Sources(weights + captured, bool(captured), modules))


def _used(model: ScoreModel, x: Tensor, t: Time, modules: Sequence[nn.Module]) -> list[Tensor]:
    """The leaves, beside x and the condition, that ε at the first sample depends on."""
    with again(modules):
        point = x[:1].detach().clone().requires_grad_()
        own = [leaf.detach()[:1].clone().requires_grad_() for leaf in conditions_of(model)]
        model = with_conditions(model.take(slice(0, 1)), own)
        try:
            out = model.eps(point, t)
        except RuntimeError as error:
            with torch.no_grad():
                model.eps(point.detach(), t)  # an error that has nothing to do with gradients
            raise RuntimeError(
                f"gradients were asked of {_name(model)}, which is not differentiable: {error}"
            ) from error
        graph = _ancestors(out)
        if get_gradient_edge(point).node not in graph:
            raise RuntimeError(
                f"gradients were asked of {_name(model)}, which is not differentiable in x "
                "(computed under torch.no_grad, detached or in numpy?)"
            )
    given = {id(tensor) for tensor in (point, *own)}
    leaves = [node.variable for node in graph if hasattr(node, "variable")]
    return [leaf for leaf in leaves if id(leaf) not in given]


def _ancestors(out: Tensor) -> set[Any]:
    """All nodes of the graph of `out`; that of a leaf has an attribute `variable`."""
    waiting, seen = [get_gradient_edge(out).node] if out.requires_grad else [], set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return seen


def _name(model: ScoreModel) -> str:
    """The model's network, for messages."""
    return type(getattr(model, "net", model)).__name__
