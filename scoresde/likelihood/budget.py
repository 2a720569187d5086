"""The error budget of likelihoods, for each datum.

    random        probes and nodes, dequantization                         → standard errors
    systematic    solver, rounding of the dtype                            → measured differences
    definition    the cut-off at t_min, the prior in place of p at t = 1   → signed terms

The terms of the definition are not errors of the value that the protocol defines. If the score is
exact, they are the difference between this value and the log-density log p_0 of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from .._condition import Condition
from ..batches import Batch
from ..exact import GaussianMixture
from ..noise import Noise
from ..score import ScoreModel
from .cutoff import neglected
from .dequantized import Bound, Dequantized
from .flow import log_prior
from .method import Likelihood, LikelihoodMethod, student_t
from .methods import as_method, log_likelihood
from .vlb.bound import VariationalBound

__all__ = ["Budget", "bound_of_changes", "likelihood_budget", "prior_mismatch"]

# The cut-off is reported only if `CutOff.departure` is at most this. The estimates of order 1 and 2
# then differ by at most an eighth of the size of their terms.
MOST_DEPARTURE = 0.25


@dataclass(frozen=True)
class Budget:
    """Log-likelihoods with their errors, in nats; all but `terms` of shape (B,), float64.

    Attributes:
        log_prob: log p(x), a density in the units of the data, or the bound on log P(k).
        std_error: Standard error of `log_prob`, NaN where unknown. For a single draw it lacks the
            part of the dequantization, which is then unknown.
        dof: Degrees of freedom of `std_error`, for Student's t.
        probe_error: The part from probes and nodes; NaN where unknown.
        draw_error: The part from the dequantization; NaN for a single draw, 0 where the points are
            not random.
        correction: The correction of a path, see `Likelihood`; 0 for other methods.
        cut_off: log p_0(x) − log p_{t_min}(x), see `neglected`; NaN where it cannot be estimated
            because the model's score at t_min is not that of a smooth density.
        prior_mismatch: log p_1(x(1)) − log prior(x(1)), see `prior_mismatch`; NaN without a
            Gaussian near the data.
        nfe: Network evaluations, without those of `cut_off`.
        nfe_derivative: Derivative passes, without those of `cut_off`.
        terms: The terms of a variational bound, whose sum is −log_prob, shape (B, M + 2); see
            `VariationalBound.terms`. Shape (B, 0) for other methods.
    """

    log_prob: Tensor
    std_error: Tensor
    dof: Tensor
    probe_error: Tensor
    draw_error: Tensor
    correction: Tensor
    cut_off: Tensor
    prior_mismatch: Tensor
    nfe: Tensor
    nfe_derivative: Tensor
    terms: Tensor

    def half_width(self, level: float = 0.95, systematic: float = 0.0) -> Tensor:
        """Half of the confidence interval, t · std_error + systematic, in nats, shape (B,).

        Args:
            level: In (0, 1).
            systematic: Bound on the error from solver and dtype, in nats; see `bound_of_changes`.
        """
        return student_t(self.dof, level) * self.std_error + systematic

    @property
    def definition(self) -> Tensor:
        """cut_off + prior_mismatch; with an exact score, log p_0 of the data minus `log_prob`."""
        return self.cut_off + self.prior_mismatch


def likelihood_budget(
    model: ScoreModel,
    data: Tensor,
    method: LikelihoodMethod | str,
    *,
    control: GaussianMixture | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
    batch: int | None = None,
) -> Budget:
    """Log-likelihoods of data by a method, with the parts of their random error.

    To measure the error of the solver or of the dtype, call again with the same seed and
    `method.refined()`, or in float64. Nodes, probes and dequantized points then stay the same.

    Args:
        model: Score model.
        data: Levels or real data in units, whichever the method needs, shape (B, *D).
        method: A protocol (`Dequantized`), another likelihood method or its text.
        control: A Gaussian near the data, for the prior mismatch.
        seed: Integer in [0, 2^64) for all randomness; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Condition of the data, or None.
        batch: Data at a time; None = all at once.

    Returns:
        The budget, with `correction`, `cut_off` and `prior_mismatch` of the first draw.

    Raises:
        TypeError: If data have a wrong type.
        ValueError: On a bad argument.
        RuntimeError: If the network is not finite or a solver gives up.
    """
    method = as_method(method)
    if isinstance(method, Dequantized):
        cut = not method.dequantization.noised  # noised points are samples of p at t_min
        watched = replace(method, method=_Watched(method.method, control, cut))
    else:
        watched = _Watched(method, control)
    found = log_likelihood(model, data, watched, seed=seed, noise=noise, y=y, batch=batch)
    first, std_error, dof = found, found.std_error, found.dof
    probe_error, draw_error = found.std_error, torch.zeros_like(found.std_error)
    if isinstance(found, Bound):
        first, probe_error, draw_error = found.parts[0], found.probe_error, found.draw_error
        if len(found.parts) == 1:
            std_error, dof = probe_error, found.probe_dof
        elif method.dequantization.random:
            std_error, dof = _wider(std_error, dof, probe_error, found.probe_dof)
    return Budget(
        log_prob=found.log_prob,
        std_error=std_error,
        dof=dof,
        probe_error=probe_error,
        draw_error=draw_error,
        correction=first.correction,
        cut_off=first.cut_off,
        prior_mismatch=first.prior_mismatch,
        nfe=torch.full_like(found.log_prob, found.nfe),
        nfe_derivative=torch.full_like(found.log_prob, found.nfe_derivative),
        terms=first.terms,
    )


def prior_mismatch(
    model: ScoreModel, latent: Tensor, control: GaussianMixture | None = None
) -> Tensor:
    """log p_1(x) − log prior(x) at latents: the error of using the prior in place of p_1.

    Exact for a `GaussianMixture`. Otherwise p_1 is approximated by a Gaussian with the mean and
    covariance of the data. α(1) is small, and the error of the approximation is of order α(1)³.

    Args:
        model: Score model.
        latent: x at t = 1, shape (B, *D).
        control: The Gaussian (`fit_gaussian`); if it is needed and missing, NaN is returned.

    Returns:
        Nats, shape (B,), float64.
    """
    known = model if isinstance(model, GaussianMixture) else control
    if known is None:
        return torch.full_like(latent.flatten(1)[:, 0], math.nan, dtype=torch.float64)
    latent = latent.to(torch.float64)
    return known.log_prob(latent, 1.0) - log_prior(latent, model.sde.prior_std, model)


@dataclass(frozen=True, kw_only=True)
class _WatchedLikelihood(Likelihood):
    """A likelihood with the terms of its definition and of a variational bound, as in `Budget`."""

    cut_off: Tensor
    prior_mismatch: Tensor
    terms: Tensor

    def shifted(self, log_det: Tensor) -> Self:
        """See `Likelihood.shifted`; the last term of a bound is that of the decoder."""
        terms = self.terms.clone()
        if terms.shape[1]:
            terms[:, -1] -= log_det
        return replace(super().shifted(log_det), terms=terms)


@dataclass(frozen=True)
class _Watched(LikelihoodMethod):
    """A method, together with the terms of its definition.

    Args:
        method: The method.
        control: A Gaussian near the data, for the prior mismatch.
        cut: Whether the data are used as samples of p at t_min, so that there is a cut-off.
    """

    method: LikelihoodMethod
    control: GaussianMixture | None
    cut: bool = True

    @property
    def t_min(self) -> float | None:
        """The method's."""
        return self.method.t_min

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """The method's."""
        self.method.check(model, x)

    def estimate(self, batch: Batch, x: Tensor) -> _WatchedLikelihood:
        """The method's likelihood, with the terms of its definition."""
        found = self.method.estimate(batch, x)
        cut_off = mismatch = torch.zeros_like(found.log_prob)
        if found.latent is not None:  # a bound for the reverse SDE has neither term
            mismatch = prior_mismatch(batch.model, found.latent, self.control)
            if self.cut:
                left_out = neglected(batch.model, x, found.t_min, order=2, noise=batch.noise)
                cut_off = torch.where(
                    left_out.departure <= MOST_DEPARTURE, left_out.value, math.nan
                )
        bound = isinstance(found, VariationalBound)
        terms = found.terms if bound else found.log_prob.new_empty(len(found.log_prob), 0)
        common = {field.name: getattr(found, field.name) for field in fields(Likelihood)}
        return _WatchedLikelihood(**common, cut_off=cut_off, prior_mismatch=mismatch, terms=terms)


def _wider(
    spread: Tensor, spread_dof: Tensor, probes: Tensor, probe_dof: Tensor
) -> tuple[Tensor, Tensor]:
    """The larger of two standard errors, with the degrees of freedom of the wider interval.

    The spread of the draws contains all errors, and its interval has the right coverage. The error
    of the probes (NaN if unknown) serves only as a lower bound. The alternative is to add it to the
    rest of the spread by Satterthwaite's formula. With 2 draws and a tenth of the variance from
    probes, that interval covered only 83 %, because the rest is 0 too often.
    """
    floor = torch.nan_to_num(probes)
    use = student_t(probe_dof, 0.95) * floor > student_t(spread_dof, 0.95) * spread
    return torch.maximum(spread, floor), torch.where(use, probe_dof, spread_dof)


def bound_of_changes(changes: Tensor) -> float:
    """A bound on the systematic error of 95 % of the data, from the changes of m of them.

        2 (1 + 8/m) · root mean square of the m changes

    Solver errors have heavy tails: a few changes often miss the large ones. Measured on mixtures
    in 2 and 16 dimensions under VP, sub-VP and VE (dopri5 at tolerance 0.01) with m = 8, 16 and 64,
    a factor 2 bounded the error of 87.5, 91.4 and 94.5 % of the data, and the factor 2 (1 + 8/m)
    bounded the error of 95.0, 95.2 and 95.3 %.

    Args:
        changes: Changes of log p of m data when the solver or the dtype is refined, in nats, shape
            (m,), m at least 1.

    Returns:
        The bound in nats.
    """
    return 2 * (1 + 8 / len(changes)) * float(changes.square().mean().sqrt())
