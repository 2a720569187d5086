"""A likelihood with everything that is known of its errors, per sample.

    random        probes and nodes, dequantization                         → standard errors
    systematic    solver, rounding of the dtype                            → measured differences
    definition    what t_min cuts off, and the prior in place of p at 1    → signed terms

The last two are no errors of the number: it is what its protocol says. They are what separates it
from the density of the data under the score, were that exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import torch
from scipy.special import stdtrit
from torch import Tensor

from .._tensor import check_number
from ..data.spec import DataSpec
from ..exact import GaussianMixture
from ..noise import Noise
from ..score import ScoreModel
from .cutoff import neglected
from .density import OdeDensity, PathDensity
from .dequantize import Continuous, Dequantization, UniformDequantization
from .jensen import Density, Estimate, jensen_bound
from .ode import EXACT_UP_TO, log_prior
from .trace import ExactTrace, Hutchinson

__all__ = ["Budget", "bound_of_changes", "likelihood_budget", "prior_mismatch", "student_t"]

# Where a standard error is known rather than estimated from few numbers.
MANY = 1e9
# Largest departure of a score from that of a smooth density (`CutOff`) at which its cut-off is
# stated: the estimates of order 1 and 2 then differ by at most an eighth of the terms' sizes.
SMOOTH = 0.25
# Squared skewness of log p over a cell, of which log p > its mean is the short side. Measured on
# mixtures in 2 to 64 dimensions with 8 and 17 levels: a skewness of −0.2 to −0.5.
SKEWNESS2 = 0.25


@dataclass(frozen=True)
class Budget:
    """Log-likelihoods and what is known of their errors, in nats; all of shape (B,), float64.

    Attributes:
        log_prob: log p(x), or the bound on log P(k).
        std_error: Standard error of it from all randomness that it holds; NaN where unknown.
        dof: Degrees of freedom behind `std_error`, for Student's t.
        probe_error: The part of probes and nodes; NaN where unknown.
        draw_error: The part of the dequantization; NaN where a single draw cannot tell, 0 where
            nothing is drawn.
        correction: What the path's correction was, see `PathLikelihood`; 0 for other methods.
        cut_off: log p_0(x) − log p_{t_min}(x), see `neglected`; NaN where it cannot be estimated
            because the model's score at t_min is not that of a smooth density.
        prior_mismatch: log p_1(x(1)) − log prior(x(1)), see `prior_mismatch`; NaN without a
            Gaussian near the data.
        nfe: Network evaluations, without those of `cut_off`.
        nfe_derivative: Derivative passes, likewise.
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

    @classmethod
    def cat(cls, parts: list[Budget]) -> Budget:
        """The budgets of several batches as one."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def half_width(self, level: float = 0.95, systematic: float = 0.0) -> Tensor:
        """Half of the confidence interval, t · std_error + systematic, in nats, shape (B,).

        Args:
            level: In (0, 1).
            systematic: A bound on the errors of solver and dtype, in nats.
        """
        check_number("level", level, above=0, below=1)
        return student_t(self.dof, level) * self.std_error + systematic

    @property
    def definition(self) -> Tensor:
        """cut_off + prior_mismatch: to be added for log p_0 of the data, if the score is exact."""
        return self.cut_off + self.prior_mismatch


def likelihood_budget(
    model: ScoreModel,
    data: Tensor,
    spec: DataSpec,
    density: PathDensity | OdeDensity,
    *,
    dequantization: Dequantization | None = None,
    control: GaussianMixture | None = None,
    draws: int = 1,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Tensor | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Budget:
    """Log-likelihoods of data by some density, with the parts of their random error.

    How much the solver errs is found by doing it again with `density.refined()` and the same
    seed: nodes, probes and dequantization are the same. Likewise in float64.

    Args:
        model: Score model.
        data: Levels for a spec with levels, real data else, shape (B, *D).
        spec: What the data are.
        density: `PathDensity` or `OdeDensity`.
        dequantization: Where data are put; None = uniform in the cell of each level, and
            continuous data as they are.
        control: A Gaussian near the data, for the prior mismatch.
        draws: Points per datum.
        seed: Integer in [0, 2^64) of all randomness; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Class labels, shape (B,), or None.
        batch: Take so many data at a time; None = all at once.
        dtype: Dtype of the points.

    Returns:
        The budget, with `cut_off` and `prior_mismatch` of the first draw.

    Raises:
        TypeError: If data or draws are of a wrong type.
        ValueError: On a bad argument.
        RuntimeError: If the network is not finite or a solver gives up.
    """
    if dequantization is None:
        dequantization = Continuous() if spec.levels is None else UniformDequantization()
    # the others draw points of p at t_min
    cut = isinstance(dequantization, (Continuous, UniformDequantization))
    bound = jensen_bound(
        model,
        data,
        spec,
        partial(_watched, density, control, cut),
        dequantization=dequantization,
        t_min=density.t_min,
        draws=draws,
        seed=seed,
        noise=noise,
        y=y,
        batch=batch,
        dtype=dtype,
    )
    columns = [_first(chunk) for chunk in bound.estimates]
    correction, cut_off, mismatch, dof = (
        torch.cat(column) for column in zip(*columns, strict=True)
    )
    draw_error, std_error = bound.draw_error, bound.probe_error
    if isinstance(dequantization, Continuous):
        draw_error = torch.zeros_like(draw_error)
    elif draws > 1:
        std_error, dof = _wider(bound.std_error, draws_dof(draws), std_error, dof)
    return Budget(
        log_prob=bound.log_bound,
        std_error=std_error,
        dof=dof,
        probe_error=bound.probe_error,
        draw_error=draw_error,
        correction=correction,
        cut_off=cut_off,
        prior_mismatch=mismatch,
        nfe=torch.full((len(data),), bound.nfe, dtype=torch.float64),
        nfe_derivative=torch.full((len(data),), bound.nfe_derivative, dtype=torch.float64),
    )


def prior_mismatch(
    model: ScoreModel, latent: Tensor, control: GaussianMixture | None = None
) -> Tensor:
    """log p_1(x) − log prior(x) at latents: what the prior in place of p at t = 1 leaves out.

    Exact for a `GaussianMixture`. Else p_1 is taken for a Gaussian with mean and covariance of the
    data: α(1) is so small that noise has made one of it but for terms of the order α(1)³.

    Args:
        model: Score model.
        latent: x at t = 1, shape (B, *D).
        control: The Gaussian (`fit_gaussian`); without it NaN is returned.

    Returns:
        Nats, shape (B,), float64.
    """
    known = model if isinstance(model, GaussianMixture) else control
    if known is None:
        return torch.full_like(latent.flatten(1)[:, 0], math.nan, dtype=torch.float64)
    latent = latent.to(torch.float64)
    return known.log_prob(latent, 1.0) - log_prior(latent, model.sde.prior_std)


@dataclass(frozen=True)
class _Terms:
    """What a density said of a batch, and what is left out of it."""

    log_prob: Tensor
    std_error: Tensor
    nfe: int
    nfe_derivative: int
    t_min: float
    dof: Tensor
    correction: Tensor
    cut_off: Tensor
    prior_mismatch: Tensor


def _watched(
    density: Density,
    control: GaussianMixture | None,
    cut: bool,
    model: ScoreModel,
    x: Tensor,
    noise: Noise,
) -> _Terms:
    """The density of a batch, with the terms of its definition."""
    found = density(model, x, noise)
    zeros = torch.zeros_like(found.log_prob)
    trace = ExactTrace() if math.prod(x.shape[1:]) <= EXACT_UP_TO else Hutchinson()
    cut_off = zeros
    if cut:
        left_out = neglected(model, x, found.t_min, trace=trace, order=2, noise=noise)
        cut_off = torch.where(left_out.departure <= SMOOTH, left_out.value, math.nan)
    return _Terms(
        log_prob=found.log_prob,
        std_error=found.std_error,
        nfe=found.nfe,
        nfe_derivative=found.nfe_derivative,
        t_min=found.t_min,
        dof=getattr(found, "dof", zeros + _probe_dof(found)),
        correction=getattr(found, "correction", zeros),
        cut_off=cut_off,
        prior_mismatch=prior_mismatch(model, found.latent, control),
    )


def _probe_dof(found: Estimate) -> float:
    """One less than the numbers of a trace rule whose spread is the error; many for others."""
    columns = getattr(getattr(found, "trace", None), "columns", 1)
    return columns - 1.0 if columns > 1 else MANY


def _first(draws: tuple[_Terms, ...]) -> tuple[Tensor, ...]:
    """Correction, cut-off and mismatch of the first draw; degrees of freedom of all."""
    first = draws[0]
    dof = torch.stack([draw.dof for draw in draws]).sum(0)
    return first.correction, first.cut_off, first.prior_mismatch, dof


def _wider(
    spread: Tensor, spread_dof: float, probes: Tensor, probe_dof: Tensor
) -> tuple[Tensor, Tensor]:
    """The larger of two standard errors, with the degrees of freedom of the wider interval.

    The spread of the draws holds all, and alone has the right coverage. What the probes are known
    to do is only a bound from below, NaN where it is not known: added to the rest of the spread by
    Satterthwaite's formula, an interval from 2 draws covered in 83 % (a tenth of the variance
    being the probes'), because that rest is 0 too often.
    """
    spread_dof = torch.full_like(spread, spread_dof)
    floor = torch.nan_to_num(probes)
    use = student_t(probe_dof, 0.95) * floor > student_t(spread_dof, 0.95) * spread
    return torch.maximum(spread, floor), torch.where(use, probe_dof, spread_dof)


def draws_dof(draws: int) -> float:
    """Degrees of freedom of the mean over random points of a cell, 1/ν = 1/(n − 1) + 0.9 γ²/n.

    Draws of log p are skewed to the left. If the few draws miss the tail, their mean is too high
    and their spread too small at once, so that Student's t with n − 1 covers too seldom. To first
    order in 1/n a skewness γ asks for an interval that is wider by the factor

        1 + γ² (z² + 3)(z² − 1)/(18 n)

    (the two-sided Edgeworth expansion of t, Hall 1992, The Bootstrap and Edgeworth Expansion,
    section 2.6), and ν degrees of freedom widen it by 1 + (z² + 1)/(4 ν); both are equal at the
    95 % level, z = 1.96, for the ν above. The third moment of a datum's own draws cannot be used
    instead of `SKEWNESS2`: it is small in exactly those cases in which the draws miss the tail.

    Args:
        draws: n, at least 2.
    """
    return 1 / (1 / (draws - 1) + 0.9 * SKEWNESS2 / draws)


def bound_of_changes(changes: Tensor) -> float:
    """What 95 % of the data do not exceed, from the changes of a few of them.

        2 (1 + 8/m) · root mean square of the m changes

    Solver errors have heavy tails, so that few changes often miss the large ones. With factor 2, on
    mixtures in 2 and 16 dimensions under VP, sub-VP and VE (dopri5 at tolerance 0.01), the bound
    held for 87.5, 91.4 and 94.5 % of the data at m = 8, 16 and 64. With factor 2 (1 + 8/m) it held
    for 95.0, 95.2 and 95.3 %.

    Args:
        changes: Change of log p of each of m data when the solver or the dtype is refined, in
            nats, shape (m,), m at least 1.

    Returns:
        The bound in nats.
    """
    return 2 * (1 + 8 / len(changes)) * float(changes.square().mean().sqrt())


def student_t(dof: Tensor, level: float) -> Tensor:
    """Student's t, two-sided."""
    return torch.from_numpy(stdtrit(dof.cpu().numpy(), 0.5 + 0.5 * level)).to(dof)
