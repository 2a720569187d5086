"""Log-likelihood, and the latent code, by the probability-flow ODE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..evaluation import own_context
from ..exact import GaussianMixture
from ..ivp import Counts
from ..noise import Noise
from ..score import ScoreModel
from .flow import Flow, Solver, adaptive_solver
from .jacobian import flat_rows
from .trace import ExactTrace, Hutchinson, TraceRule

__all__ = [
    "Encoding",
    "Likelihood",
    "bits_per_dim",
    "encode",
    "log_likelihood",
    "log_prior",
    "trace_rule",
]

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
        counts: Status, steps and evaluations of each sample; those of one chunk are the same
            unless each sample has its own step size.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
        t_min: Time at which x was put in.
        solver: Method and tolerances.
        trace: The rule of the trace with its probes.
        seed: Seed of the probes; None where none was given.
    """

    log_prob: Tensor
    bits_per_dim: Tensor | None
    std_error: Tensor
    latent: Tensor
    counts: Counts
    nfe: int
    nfe_derivative: int
    t_min: float
    solver: Solver
    trace: TraceRule
    seed: int | None


@dataclass(frozen=True)
class Encoding:
    """What `encode` returns; the attributes are those of `Likelihood`."""

    latent: Tensor
    counts: Counts
    nfe: int
    t_min: float
    solver: Solver


@own_context()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    *,
    t_min: float | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    per_sample: bool = False,
    trace: TraceRule | Literal["auto"] = "auto",
    control: GaussianMixture | None = None,
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

    The solver's state is float64, the network keeps its dtype. Probes are drawn once per sample
    and kept along the path, else the ODE would not be smooth; each column of the rule gives an
    integral of its own, and `std_error` is from their spread.

    One step size serves the whole batch (see `Adaptive.solve`), and a sample's value may change
    with its batch mates by about tolerance · (1 + |log p|). With `per_sample` each has its own
    steps, and its value is the same alone and in any batch, to rounding.

    Args:
        model: Score model.
        x: Data at the model's scale (levels: see `discrete_log_likelihood`), shape (B, *D).
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: 1e-5, but not below
            the first discrete label of a network that has such labels (`ScoreModel.t_least`).
        rtol: Relative tolerance, in (0, 1).
        atol: Absolute tolerance, greater than 0.
        method: "dopri8", "dopri5", "bosh3" or "adaptive_heun"; "dop853", "dopri5" or "bosh3" if
            `per_sample`.
        per_sample: A step size for each sample, which leaves the batch when it arrives.
        trace: A rule; "auto" is `ExactTrace` (D derivative passes per evaluation) up to D = 16,
            `Hutchinson` with one probe above. `choose_trace` measures which is best.
        control: A Gaussian like the data (`fit_gaussian`), whose Jacobian is subtracted before
            and added after each estimate: less variance, the same mean. Unused by `ExactTrace`.
        y: Integer class labels, shape (B,), which a conditional model needs.
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
        TypeError: If x is not float32 or float64, or `trace` or `control` is of another type.
        ValueError: On a bad argument, an estimated trace without randomness, an exact trace of
            D > 4096 without `force`, or a tolerance below 1e-7 in float32.
        RuntimeError: If the network or its derivative is not finite, the solver gives up or
            `max_nfe` is exceeded; the time reached is named, and the sample if `per_sample`.
    """
    rule, dims = trace_rule(trace, x, force), math.prod(x.shape[1:])
    if noise is not None and (seed is not None or batch is not None):
        raise ValueError("noise serves one batch: give neither seed nor batch with it")
    flow = Flow(model, t_min, adaptive_solver(method, rtol, atol, per_sample), batch, max_nfe)
    end = flow.run(x, y, rule, seed, noise, control)
    estimates = end.integrals + log_prior(end.x, model.sde.prior_std)[:, None]
    log_prob = estimates.mean(1)
    return Likelihood(
        log_prob=log_prob,
        bits_per_dim=None if bits_offset is None else bits_per_dim(log_prob, dims, bits_offset),
        std_error=rule.std_error(estimates, dims),
        latent=end.x.to(x.dtype),
        counts=end.counts,
        nfe=end.nfe,
        nfe_derivative=end.nfe_derivative,
        t_min=flow.t_min,
        solver=flow.solver,
        trace=rule,
        seed=seed,
    )


@own_context()
def encode(
    model: ScoreModel,
    x: Tensor,
    *,
    t_min: float | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "dopri5",
    per_sample: bool = False,
    y: Tensor | None = None,
    batch: int | None = None,
    max_nfe: int | None = 10_000,
) -> Encoding:
    """The latent code x(1) of x, without the likelihood: no derivative passes.

    The probability-flow ODE run from t = 1 down to `t_min` decodes it.

    Arguments and errors as for `log_likelihood`.
    """
    flow = Flow(model, t_min, adaptive_solver(method, rtol, atol, per_sample), batch, max_nfe)
    end = flow.run(x, y)
    return Encoding(end.x.to(x.dtype), end.counts, end.nfe, flow.t_min, flow.solver)


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


def log_prior(x: Tensor, std: float) -> Tensor:
    """log N(x; 0, std² I) in nats for x of shape (B, *D), shape (B,)."""
    squares = flat_rows(x / std) ** 2
    return (-0.5 * squares - math.log(std) - 0.5 * math.log(2 * math.pi)).sum(1)


def trace_rule(trace: TraceRule | str, x: Tensor, force: bool = False) -> TraceRule:
    """The rule that the arguments of `log_likelihood` name.

    Args:
        trace: A rule, or "auto".
        x: Data, shape (B, *D), of which only the shape matters.
        force: Allow an exact trace above D = 4096.

    Raises:
        TypeError: If `trace` is neither.
        ValueError: If the trace is exact, D > 4096 and `force` not given.
    """
    dims = math.prod(x.shape[1:])
    if trace == "auto":
        return ExactTrace() if dims <= EXACT_UP_TO else Hutchinson()
    if not isinstance(trace, TraceRule):
        raise TypeError(f"trace must be a TraceRule or 'auto', got {trace!r}")
    if isinstance(trace, ExactTrace) and dims > EXACT_LIMIT and not force:
        raise ValueError(
            f"trace=ExactTrace() needs D = {dims} derivative passes per evaluation, more than "
            f"{EXACT_LIMIT}; use Hutchinson(), or force=True if you can wait"
        )
    return trace
