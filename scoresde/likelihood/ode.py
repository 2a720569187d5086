"""`Ode`: log p(x) by the probability-flow ODE and the instantaneous change of variables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._tensor import check_choice, check_integer, plain_numbers
from ..batches import Batch
from ..exact import GaussianMixture
from ..ivp import FLOAT32_TOLERANCE, Adaptive, AdaptivePerSample
from ..score import ScoreModel
from .flow import Flow, FlowEnd, check_points, log_prior
from .method import KNOWN, Likelihood, LikelihoodMethod
from .trace.names import as_trace, trace_rule
from .trace.rules import ExactTrace, TraceRule

__all__ = ["ODE_METHODS", "Ode"]

# One step size for the batch: all adaptive methods of torchdiffeq except fehlberg2, whose error
# estimate is about a hundred times too small.
_WHOLE_BATCH = ("dopri8", "dopri5", "bosh3", "adaptive_heun")
ODE_METHODS = (*_WHOLE_BATCH, "dop853")


@dataclass(frozen=True)
class Ode(LikelihoodMethod):
    """log p(x) by an adaptive solver of the probability-flow ODE.

        dx/dt = h(x, t) = f x − ½ g² score(x, t)   from x(t_min) = x to x(1)
        log p(x) = log N(x(1); 0, prior_std² I) + ∫ tr ∂h/∂x dt   over [t_min, 1]

    Song et al. 2021, arXiv:2011.13456, section 4.3; Chen et al. 2018, arXiv:1806.07366,
    section 4. One solve computes x and the integral together. Two errors belong to the definition
    and remain with any solver: x counts as a sample of p at t_min (cut-off), and the prior is used
    in place of p at t = 1 (mismatch). On a 2-D mixture they are of the order 1e-3 nats for VP, 1e-2
    for VE; see `likelihood_budget`.

    Probes are drawn once per sample and kept along the path. Each estimate of the trace has its own
    integral. The standard error comes from the spread of these integrals: 0 for an exact trace, NaN
    for a single probe.

    The whole batch has one step size (see `Adaptive.solve`), so that the value of a sample may
    change with its batch mates by about tolerance · (1 + |log p|). With `per_sample` each sample
    has its own steps, and its value depends on the batch only through rounding.

    Args:
        method: "dopri8", "dopri5", "bosh3" or "adaptive_heun"; "dop853", "dopri5" or "bosh3" if
            `per_sample`, which "dop853" always is.
        rtol: Relative tolerance, in (0, 1); at least 1e-7 for float32.
        atol: Absolute tolerance, greater than 0; at least 1e-7 for float32.
        per_sample: Each sample has its own step size, and leaves the batch when it is finished.
        trace: A rule or its text, such as "hutchinson:probes=4"; "auto" is `ExactTrace` (D
            derivative passes per evaluation) up to D = 16, `Hutchinson` with one probe above.
            `choose_trace` measures which rule is best.
        control: A Gaussian near the data (`fit_gaussian`). Its Jacobian is subtracted before each
            estimate, and its trace added after: less variance, the same mean. `ExactTrace` does
            not use it.
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: 1e-5, but not below
            the first discrete label of a network that has such labels (`ScoreModel.t_least`).
        max_nfe: Give up with RuntimeError after so many evaluations per sample; None = never.
        force: Allow an exact trace above D = 4096.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If one is out of range, or a text names no trace rule.
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-6
    per_sample: bool = False
    trace: TraceRule | str = "auto"
    control: GaussianMixture | None = None
    t_min: float | None = None
    max_nfe: int | None = 10_000
    force: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        object.__setattr__(self, "trace", as_trace(self.trace))
        if self.method == "dop853":
            object.__setattr__(self, "per_sample", True)
        if self.max_nfe is not None:
            check_integer("max_nfe", self.max_nfe, minimum=1)
        if not self.per_sample:
            check_choice("method", self.method, ODE_METHODS)
        _ = self.solver  # refuses tolerances out of range

    @property
    def solver(self) -> Adaptive | AdaptivePerSample:
        """The solver of these settings."""
        if not self.per_sample:
            return Adaptive(self.method, self.rtol, self.atol)
        return AdaptivePerSample(self.method, self.rtol, self.atol, self.max_nfe)

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse points, controls, traces, times and tolerances that do not fit."""
        self.check_solve(model, x)
        trace_rule(self.trace, x, self.force)

    def check_solve(self, model: ScoreModel, x: Tensor) -> None:
        """`check` for a solve without a trace."""
        check_points(model, x, self.control)
        model.first_time(self.t_min)
        dtypes = {x.dtype, *(p.dtype for p in model.parameters())}
        if dtypes != {torch.float64} and min(self.rtol, self.atol) < FLOAT32_TOLERANCE:
            raise ValueError(
                f"rtol and atol must be at least {FLOAT32_TOLERANCE:g} in float32, got "
                f"{self.rtol:g} and {self.atol:g}; for more, give x and network in float64"
            )

    def needs_noise(self, x: Tensor) -> bool:
        """Whether the trace is estimated."""
        return not isinstance(trace_rule(self.trace, x, self.force), ExactTrace)

    def refined(self) -> Ode:
        """The method with a tenth of the tolerances; the probes stay."""
        return replace(self, rtol=self.rtol / 10, atol=self.atol / 10)

    def estimate(self, batch: Batch, x: Tensor) -> Likelihood:
        """log p of one batch, with the error of the probes."""
        rule = trace_rule(self.trace, x, self.force)
        end = self.solve(batch, x, rule)
        log_probs = (
            end.integrals + log_prior(end.x, batch.model.sde.prior_std, batch.model)[:, None]
        )
        return self.likelihood(batch.model, log_probs, rule, end, end.x.to(x.dtype))

    def solve(
        self, batch: Batch, x: Tensor, rule: TraceRule | None = None, down: bool = False
    ) -> FlowEnd:
        """Carry x from t_min to 1, or down from 1 to t_min; without a rule no trace is computed."""
        t_min = batch.model.first_time(self.t_min)
        times = (1.0, t_min) if down else (t_min, 1.0)
        return Flow(batch, x, rule, self.control).solve(self.solver, *times, self.max_nfe)

    def likelihood(
        self, model: ScoreModel, log_probs: Tensor, rule: TraceRule, end: FlowEnd, latent: Tensor
    ) -> Likelihood:
        """The result of a solve with a trace.

        Args:
            model: Score model.
            log_probs: log p from each estimate of the trace, shape (B, columns).
            rule: The rule of the trace.
            end: End of the solve.
            latent: x at t = 1, shape (B, *D).
        """
        log_prob = log_probs.mean(1)
        dof = rule.columns - 1.0 if rule.columns > 1 else KNOWN
        return Likelihood(
            log_prob=log_prob,
            std_error=rule.std_error(log_probs, math.prod(latent.shape[1:])),
            dof=torch.full_like(log_prob, dof),
            correction=torch.zeros_like(log_prob),
            latent=latent,
            counts=end.counts,
            nfe=end.nfe,
            nfe_derivative=end.nfe_derivative,
            t_min=model.first_time(self.t_min),
            method=replace(self, trace=rule),
        )
