"""log P ≥ E[log p(x) − log q(x)]: Jensen's bound, from random points in place of a datum.

Which points is a `Dequantization`'s to say, and how log p is found a density's: a callable
(model, x, noise) ↦ estimate, `log_likelihood` or another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._tensor import check_integer
from ..data.spec import DataSpec
from ..noise import Noise, SampleNoise, check_seed
from ..score import ScoreModel, count_nfe
from ..sde import Node
from .dequantize import Dequantization, UniformDequantization
from .trace import error_of_mean

__all__ = ["UNIFORM", "Bound", "Density", "Estimate", "jensen_bound"]

PROTOCOL = "pf-ode"

UNIFORM = UniformDequantization()


class Estimate(Protocol):
    """What a density must tell of a batch; `Likelihood` does."""

    log_prob: Tensor  # log p(x) in nats, shape (B,), float64
    std_error: Tensor  # of log_prob, from its own randomness, shape (B,); NaN where unknown
    nfe: int
    nfe_derivative: int
    t_min: float  # the time at which x was put in


# (model with rows and labels of the batch, x, noise of the batch) -> estimate of log p(x)
Density = Callable[[ScoreModel, Tensor, Noise], Estimate]


@dataclass(frozen=True)
class Bound:
    """What `jensen_bound` returns, in nats.

    The variance of the mean over n draws has two parts: that of the density's own randomness
    (probes), known from the `std_error` of each draw, and that of where the points fell. The
    second is what the first leaves of the spread, so it is noisy, and 0 where nothing is left.

    Attributes:
        log_bound: Mean over the draws of log p − log q, shape (B,), float64.
        std_error: Its standard error, from the spread of the draws, which holds both parts; NaN
            for a single draw. Shape (B,), as the following two.
        probe_error: The density's part, √(mean of its squared errors/n); NaN where it is unknown.
        draw_error: The rest, √(std_error² − probe_error²); NaN where one of the two is.
        log_prob: log p(x) in nats, per draw, shape (draws, B).
        log_q: log q(x) in nats, likewise.
        nfe: Network evaluations per sample, counted, all draws together; the largest if chunks
            of the batch differ.
        nfe_derivative: Derivative passes per sample, likewise.
        protocol: Name of the estimate; only numbers of one protocol are comparable.
        t_min: Time at which the points were put in.
        seed: Seed of all draws; None where noise was given.
        estimates: What the density returned, one tuple per chunk with one entry per draw.
    """

    log_bound: Tensor
    std_error: Tensor
    probe_error: Tensor
    draw_error: Tensor
    log_prob: Tensor
    log_q: Tensor
    nfe: int
    nfe_derivative: int
    protocol: str
    t_min: float
    seed: int | None
    estimates: tuple[tuple[Estimate, ...], ...]


class _Draw(NamedTuple):
    """One draw of one chunk, with what finding its points cost."""

    log_q: Tensor
    estimate: Estimate
    nfe: int


def jensen_bound(
    model: ScoreModel,
    data: Tensor,
    spec: DataSpec,
    density: Density,
    *,
    dequantization: Dequantization = UNIFORM,
    t_min: float | None = None,
    draws: int = 1,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Tensor | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Bound:
    """log P(k) ≥ E[log p(x) − log q(x | k)] over x ~ q, as the mean of independent draws.

    Sample i depends on (seed, i) alone, as far as the density does. The first draws stay the same
    if more are asked for.

    Args:
        model: Score model.
        data: Integer levels k, or for `GaussianNoising` real data, shape (B, *D).
        spec: What the data are.
        density: log p at t_min; called for each chunk and draw with the model's rows, the points
            and the noise of the chunk.
        dequantization: q, and with it the protocol.
        t_min: Time in [0, 1) at which the points are put in; the density's own.
        draws: Points per sample, at least 1; 2 or more for a standard error.
        seed: Integer in [0, 2^64) of all randomness; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Class labels, shape (B,), or None.
        batch: Take so many samples at a time; None = all at once.
        dtype: Dtype of the points.

    Returns:
        The bound per sample with its uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If data or draws are of a wrong type.
        ValueError: On a bad argument, or if the density's t_min is another one.
    """
    _check(data, seed, noise, draws, batch)
    (node,) = model.sde.nodes([model.first_time(t_min)])
    model = model.labelled(y, len(data), data.device)
    n = data.shape[0]
    size = batch or max(n, 1)
    chunks = []
    for begin in range(0, max(n, 1), size):
        rows = slice(begin, min(begin + size, n))
        source = noise or SampleNoise(seed, range(rows.start, rows.stop))
        part = model.take(rows)
        draw = partial(_draw, part, data[rows], spec, density, dequantization, node, source, dtype)
        chunks.append([draw() for _ in range(draws)])
    return _collect(chunks, f"{PROTOCOL}/{dequantization.name}", node.t, seed)


def _check(
    data: Tensor,
    seed: int | None,
    noise: Noise | None,
    draws: int,
    batch: int | None,
) -> None:
    if (seed is None) == (noise is None):
        raise ValueError("exactly one of seed and noise must be given")
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves the one batch it was made for")
    if seed is not None:
        check_seed(seed)
    check_integer("draws", draws, minimum=1)
    if batch is not None:
        check_integer("batch", batch, minimum=1)
    if data.ndim == 0 or math.prod(data.shape[1:]) < 1:
        raise ValueError(f"data must have shape (B, *D), every D ≥ 1, got {tuple(data.shape)}")


def _draw(
    model: ScoreModel,
    data: Tensor,
    spec: DataSpec,
    density: Density,
    dequantization: Dequantization,
    node: Node,
    noise: Noise,
    dtype: torch.dtype,
) -> _Draw:
    """One point per sample, and its density."""
    with count_nfe(model) as counted:
        points = dequantization.draw(model, data, spec, noise, node, dtype)
    estimate = density(model, points.x, noise)
    if estimate.t_min != node.t:
        raise ValueError(
            f"t_min must be the density's, which is {estimate.t_min}, got {node.t}: the points "
            "are drawn for that time"
        )
    return _Draw(points.log_q, estimate, counted.forward)


def _collect(chunks: list[list[_Draw]], protocol: str, t_min: float, seed: int | None) -> Bound:
    """The bound from one list of draws per chunk."""
    log_prob, log_q, errors = (
        torch.cat([torch.stack([part(draw) for draw in draws]) for draws in chunks], dim=1)
        for part in (
            lambda draw: draw.estimate.log_prob,
            lambda draw: draw.log_q,
            lambda draw: draw.estimate.std_error,
        )
    )
    total, probes = error_of_mean(log_prob - log_q, dim=0), (errors**2).mean(0) / len(errors)
    return Bound(
        log_bound=(log_prob - log_q).mean(0),
        std_error=total,
        probe_error=probes.sqrt(),
        # a difference of two estimates: negative, now and then, where the probes are nearly all
        draw_error=(total**2 - probes).clamp(min=0).sqrt(),
        log_prob=log_prob,
        log_q=log_q,
        nfe=max(sum(d.nfe + d.estimate.nfe for d in draws) for draws in chunks),
        nfe_derivative=max(sum(d.estimate.nfe_derivative for d in draws) for draws in chunks),
        protocol=protocol,
        t_min=t_min,
        seed=seed,
        estimates=tuple(tuple(d.estimate for d in draws) for draws in chunks),
    )
