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

from .._condition import Condition, leaves, map_condition
from .._deferred import unchecked
from ..evaluation import held_in_evaluation, own_context, repeating
from .around import Around
from .base import ScoreModel, Time
from .preconditioning import Quantity

__all__ = [
    "Evaluation",
    "Sources",
    "again",
    "conditions_of",
    "recomputed",
    "recomputing",
    "with_conditions",
]

# What is evaluated: maps a model and x of shape (B, *D) to a few tensors, or None in their place.
Evaluation = Callable[[ScoreModel, Tensor], tuple[Tensor | None, ...]]


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
    return _Again.apply(task, x, *conditions_of(model.model), *model.sources.weights)


def recomputing(model: ScoreModel, sources: Sources) -> ScoreModel:
    """The model with evaluations that are `recomputed`; `with_gradients` finds the sources."""
    return _Recomputing(model, sources)


@dataclass(frozen=True)
class Sources:
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
    sources: Sources

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
        with again(self.sources.modules):
            results = self.function(with_conditions(self.model, conditions), x)
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


class _Recomputing(Around):
    """Another model, each evaluation of which is `recomputed`."""

    def __init__(self, model: ScoreModel, sources: Sources) -> None:
        super().__init__(model)
        self.nfe, self.sources = model.nfe, sources

    @property
    def learned_variance(self) -> bool:
        """The model's."""
        return self.model.learned_variance

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

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The model's velocity."""
        return recomputed(lambda model, x: (model.velocity(x, t),), self, x)[0]

    def with_share(self, quantity: Quantity, x: Tensor, t: Time) -> tuple[Tensor, Tensor | None]:
        """The model's quantity and share."""
        return recomputed(lambda model, x: model.with_share(quantity, x, t), self, x)

    def given(self, y: Condition | None) -> ScoreModel:
        """The model with another condition bound."""
        bound = copy.copy(self)
        bound._modules = dict(self._modules)  # which a copy shares
        bound.model, bound.y = self.model.given(y), y
        return bound


def conditions_of(model: ScoreModel) -> list[Tensor]:
    """The tensors of the bound condition that require gradients."""
    return [leaf for _, leaf in leaves(model.y) if _requires_grad(leaf)]


def with_conditions(model: ScoreModel, conditions: Sequence[Tensor]) -> ScoreModel:
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
def again(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The context in which an evaluation is computed again: its results were checked before."""
    with ExitStack() as stack:
        for context in (own_context(), torch.enable_grad(), held_in_evaluation(modules)):
            stack.enter_context(context)
        stack.enter_context(repeating())
        stack.enter_context(unchecked())
        yield
