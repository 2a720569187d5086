"""Gradients through many evaluations of a model, in the memory of a few states.

Autograd would keep the activations of every evaluation of a network until the backward pass. Here
an evaluation keeps only its input x. The backward pass computes the evaluation again, with its
activations, takes the derivative, and frees them before it goes on to the evaluation before. So the
memory is that of one evaluation, and of one state x for each evaluation.

An evaluation may contain derivatives itself, such as a trace of a Jacobian. It is computed again as
a whole: the graph of a derivative pass holds more than the activations of the network.

Networks run in evaluation mode when they are computed again, too. These passes count in
`NFE.repeated`, not as evaluations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from .._condition import Condition, leaves, map_condition
from .._deferred import unchecked
from .._reachable import float_parameters, reachable_modules
from ..evaluation import held_in_evaluation, own_context, repeating
from .base import ScoreModel, Time
from .preconditioning import Quantity

__all__ = ["Evaluation", "recomputed", "with_gradients"]

# What is evaluated: maps a model and x of shape (B, *D) to a few tensors, or None in their place.
Evaluation = Callable[[ScoreModel, Tensor], tuple[Tensor | None, ...]]


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
    weights = [weight for weight in float_parameters(model) if weight.requires_grad]
    modules = list(reachable_modules(model))
    given = [x, *_conditions(model)]
    asked = any(tensor.requires_grad for tensor in given)
    found = _used(model, x, t, modules) if len(x) else []
    known = {id(weight) for weight in weights}
    captured = [variable for variable in found if id(variable) not in known]
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
    return _Recomputing(model, _Sources(weights + captured, bool(captured), modules))


def recomputed(function: Evaluation, model: ScoreModel, x: Tensor) -> tuple[Tensor | None, ...]:
    """function(model, x), which the backward pass computes again if `model` has gradients.

    Args:
        function: Evaluates the model at x, in several ways if it likes. It may find out by
            `torch.is_grad_enabled()` whether it is computed again.
        model: Score model, from `with_gradients` or not.
        x: Shape (B, *D).

    Returns:
        The results of the function.
    """
    if not isinstance(model, _Recomputing):
        return function(model, x)
    task = _Task(function, model.model, model.sources)
    return _Again.apply(task, x, *_conditions(model.model), *model.sources.weights)


@dataclass(frozen=True)
class _Sources:
    """What every evaluation of a model depends on.

    Attributes:
        weights: Leaves of the graph that require gradients, beside x and the condition.
        captured: Whether some are no parameters. They may be used through a graph of the caller,
            which must not be freed.
        modules: The modules to keep in evaluation mode.
    """

    weights: Sequence[Tensor]
    captured: bool
    modules: Sequence[nn.Module]


@dataclass(frozen=True)
class _Task:
    """One evaluation of a model."""

    function: Evaluation
    model: ScoreModel
    sources: _Sources

    def pull(
        self, tensors: Sequence[Tensor], needs: Sequence[bool], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The derivative of Σ grads · results with respect to x, the condition and the weights.

        Args:
            tensors: x, the condition's tensors and the weights.
            needs: Which of them need a derivative.
            grads: One for each result, or None.
        """
        if not any(grad is not None and bool(grad.any()) for grad in grads):
            return [None] * len(tensors)  # the attempt of a step that was rejected
        given = len(tensors) - len(self.sources.weights)
        x, *conditions = (
            tensor.detach().requires_grad_(need)
            for tensor, need in zip(tensors[:given], needs, strict=False)
        )
        with _again(self.sources.modules):
            results = self.function(_bound(self.model, conditions), x)
            pairs = [
                (result, grad)
                for result, grad in zip(results, grads, strict=True)
                if grad is not None and result is not None and result.requires_grad
            ]
            sources = [x, *conditions, *self.sources.weights]
            wanted = [source for source, need in zip(sources, needs, strict=True) if need]
            found = torch.autograd.grad(
                [result for result, _ in pairs],
                wanted,
                [grad for _, grad in pairs],
                allow_unused=True,
                retain_graph=self.sources.captured,
            )
        left = iter(found)
        return [next(left) if need else None for need in needs]


class _Again(torch.autograd.Function):
    """A `_Task`: the forward pass keeps its inputs, the backward pass computes it again."""

    @staticmethod
    def forward(ctx: Any, task: _Task, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.task = task
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return task.function(task.model, tensors[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.task.pull(ctx.saved_tensors, ctx.needs_input_grad[1:], grads)


class _Recomputing(ScoreModel):
    """Another model, each evaluation of which is `recomputed`."""

    def __init__(self, model: ScoreModel, sources: _Sources) -> None:
        super().__init__(model.sde)
        self.model, self.nfe, self.y, self.sources = model, model.nfe, model.y, sources
        self.data, self.condition, self.needs_labels = (
            model.data,
            model.condition,
            model.needs_labels,
        )

    @property
    def snapped(self) -> bool:
        """The model's."""
        return self.model.snapped

    @property
    def learned_variance(self) -> bool:
        """The model's."""
        return self.model.learned_variance

    @property
    def t_least(self) -> float:
        """The model's."""
        return self.model.t_least

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The model's ε."""
        return recomputed(lambda model, x: (model.eps(x, t),), self, x)[0]

    def score(self, x: Tensor, t: Time) -> Tensor:
        """The model's score."""
        return recomputed(lambda model, x: (model.score(x, t),), self, x)[0]

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """The model's x0."""
        return recomputed(lambda model, x: (model.x0(x, t),), self, x)[0]

    def v(self, x: Tensor, t: Time) -> Tensor:
        """The model's v."""
        return recomputed(lambda model, x: (model.v(x, t),), self, x)[0]

    def with_share(self, quantity: Quantity, x: Tensor, t: Time) -> tuple[Tensor, Tensor | None]:
        """The model's quantity and share."""
        return recomputed(lambda model, x: model.with_share(quantity, x, t), self, x)

    def given(self, y: Condition | None) -> ScoreModel:
        """The model with another condition bound."""
        bound = copy.copy(self)
        bound.model, bound.y = self.model.given(y), y
        return bound


def _conditions(model: ScoreModel) -> list[Tensor]:
    """The tensors of the bound condition that require gradients."""
    return [leaf for _, leaf in leaves(model.y) if _requires_grad(leaf)]


def _bound(model: ScoreModel, conditions: Sequence[Tensor]) -> ScoreModel:
    """The model with other tensors in place of `_conditions`."""
    if not conditions:
        return model
    left = iter(conditions)
    return model.given(
        map_condition(lambda leaf: next(left) if _requires_grad(leaf) else leaf, model.y)
    )


def _requires_grad(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


@contextmanager
def _again(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The context in which an evaluation is computed again: its results were checked before."""
    with ExitStack() as stack:
        for context in (own_context(), torch.enable_grad(), held_in_evaluation(modules)):
            stack.enter_context(context)
        stack.enter_context(repeating())
        stack.enter_context(unchecked())
        yield


def _used(model: ScoreModel, x: Tensor, t: Time, modules: Sequence[nn.Module]) -> list[Tensor]:
    """The leaves, beside x and the condition, that ε at the first sample depends on."""
    with _again(modules):
        point = x[:1].detach().clone().requires_grad_()
        own = [leaf.detach()[:1].clone().requires_grad_() for leaf in _conditions(model)]
        model = _bound(model.take(slice(0, 1)), own)
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
