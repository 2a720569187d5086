"""Bits/dim of quantized data: the bound on P(k) with p by `log_likelihood`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.spec import DataSpec
from ..exact import GaussianMixture
from ..noise import Noise
from ..score import ScoreModel
from .density import OdeDensity
from .dequantize import Dequantization
from .jensen import UNIFORM, Bound, Estimate, jensen_bound
from .trace import TraceRule

__all__ = ["DiscreteLikelihood", "discrete_log_likelihood", "in_bits"]


@dataclass(frozen=True)
class DiscreteLikelihood:
    """What `discrete_log_likelihood` returns: a `Bound` in bits/dim.

    Attributes:
        bits_per_dim: Bound on −log2 P(k)/D, the mean over the draws, shape (B,), float64.
        std_error: Standard error of `bits_per_dim`, of which
        probe_error: is the part of the trace's probes, and
        dequantization_error: that of the dequantization, all as in `Bound`, in bits/dim.
        log_prob: Log-density of the dequantized data in nats, per draw, shape (draws, B).
        log_q: log q(x | k) in nats, likewise; for uniform dequantization log2 q/D is
            `DataSpec.bits_offset`.
        nfe: As in `Bound`, and so the rest.
        nfe_derivative: See there.
        protocol: "pf-ode/uniform", "pf-ode/truncated-normal" ...
        t_min: See there.
        seed: See there.
        estimates: See there.
    """

    bits_per_dim: Tensor
    std_error: Tensor
    probe_error: Tensor
    dequantization_error: Tensor
    log_prob: Tensor
    log_q: Tensor
    nfe: int
    nfe_derivative: int
    protocol: str
    t_min: float
    seed: int | None
    estimates: tuple[tuple[Estimate, ...], ...]


def discrete_log_likelihood(
    model: ScoreModel,
    k: Tensor,
    spec: DataSpec,
    *,
    dequantization: Dequantization = UNIFORM,
    seed: int | None = None,
    noise: Noise | None = None,
    draws: int = 1,
    t_min: float | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    per_sample: bool = False,
    trace: TraceRule | Literal["auto"] = "auto",
    control: GaussianMixture | None = None,
    y: Tensor | None = None,
    batch: int | None = None,
    max_nfe: int | None = 10_000,
    force: bool = False,
    dtype: torch.dtype = torch.float32,
) -> DiscreteLikelihood:
    """Bits/dim of quantized data by dequantization, with p by `log_likelihood`.

        −log2 P(k) ≤ −E[log2 p(x) − log2 q(x | k)] over x ~ q(x | k)

    P(k) is the integral of p over the cell of k, and the inequality Jensen's. Theis, van den
    Oord and Bethge 2016, arXiv:1511.01844, section 3.1. Each draw is a point of the cell with a
    likelihood of its own; their mean estimates the bound without bias.

    Sample i depends on (seed, i) and, within the tolerance of the solver, on nothing else. The
    first draws stay the same if more are asked for.

    Args:
        model: Score model.
        k: Integer levels, shape (B, *D).
        spec: Range and number of levels.
        dequantization: Where in its cell a level is put; names the protocol.
        seed: Integer in [0, 2^64) for dequantization and probes; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        draws: Dequantizations per sample, at least 1; 2 or more for a standard error.
        t_min: This and what follows are the arguments of `log_likelihood`.
        rtol: See there.
        atol: See there.
        method: See there.
        per_sample: See there.
        trace: See there; probes are drawn anew for each dequantization.
        control: See there.
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
    if spec.levels is None:
        raise ValueError("spec must have levels, got None: continuous data have no bits/dim")
    t_min = model.first_time(t_min)
    density = OdeDensity(t_min, rtol, atol, method, per_sample, trace, control, max_nfe, force)
    bound = jensen_bound(
        model,
        k,
        spec,
        density,
        dequantization=dequantization,
        t_min=t_min,
        draws=draws,
        seed=seed,
        noise=noise,
        y=y,
        batch=batch,
        dtype=dtype,
    )
    return in_bits(bound, math.prod(k.shape[1:]))


def in_bits(bound: Bound, dims: int) -> DiscreteLikelihood:
    """A bound on log P(k) in nats as one on −log2 P(k)/D.

    Args:
        bound: Of quantized data.
        dims: D ≥ 1.
    """
    nats = dims * math.log(2)
    return DiscreteLikelihood(
        bits_per_dim=-bound.log_bound / nats,
        std_error=bound.std_error / nats,
        probe_error=bound.probe_error / nats,
        dequantization_error=bound.draw_error / nats,
        log_prob=bound.log_prob,
        log_q=bound.log_q,
        nfe=bound.nfe,
        nfe_derivative=bound.nfe_derivative,
        protocol=bound.protocol,
        t_min=bound.t_min,
        seed=bound.seed,
        estimates=bound.estimates,
    )
