"""Laws of the derivative in x, which likelihoods need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..._text import reason_of
from ...evaluation import evaluating
from ...likelihood.trace.jacobian import linearize
from ..findings import Finding, failed, info, judged, passed
from ..probe import MIDDLE, Probe

__all__ = ["DERIVATIVE_LAWS"]

N = 4
NO_DERIVATIVE = (
    "samplers run, but no likelihood: compute ε in torch, without no_grad, detach and numpy"
)
# Relative step of the finite difference, and what its truncation and rounding leave.
DIFFERENCES = {torch.float64: (1e-5, 1e-3), torch.float32: (1e-2, 5e-2)}


def differentiable(probe: Probe) -> Finding:
    """ε can be differentiated in x, in the dtype of the model."""
    x = probe.points(N)
    try:
        product = _products(probe, x, probe.noise(N, 1))[0]
    except RuntimeError as error:
        return failed(reason_of(error), NO_DERIVATIVE)
    if product.dtype != x.dtype:
        return failed(f"the derivative is {product.dtype}", NO_DERIVATIVE)
    return passed("the product vᵀ ∂ε/∂x is finite")


def derivative(probe: Probe) -> Finding:
    """The derivative agrees with a finite difference."""
    model, dtype = probe.sharp
    step, limit = DIFFERENCES[dtype]
    x, w, v = (f.to(dtype) for f in (probe.points(N), probe.noise(N, 1), probe.noise(N, 2)))
    h = step * float(x.square().mean().sqrt())
    difference = (probe.eps(x + h * v, model=model) - probe.eps(x - h * v, model=model)) / (2 * h)
    try:
        product, _ = _products(probe, x, w, model)
    except RuntimeError:  # another law tells it
        return info("not tested: not differentiable")
    gap = abs(float((product * v).sum() - (difference * w).sum()))
    # w has variance 1, so that wᵀ J v has the size of J v
    gap /= max(float(difference.norm()), 1e-30)
    what = f"difference from a finite difference in {str(dtype).removeprefix('torch.')}"
    advice = "a backward pass of the network's own, or a detach inside, gives a wrong derivative"
    return judged(what, gap, limit, advice)


def _products(probe: Probe, x: Tensor, w: Tensor, model: object = None) -> tuple[Tensor, Tensor]:
    """wᵀ ∂ε/∂x and ε at x."""
    model = (model or probe.model).labelled(probe.condition(range(len(x))), len(x), probe.device)
    with evaluating(model):
        jacobian = linearize(lambda point: model.eps(point, MIDDLE), x, t=MIDDLE)
        return jacobian.vjp(w), jacobian.value


DERIVATIVE_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "differentiable in x": differentiable,
    "derivative is right": derivative,
}
