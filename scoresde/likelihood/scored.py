"""Samples together with their log-density, in one pass of the probability-flow ODE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._tensor import check_shape
from ..evaluation import own_context
from ..exact import GaussianMixture
from ..ivp import Counts
from ..noise import Noise, SampleNoise
from ..score import ScoreModel
from .flow import Flow, Solver, adaptive_solver
from .ode import log_prior, trace_rule
from .trace import TraceRule

__all__ = ["ScoredSamples", "sample_with_log_prob"]


@dataclass(frozen=True)
class ScoredSamples:
    """What `sample_with_log_prob` returns, and what is needed to repeat it.

    Attributes:
        x: Samples at t_min, shape (n, *D).
        log_prob: log p(x) in nats at the scale of x, shape (n,), float64.
        std_error: Standard error of `log_prob` from the probes, in nats, shape (n,), float64; 0
            for an exact trace, NaN where one number cannot tell.
        x_init: The states they started from, like x.
        counts: Status, steps and evaluations of each sample.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
        t_min: Time of the samples.
        solver: Method and tolerances.
        trace: The rule, with its probes.
        seed: The seed; None where noise was given.
    """

    x: Tensor
    log_prob: Tensor
    std_error: Tensor
    x_init: Tensor
    counts: Counts
    nfe: int
    nfe_derivative: int
    t_min: float
    solver: Solver
    trace: TraceRule
    seed: int | None


@own_context()
def sample_with_log_prob(
    model: ScoreModel,
    shape: Sequence[int],
    *,
    seed: int | None = None,
    noise: Noise | None = None,
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
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ScoredSamples:
    """Draw samples by the probability-flow ODE, each with the model's log-density there.

        x(1) ~ N(0, prior_std² I),   dx/dt = h(x, t) = f x − ½ g² score(x, t)   down to t_min
        log p(x(t_min)) = log N(x(1); 0, prior_std² I) + ∫ tr ∂h/∂x dt   over [t_min, 1]

    Song et al. 2021, arXiv:2011.13456, section 4.3. The sample and the integral are one state of
    one solve, so that the density costs derivative passes but no evaluations of its own. It is the
    value that `log_likelihood` gives for x, within the tolerance and the error of the probes.

    Sample i depends on (seed, i) alone, within the tolerance unless `per_sample`, and starts from
    the same x(1) as `scoresde.sample` with that seed.

    Args:
        model: Score model.
        shape: Shape of the result, (n, *D).
        seed: Integer in [0, 2^64) for x(1) and the probes; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        t_min: Last time, in [0, 1); None as in `log_likelihood`. The samples carry noise of
            standard deviation σ(t_min), which has to be there: without it there is no density.
        rtol: This and the arguments to `force` as in `log_likelihood`.
        atol: See there.
        method: See there.
        per_sample: See there.
        trace: See there.
        control: See there.
        y: Class labels, shape (n,), for a conditional model; log p is of x given y.
        batch: See there.
        max_nfe: See there.
        force: See there.
        device: Where to run.
        dtype: Of the samples, float32 or float64.

    Returns:
        The samples with their log-density, its uncertainty and cost; empty for n = 0.

    Raises:
        TypeError: If dtype is not float32 or float64.
        ValueError: On a bad argument, or as for `log_likelihood`.
        RuntimeError: As for `log_likelihood`.
    """
    shape = check_shape(shape)
    if (seed is None) == (noise is None):
        raise ValueError("exactly one of seed and noise must be given")
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves the one batch it was made for")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    source = noise or SampleNoise(seed, range(shape[0]))
    start = (source.prior(shape) * model.sde.start_std(1.0)).to(device, dtype)
    rule = trace_rule(trace, start, force)
    flow = Flow(model, t_min, adaptive_solver(method, rtol, atol, per_sample), batch, max_nfe)
    end = flow.run(start, y, rule, seed, noise, control, down=True)
    # downwards the integrals are −∫ over [t_min, 1]
    estimates = log_prior(start, model.sde.prior_std)[:, None] - end.integrals
    return ScoredSamples(
        x=end.x.to(dtype),
        log_prob=estimates.mean(1),
        std_error=rule.std_error(estimates, math.prod(shape[1:])),
        x_init=start,
        counts=end.counts,
        nfe=end.nfe,
        nfe_derivative=end.nfe_derivative,
        t_min=flow.t_min,
        solver=flow.solver,
        trace=rule,
        seed=seed,
    )
