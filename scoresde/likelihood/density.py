"""Ways to find log p(x) by the probability-flow ODE, as objects: what a bound or a budget asks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from .._tensor import plain_numbers
from ..exact import GaussianMixture
from ..noise import Noise
from ..score import ScoreModel
from .ode import Likelihood, log_likelihood
from .path import PathLikelihood, PathQuadrature, path_log_likelihood
from .trace import TraceRule

__all__ = ["OdeDensity", "PathDensity"]


@dataclass(frozen=True)
class PathDensity:
    """`path_log_likelihood` with its arguments.

    Args:
        quadrature: Steps, nodes and trace.
        t_min: First time.
        control: A Gaussian near the data.
    """

    quadrature: PathQuadrature = field(default_factory=PathQuadrature)
    t_min: float = 1e-5
    control: GaussianMixture | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)

    def __call__(self, model: ScoreModel, x: Tensor, noise: Noise) -> PathLikelihood:
        """log p of the points x, shape (B, *D)."""
        return path_log_likelihood(
            model,
            x,
            quadrature=self.quadrature,
            t_min=self.t_min,
            control=self.control,
            noise=noise,
        )

    def refined(self) -> PathDensity:
        """With twice the steps; nodes and probes stay."""
        return replace(self, quadrature=replace(self.quadrature, steps=2 * self.quadrature.steps))


@dataclass(frozen=True)
class OdeDensity:
    """`log_likelihood` with its arguments, see there."""

    t_min: float = 1e-5
    rtol: float = 1e-6
    atol: float = 1e-6
    method: str = "dopri5"
    per_sample: bool = False
    trace: TraceRule | Literal["auto"] = "auto"
    control: GaussianMixture | None = None
    max_nfe: int | None = 10_000
    force: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)

    def __call__(self, model: ScoreModel, x: Tensor, noise: Noise) -> Likelihood:
        """log p of the points x, shape (B, *D)."""
        return log_likelihood(
            model,
            x,
            t_min=self.t_min,
            rtol=self.rtol,
            atol=self.atol,
            method=self.method,
            per_sample=self.per_sample,
            trace=self.trace,
            control=self.control,
            noise=noise,
            max_nfe=self.max_nfe,
            force=self.force,
        )

    def refined(self) -> OdeDensity:
        """With a tenth of the tolerances; the probes stay."""
        return replace(self, rtol=self.rtol / 10, atol=self.atol / 10)
