"""From integer levels to bits/dim: uniform dequantization and the bound it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._tensor import check_number
from ..data.spec import DataSpec
from ..ivp import Adaptive
from ..noise import Noise, SampleNoise, check_seed, uniform
from ..score import ScoreModel
from .ode import Likelihood, bits_per_dim, log_likelihood
from .trace import TraceRule, error_of_mean

__all__ = ["DiscreteLikelihood", "dequantize", "discrete_log_likelihood"]


@dataclass(frozen=True)
class DiscreteLikelihood:
    """What `discrete_log_likelihood` returns, and what is needed to repeat it.

    Attributes:
        bits_per_dim: Bound on −log2 P(k)/D, the mean over the draws, shape (B,), float64.
        std_error: Standard error of `bits_per_dim` from the spread of the draws, which is that
            of the dequantization and of the probes together; NaN for a single draw.
        log_prob: Log-density of the dequantized data in nats, per draw, shape (draws, B).
        nfe: Network evaluations per sample, counted, all draws together; the largest if chunks
            of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
        bits_offset: log2(levels/span), contained in `bits_per_dim`.
        t_min: Time at which the data were put in.
        solver: Method and tolerances.
        trace: `ExactTrace`, or `Hutchinson` with its probes.
        seed: Seed of dequantization and probes; None where noise was given.
    """

    bits_per_dim: Tensor
    std_error: Tensor
    log_prob: Tensor
    nfe: int
    nfe_derivative: int
    bits_offset: float
    t_min: float
    solver: Adaptive
    trace: TraceRule
    seed: int | None


def dequantize(
    k: Tensor, spec: DataSpec, noise: Noise, dtype: torch.dtype = torch.float32
) -> Tensor:
    """x = low + (high − low) (k + u)/levels with u ~ U(0, 1): a point in the cell of each level.

    Args:
        k: Integer levels, shape (B, *D).
        spec: Range and number of levels.
        noise: Source of the draws.
        dtype: Dtype of x.

    Returns:
        x at the model's scale, shape (B, *D).

    Raises:
        TypeError: If k does not hold integers.
        ValueError: If the data are continuous or a level is out of range.
    """
    z = noise.fresh(torch.empty(k.shape, dtype=torch.float64, device=k.device), 0.0)
    return spec.dequantize(k, uniform(z)).to(dtype)


def discrete_log_likelihood(
    model: ScoreModel,
    k: Tensor,
    spec: DataSpec,
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    draws: int = 1,
    t_min: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    probes: int = 1,
    y: Tensor | None = None,
    batch: int | None = None,
    max_nfe: int | None = 10_000,
    force: bool = False,
    dtype: torch.dtype = torch.float32,
) -> DiscreteLikelihood:
    """Bits/dim of quantized data by uniform dequantization, with p by `log_likelihood`.

        −log2 P(k) ≤ −E_u[log2 p(x(k, u))] + D log2(levels/span)

    P(k) is the integral of p over the cell of k, and the inequality Jensen's. Theis, van den
    Oord and Bethge 2016, arXiv:1511.01844, section 3.1. Each draw is a point of the cell with a
    likelihood of its own; their mean estimates the bound without bias.

    Sample i depends on (seed, i) and, within the tolerance of the solver, on nothing else. The
    first draws stay the same if more are asked for.

    Args:
        model: Score model.
        k: Integer levels, shape (B, *D).
        spec: Range and number of levels.
        seed: Integer in [0, 2^64) for dequantization and probes; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        draws: Dequantizations per sample, at least 1; 2 or more for a standard error.
        t_min: This and what follows are the arguments of `log_likelihood`.
        rtol: See there.
        atol: See there.
        method: See there.
        trace: See there.
        probe: See there.
        probes: See there; drawn anew for each dequantization.
        y: See there.
        batch: See there.
        max_nfe: See there; the limit of one draw.
        force: See there.
        dtype: Dtype of the dequantized data, float32 or float64.

    Returns:
        The bound per sample with its uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If k does not hold integers, or dtype is not float32 or float64.
        ValueError: If the data are continuous, a level is out of range, or on a bad argument.
        RuntimeError: As for `log_likelihood`.
    """
    if (seed is None) == (noise is None):
        raise ValueError("exactly one of seed and noise must be given")
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves the one batch it was made for")
    if seed is not None:
        check_seed(seed)
    check_number("draws", draws, at_least=1)
    if batch is not None:
        check_number("batch", batch, at_least=1)
    n = k.shape[0]
    size = batch or max(n, 1)
    chunks = []
    for begin in range(0, max(n, 1), size):
        rows = slice(begin, min(begin + size, n))
        source = noise or SampleNoise(seed, range(rows.start, rows.stop))
        chunks.append(
            [
                log_likelihood(
                    model.take(rows),
                    dequantize(k[rows], spec, source, dtype),
                    t_min=t_min,
                    rtol=rtol,
                    atol=atol,
                    method=method,
                    trace=trace,
                    probe=probe,
                    probes=probes,
                    y=None if y is None else y[rows],
                    noise=source,
                    max_nfe=max_nfe,
                    force=force,
                )
                for _ in range(draws)
            ]
        )
    return _collect(chunks, math.prod(k.shape[1:]), spec.bits_offset, seed)


def _collect(
    chunks: list[list[Likelihood]], dims: int, bits_offset: float, seed: int | None
) -> DiscreteLikelihood:
    """The result from one list of likelihoods per chunk, each with one entry per draw."""
    log_prob = torch.cat(
        [torch.stack([draw.log_prob for draw in draws]) for draws in chunks], dim=1
    )
    bits, first = bits_per_dim(log_prob, dims, bits_offset), chunks[0][0]
    return DiscreteLikelihood(
        bits_per_dim=bits.mean(0),
        std_error=error_of_mean(bits, dim=0),
        log_prob=log_prob,
        nfe=max(sum(draw.nfe for draw in draws) for draws in chunks),
        nfe_derivative=max(sum(draw.nfe_derivative for draw in draws) for draws in chunks),
        bits_offset=bits_offset,
        t_min=first.t_min,
        solver=first.solver,
        trace=first.trace,
        seed=seed,
    )
