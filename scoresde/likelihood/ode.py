"""Log-likelihood, and the latent code, by the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..ivp import Adaptive
from ..noise import Noise
from ..score import ScoreModel
from .flow import Flow
from .trace import ExactTrace, Hutchinson, TraceRule

__all__ = ["Encoding", "Likelihood", "bits_per_dim", "encode", "log_likelihood"]

# "auto" takes D derivative passes per evaluation as long as they are about as cheap as probes;
# beyond the limit they take hours for a few images.
EXACT_UP_TO = 16
EXACT_LIMIT = 4096


@dataclass(frozen=True)
class Likelihood:
    """What `log_likelihood` returns, and what is needed to repeat it.

    Attributes:
        log_prob: log p(x) in nats at the scale of x, shape (B,), float64.
        bits_per_dim: −log2 p(x)/D + bits_offset, shape (B,), float64; None for continuous data.
        std_error: Standard error of `log_prob` from the probes, in nats, shape (B,), float64:
            0 for an exact trace, NaN for a single probe, which cannot tell.
        latent: x at t = 1, like x.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
        accepted: Steps the solver took, likewise.
        rejected: Steps it tried and did not take, likewise.
        t_min: Time at which x was put in.
        solver: Method and tolerances.
        trace: `ExactTrace`, or `Hutchinson` with its probes.
        seed: Seed of the probes; None where none was given.
    """

    log_prob: Tensor
    bits_per_dim: Tensor | None
    std_error: Tensor
    latent: Tensor
    nfe: int
    nfe_derivative: int
    accepted: int
    rejected: int
    t_min: float
    solver: Adaptive
    trace: TraceRule
    seed: int | None


@dataclass(frozen=True)
class Encoding:
    """What `encode` returns; the attributes are those of `Likelihood`."""

    latent: Tensor
    nfe: int
    accepted: int
    rejected: int
    t_min: float
    solver: Adaptive


@torch.no_grad()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    *,
    t_min: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    probes: int = 1,
    y: Tensor | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    batch: int | None = None,
    max_nfe: int | None = 10_000,
    bits_offset: float | None = None,
    force: bool = False,
) -> Likelihood:
    """log p(x) by the probability-flow ODE and the instantaneous change of variables.

        dx/dt = h(x, t) = f x − ½ g² score(x, t)   from x(t_min) = x to x(1)
        log p(x) = log N(x(1); 0, prior_std² I) + ∫ tr ∂h/∂x dt   over [t_min, 1]

    Song et al. 2021, arXiv:2011.13456, section 4.3; Chen et al. 2018, arXiv:1806.07366,
    section 4. x and the integral are one state of one solve. Two errors are in the definition
    and remain with any solver: x counts as a sample of p at t_min (truncation), and p at 1 as
    the prior (mismatch). On a 2-D mixture they are of the order 1e-3 nats for VP, 1e-2 for VE.

    The solver's state is float64, the network keeps its dtype. The step size serves the whole
    batch (see `Adaptive.solve`), so a sample's value may change with its batch mates, by about
    tolerance · (1 + |log p|). Probes are drawn once per sample and kept along the path, else the
    ODE would not be smooth; each gives an integral of its own, and `std_error` is their spread.

    Args:
        model: Score model.
        x: Data at the model's scale (levels: see `discrete_log_likelihood`), shape (B, *D).
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0.
        rtol: Relative tolerance, in (0, 1).
        atol: Absolute tolerance, greater than 0.
        method: "dopri8", "dopri5", "bosh3" or "adaptive_heun".
        trace: "exact" (D derivative passes per evaluation), "hutchinson" (`probes` of them), or
            "auto": exact up to D = 16.
        probe: Law of the probes; "rademacher" has the smaller variance.
        probes: K ≥ 1, of Hutchinson's estimator; 2 or more for a standard error.
        y: Class labels, shape (B,), for a conditional model.
        seed: Integer in [0, 2^64) for the probes; one stream per sample is made from it.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        batch: Solve so many samples at a time; None = all at once.
        max_nfe: Give up with RuntimeError after so many evaluations per sample; None = never.
        bits_offset: log2(levels/span) of dequantized data (`DataSpec.bits_offset`); None for
            continuous data, which have no bits/dim.
        force: Allow an exact trace above D = 4096.

    Returns:
        The log-likelihoods with their uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If x is not float32 or float64.
        ValueError: On a bad argument, a Hutchinson trace without randomness, an exact trace of
            D > 4096 without `force`, or a tolerance below 1e-7 in float32.
        RuntimeError: If the network or its derivative is not finite, the solver gives up or
            `max_nfe` is exceeded; the time reached is named.
    """
    rule = _rule(x, trace, probe, probes, force)
    if noise is not None and (seed is not None or batch is not None):
        raise ValueError("noise serves one batch: give neither seed nor batch with it")
    flow = Flow(model, t_min, Adaptive(method, rtol, atol), batch, max_nfe)
    end = flow.run(x, y, rule, seed, noise)
    estimates = end.integrals + _log_prior(end.x, model.sde.prior_std)[:, None]
    log_prob, dims = estimates.mean(1), math.prod(x.shape[1:])
    return Likelihood(
        log_prob=log_prob,
        bits_per_dim=None if bits_offset is None else bits_per_dim(log_prob, dims, bits_offset),
        std_error=rule.std_error(estimates),
        latent=end.x.to(x.dtype),
        nfe=end.nfe,
        nfe_derivative=end.nfe_derivative,
        accepted=end.accepted,
        rejected=end.rejected,
        t_min=t_min,
        solver=flow.solver,
        trace=rule,
        seed=seed,
    )


@torch.no_grad()
def encode(
    model: ScoreModel,
    x: Tensor,
    *,
    t_min: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    y: Tensor | None = None,
    batch: int | None = None,
    max_nfe: int | None = 10_000,
) -> Encoding:
    """The latent code x(1) of x, without the likelihood: no derivative passes.

    The probability-flow ODE run from t = 1 down to `t_min` decodes it.

    Arguments and errors as for `log_likelihood`.
    """
    flow = Flow(model, t_min, Adaptive(method, rtol, atol), batch, max_nfe)
    end = flow.run(x, y)
    return Encoding(end.x.to(x.dtype), end.nfe, end.accepted, end.rejected, t_min, flow.solver)


def bits_per_dim(log_prob: Tensor, dims: int, bits_offset: float) -> Tensor:
    """−log2 p(x)/D + log2(levels/span): bits/dim of quantized data, from a density of x.

    A cell of one level has volume (span/levels)^D at the scale of x, and its probability is at
    least, in the mean over dequantization of the logarithm, that volume times p(x).

    Args:
        log_prob: log p(x) in nats, any shape.
        dims: D ≥ 1.
        bits_offset: log2(levels/span), see `DataSpec.bits_offset`.

    Returns:
        Shape of `log_prob`.
    """
    return -log_prob / (dims * math.log(2)) + bits_offset


def _log_prior(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std² I) in nats, shape (B,)."""
    squares = (x / std).reshape(x.shape[0], math.prod(x.shape[1:])) ** 2
    return (-0.5 * squares - math.log(std) - 0.5 * math.log(2 * math.pi)).sum(1)


def _rule(x: Tensor, trace: str, probe: str, probes: int, force: bool) -> TraceRule:
    """The rule that the arguments of `log_likelihood` name."""
    dims = math.prod(x.shape[1:])
    if trace not in ("auto", "exact", "hutchinson"):
        raise ValueError(f"trace must be auto, exact or hutchinson, got {trace!r}")
    hutchinson = Hutchinson(probe, probes)  # checks them even if they are not needed
    if trace == "hutchinson" or (trace == "auto" and dims > EXACT_UP_TO):
        return hutchinson
    if dims > EXACT_LIMIT and not force:
        raise ValueError(
            f"trace='exact' needs D = {dims} derivative passes per evaluation, more than "
            f"{EXACT_LIMIT}; use 'hutchinson', or force=True if you can wait"
        )
    return ExactTrace()
