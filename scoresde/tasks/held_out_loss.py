"""The training loss of a model on held-out data, with the same times and noise for every model."""

from __future__ import annotations

import torch
from torch import Tensor

from .._philox import normals, uniforms
from ..batches import Batch, batches
from ..data import Dataset
from ..evaluation import evaluating, own_context
from ..loss import Objective
from ..score import ScoreModel

__all__ = ["held_out_losses"]


def held_out_losses(
    model: ScoreModel,
    data: Dataset,
    objective: Objective,
    *,
    seed: int = 0,
    draws: int = 8,
    batch: int = 64,
    device: str = "cpu",
) -> Tensor:
    """The mean loss of each datum over several times, in evaluation mode.

    Dequantization, times and noise of datum i are functions of (seed, i). So two models see the
    same ones, and the difference of their losses has a much smaller error than each loss. The times
    of a datum are stratified: its k-th draw has u in the k-th of equal intervals of [0, 1).

    Args:
        model: Score model.
        data: The data; integer levels are dequantized uniformly, anew for each draw.
        objective: The loss, with its weighting and its distribution of times.
        seed: Integer in [0, 2^64).
        draws: Times per datum, at least 1.
        batch: Data at a time.
        device: Device of the model.

    Returns:
        Shape (n,), float64; the mean over the data is an unbiased estimate of the loss.
    """
    parts, data = [], data.scaled
    with own_context(), evaluating(model):
        for part in batches(model, len(data), device, y=data.labels, batch=batch, random=False):
            losses = [
                _losses(part, data, objective, seed, (k, draws), device) for k in range(draws)
            ]
            parts.append(torch.stack(losses).mean(0))
    return torch.cat(parts)


def _losses(
    part: Batch, data: Dataset, objective: Objective, seed: int, draw: tuple[int, int], device: str
) -> Tensor:
    """The losses of one batch at draw k of `draws`, shape (B,), float64 on the CPU."""
    k, draws = draw
    x = data.x[part.rows]
    names, size = range(part.rows.start, part.rows.stop), x[0].numel()
    # Training uses draw 0 of these purposes.
    if data.spec.levels is not None:
        u = uniforms(seed, names, "training uniform", size, draw=1 + k)
        x = data.spec.dequantize(x, u.reshape(x.shape))
    shift = uniforms(seed, names, "training times", 1, draw=1)[:, 0]
    eps = normals(seed, names, "training noise", size, draw=1 + k, dtype=torch.float32)
    x0, u, eps = (v.to(device) for v in (x.float(), (k + shift) / draws, eps.reshape(x.shape)))
    return objective(part.model, x0, u, eps)[0].double().cpu()
