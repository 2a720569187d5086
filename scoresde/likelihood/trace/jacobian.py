"""The Jacobian of a vector field at a batch of points, known by its products with vectors.

`linearize` evaluates a field of x once. In this field no sample of the batch may depend on another.
Every product v ↦ vᵀ J is one derivative pass through the graph of that evaluation. Products have
gradients of their own, with respect to x and to weights, only if they are asked for (`second`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..._deferred import check_finite
from ...evaluation import NFE, name_time, own_context

__all__ = ["Jacobian", "KnownJacobian", "flat_rows", "linearize", "quadratic_forms"]


@dataclass(frozen=True)
class KnownJacobian:
    """A matrix J₀ for each sample whose trace is known without derivative passes.

    Attributes:
        vjp: v ↦ vᵀ J₀ for v of shape (B, *D), like v.
        trace: tr J₀, shape (B,), float64.
    """

    vjp: Callable[[Tensor], Tensor]
    trace: Tensor


@dataclass(frozen=True)
class Jacobian:
    """J = ∂field/∂x at a batch of points, or the difference J − J₀ from a known matrix.

    Made by `linearize`. It holds the graph of one evaluation of the field.

    Attributes:
        value: The field, like x, detached unless second derivatives were asked for.
        pull: v ↦ vᵀ J, one derivative pass.
        known: J₀, or None for J itself.
    """

    value: Tensor
    pull: Callable[[Tensor], Tensor]
    known: KnownJacobian | None = None

    def vjp(self, v: Tensor) -> Tensor:
        """vᵀ (J − J₀) for v of shape (B, *D), like v; one derivative pass.

        Raises:
            RuntimeError: If the product is not finite.
        """
        pulled = self.pull(v)
        return pulled if self.known is None else pulled - self.known.vjp(v)

    def minus(self, known: KnownJacobian) -> Jacobian:
        """J − J₀; every estimate of the trace adds tr J₀. J₀ is a control variate.

        The mean of an estimate stays tr J, and its variance is that of J − J₀.
        """
        return replace(self, known=known)

    @property
    def offset(self) -> Tensor | float:
        """tr J₀, shape (B, 1), to be added to the trace of J − J₀; 0 without J₀."""
        return 0.0 if self.known is None else self.known.trace[:, None]


def linearize(
    field: Callable[[Tensor], Tensor],
    x: Tensor,
    count: NFE | None = None,
    t: Tensor | float | None = None,
    second: bool = False,
) -> Jacobian:
    """Evaluate the field once and keep its graph.

    Args:
        field: Maps x to a vector field like x, differentiably.
        x: Points, shape (B, *D).
        count: Counter of derivative passes.
        t: Time of the field, for messages.
        second: Whether the field and its products keep their graphs, so that they can be
            differentiated with respect to x and weights. Attention then runs in its plain form,
            because fused kernels have no second derivative.

    Returns:
        The field and its Jacobian.

    Raises:
        RuntimeError: If the field is not differentiable in x; from `vjp`, if a derivative is not
            finite.
    """

    def at() -> str:
        return "" if t is None else f" at {name_time(t)}"

    kernel = sdpa_kernel(SDPBackend.MATH) if second else nullcontext()
    with own_context(), torch.enable_grad(), kernel:
        point = x if second and x.requires_grad else x.detach().clone().requires_grad_()
        value = field(point)
    if not value.requires_grad:
        raise RuntimeError(
            f"the field{at()} is not differentiable in x (computed under torch.no_grad, detached "
            "or in numpy?), so that its divergence is unknown"
        )

    def pull(v: Tensor) -> Tensor:
        if count is not None:
            count.add_derivative()
        with own_context(keep_gradients=second):
            v = v.clone() if v.is_inference() else v
            (pulled,) = torch.autograd.grad(value, point, v, retain_graph=True, create_graph=second)
        check_finite(pulled, lambda: f"derivative of the network{at()}")
        return pulled

    return Jacobian(value if second else value.detach(), pull)


def quadratic_forms(jacobian: Jacobian, vectors: Tensor) -> Tensor:
    """vᵀ (J − J₀) v of each sample and vector; one derivative pass per vector.

    Args:
        jacobian: From `linearize`.
        vectors: Shape (m, B, *D), m ≥ 1.

    Returns:
        Shape (B, m), summed in float64.
    """
    forms = [flat_rows(jacobian.vjp(v) * v).sum(1, dtype=torch.float64) for v in vectors]
    return torch.stack(forms, dim=1)


def flat_rows(x: Tensor) -> Tensor:
    """x of shape (B, *D) as (B, D), for vectors, images and B = 0 alike."""
    return x.reshape(len(x), math.prod(x.shape[1:]))
