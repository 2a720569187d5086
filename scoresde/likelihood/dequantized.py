"""`Dequantized`: Jensen's bound log P(k) ≥ E[log p(x) − log q(x | k)] over random points x.

A `Dequantized` is a protocol: the dequantization q draws the points, a likelihood method computes
log p at these points, and the spec describes the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._tensor import check_integer, check_type, plain_numbers
from ..batches import Batch
from ..data.spec import DataSpec
from ..evaluation import count_nfe
from ..score import ScoreModel
from ..sde import Node
from .dequantize import Continuous, Dequantization, UniformDequantization
from .method import Likelihood, LikelihoodMethod, check_data
from .methods import as_method
from .path.path import Path
from .trace.rules import error_of_mean

__all__ = ["Bound", "Dequantized", "draws_dof"]

# Squared skewness γ² of log p over a cell. The skewness, measured on mixtures in 2 to 64 dimensions
# with 8 and 17 levels, is −0.2 to −0.5.
SKEWNESS2 = 0.25


@dataclass(frozen=True, kw_only=True)
class Bound(Likelihood):
    """The result of `Dequantized`: log_prob is the mean over n draws of log p − log q.

    The variance of this mean is the sum of two parts. One comes from the random numbers of the
    method (probes) and is known from the standard error of each draw. The other comes from the
    places of the points. `std_error` is estimated from the spread of the draws, which contains both
    parts; it is NaN for a single draw. If the points are not random it is `probe_error`. The
    correction is the mean over the draws.

    Attributes:
        probe_error: The part from the method, √(mean of its squared errors/n), shape (B,); NaN
            where these errors are unknown.
        draw_error: The part from the points, √max(0, std_error² − probe_error²), shape (B,). It is
            a difference of two estimates and therefore noisy. NaN where one of the two is NaN.
        log_q: log q(x | k) in nats of each draw, shape (B, n).
        parts: The method's result for each draw.
    """

    probe_error: Tensor
    draw_error: Tensor
    log_q: Tensor
    parts: tuple[Likelihood, ...]

    @property
    def probe_dof(self) -> Tensor:
        """Degrees of freedom of `probe_error`, shape (B,)."""
        return torch.stack([part.dof for part in self.parts]).sum(0)


@dataclass(frozen=True)
class Dequantized(LikelihoodMethod):
    """log P(k) ≥ E[log p(x) − log q(x | k)] over x ~ q, as the mean of independent draws.

    P(k) is the integral of p over the cell of k. Theis, van den Oord and Bethge 2016,
    arXiv:1511.01844, section 3.1. The mean over draws is an unbiased estimate of the bound. The
    first draws stay the same if `draws` is larger. `Likelihood.bits_per_dim` gives bits/dim. For
    continuous data log P is the log-density.

    Args:
        spec: What the data are.
        method: The method that computes log p at a point, or its text; probes are drawn anew for
            each point.
        dequantization: q. None: uniform in the cell of each level; continuous data unchanged.
        draws: Points per datum, at least 1; 2 or more for a standard error.
        dtype: Dtype of the points, float32 or float64.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If draws is below 1, a text names no method, or the method takes levels itself.
    """

    spec: DataSpec
    method: LikelihoodMethod | str = Path()
    dequantization: Dequantization | None = None
    draws: int = 1
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_type("spec", self.spec, DataSpec)
        check_integer("draws", self.draws, minimum=1)
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")
        object.__setattr__(self, "method", as_method(self.method))
        if self.method.of_levels:
            name = type(self.method).__name__
            raise ValueError(f"method must give the density of points, {name} is of levels itself")
        if self.dequantization is None:
            own = Continuous() if self.spec.levels is None else UniformDequantization()
            object.__setattr__(self, "dequantization", own)
        check_type("dequantization", self.dequantization, Dequantization)

    @property
    def name(self) -> str:
        """Name of the protocol in results; only numbers of one protocol are comparable."""
        return f"pf-ode/{self.dequantization.name}"

    @property
    def t_min(self) -> float | None:
        """The method's."""
        return self.method.t_min

    @property
    def of_levels(self) -> bool:
        """Whether the data are quantized."""
        return self.spec.levels is not None

    @property
    def differentiable(self) -> bool:
        """The method's; the draws of an encoder have no gradient."""
        return self.method.differentiable and not self.encodes

    @property
    def encodes(self) -> bool:
        """Whether the points are latents of the data."""
        return self.dequantization.encodes

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse data that do not fit spec and method."""
        check_data(x, self.spec)
        self.method.check(model, self.dequantization.like_points(model, x, self.dtype))

    def needs_noise(self, x: Tensor) -> bool:
        """Whether the points or the method are random."""
        return self.dequantization.random or self.method.needs_noise(x)

    def refined(self) -> Dequantized | None:
        """The protocol with a finer solver; the points and probes stay."""
        finer = self.method.refined()
        return None if finer is None else replace(self, method=finer)

    def estimate(self, batch: Batch, x: Tensor) -> Bound:
        """The bound of one batch of data."""
        (node,) = batch.model.sde.nodes([batch.model.first_time(self.t_min)])
        draws = [self._draw(batch, x, node) for _ in range(self.draws)]
        parts = tuple(draw.part for draw in draws)
        log_q = torch.stack([draw.log_q for draw in draws])
        errors = torch.stack([part.std_error for part in parts])
        values = torch.stack([part.log_prob for part in parts]) - log_q
        probes = (errors**2).mean(0) / len(errors)
        total, dof = error_of_mean(values.detach(), dim=0), draws_dof(self.draws)
        # this difference of two estimates may be negative
        rest = (total**2 - probes).clamp(min=0)
        dof = torch.full_like(total, dof)
        if not self.dequantization.random:
            total, rest = probes.sqrt(), torch.zeros_like(total)
            dof = torch.stack([part.dof for part in parts]).sum(0)
        return Bound(
            log_prob=values.mean(0),
            std_error=total,
            dof=dof,
            correction=torch.stack([part.correction for part in parts]).mean(0),
            nfe=sum(draw.nfe + draw.part.nfe for draw in draws),
            nfe_derivative=sum(part.nfe_derivative for part in parts),
            t_min=node.t,
            method=self,
            probe_error=probes.sqrt(),
            draw_error=rest.sqrt(),
            log_q=log_q.T,
            parts=parts,
        )

    def _draw(self, batch: Batch, x: Tensor, node: Node) -> _Draw:
        """One point per datum, and its likelihood."""
        with count_nfe(batch.model) as counted:
            points = self.dequantization.draw(batch, x, self.spec, node, self.dtype)
        return _Draw(points.log_q, self.method.estimate(batch, points.x), counted.forward)


class _Draw(NamedTuple):
    """One draw of one batch, with the evaluations for its points."""

    log_q: Tensor
    part: Likelihood
    nfe: int


def draws_dof(draws: int) -> float:
    """Degrees of freedom of the mean over random points of a cell, 1/ν = 1/(n − 1) + 0.9 γ²/n.

    Draws of log p are skewed to the left. If the n draws miss the tail, their mean is too high and
    at the same time their spread too small, so that Student's t with n − 1 degrees of freedom
    covers too seldom. To first order in 1/n a skewness γ requires an interval that is wider by the
    factor

        1 + γ² (z² + 3)(z² − 1)/(18 n)

    (the two-sided Edgeworth expansion of t, Hall 1992, The Bootstrap and Edgeworth Expansion,
    section 2.6), and ν degrees of freedom widen it by 1 + (z² + 1)/(4 ν). Both factors are equal at
    the 95 % level, z = 1.96, for the ν above. γ² is `SKEWNESS2`. The third moment of the draws of a
    datum cannot replace `SKEWNESS2`, because it is small exactly when the draws miss the tail.

    Args:
        draws: n, at least 1.

    Returns:
        ν; 0 for a single draw, which has no spread.
    """
    return 0.0 if draws == 1 else 1 / (1 / (draws - 1) + 0.9 * SKEWNESS2 / draws)
