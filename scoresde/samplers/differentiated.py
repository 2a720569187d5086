"""The run of one batch that gradients flow through, for `sample(grad=True)`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..batches import Batch
from ..score import ScoreModel
from ..score.gradients import with_gradients
from .base import OnStep, Sampler

__all__ = ["Run", "check_differentiable", "prepared"]


class Run(NamedTuple):
    """What a sampler gets for one batch: the model, the state at ts[0] and the call-back."""

    model: ScoreModel
    start: Tensor
    on_step: OnStep | None


def prepared(
    part: Batch,
    start: Tensor,
    x_init: Tensor | None,
    ts: Tensor,
    on_step: OnStep | None,
    grad: bool,
) -> Run:
    """The run of one batch, with `grad` one that gradients flow through.

    Args:
        part: The batch.
        start: States at ts[0], shape (B, *D), without a graph.
        x_init: The same for the whole call, perhaps with a graph, or None.
        ts: Time grid.
        on_step: Call-back, which gets states without a graph.
        grad: Whether gradients are wanted.

    Raises:
        ValueError: If nothing requires gradients.
        RuntimeError: If the model is not differentiable.
    """
    if not grad:
        return Run(part.model, start, on_step)
    if x_init is not None:
        start = x_init[part.rows].to(start)

    def without_graph(steps: int, t: float, x: Tensor) -> None:
        on_step(steps, t, x.detach())

    model = with_gradients(part.model, start, float(ts[0]))
    return Run(model, start, None if on_step is None else without_graph)


def check_differentiable(sampler: Sampler, x: Tensor) -> None:
    """Raise RuntimeError if the samples x have no gradient."""
    if not x.requires_grad:
        raise RuntimeError(
            f"gradients were asked of {type(sampler).__name__}, which is not differentiable (it "
            "computes under torch.no_grad or detaches its state)"
        )
