"""`Path`: log p(x) by an integral along a cheap path, with a correction for the path's error.

Let dz/dθ = F be the probability-flow ODE (see `angle`). By the continuity equation its density
obeys, on *any* smooth path z(θ), even one that does not solve the ODE,

    d log p_θ(z(θ))/dθ = −∇·F + s·(z' − F),   s = ∇_z log p_θ

The integral from the data z(θ₀) to the noise z(θ₁) is

    log p(z(θ₀)) = log p(z(θ₁)) + ∫ [∇·F − s·(z' − F)] dθ                                    (*)

So the path need not be accurate: a few steps without any derivative pass are enough. The second
term corrects for the error of the path. Its score costs no evaluation, because F is a linear
combination of the score and z. The remaining error is the integral of (the network's score − the
gradient of the log-density of its ODE) · (z' − F); it is 0 for an exact model.

The integral is computed as a sum over equally spaced nodes. All nodes share one random offset, and
each node has fresh probes. The sum is unbiased, and the noise of the probes averages out. If the
integrand falls to 0 at both ends, the positions of the nodes add little error: systematic sampling
is then the trapezoidal rule for a periodic function. For this reason ∇·F is split into the
divergence ∇·F₀ of a Gaussian, whose integral is known, and the rest:

    ∫ ∇·F dθ + D log n(θ₁)/n(θ₀) = ½ Σ_i log (α² l_i + σ²)|_{t_min}^1 + ∫ (∇·F − ∇·F₀) dθ

with l_i the variances of `control`, or l_i = d² without one (d is the scale in `angle`). Samples
depend on one another only through rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..._deferred import checked_at_end
from ..._tensor import check_integer, check_number, equally_spaced, expand, plain_numbers
from ...batches import Batch
from ...evaluation import count_nfe, evaluating
from ...exact import GaussianMixture
from ...ivp.adams import HermiteCurve, adams_path
from ...noise import Noise
from ...score import ScoreModel
from ...score.recomputing import recomputed
from ...score.sets import only_present, present_rows
from ...sde import Node
from ..flow import check_points, end_std, log_prior
from ..method import Likelihood, LikelihoodMethod
from ..trace.jacobian import flat_rows, linearize
from ..trace.names import as_trace
from ..trace.rules import ExactTrace, Hutchinson, TraceRule
from .angle import Angle
from .node_error import error_of_sum

__all__ = ["Path"]

# Up to this many dimensions an exact trace costs about as much as 2 probes, and sign probes take
# only a few values.
FEW_DIMENSIONS = 3

# κ at which dθ/du ∝ (y (1 − y))^{½ − κ} is still finite at y = 1, where α = 0.
MOST_SPREAD_IN_NOISE = 0.5


@dataclass(frozen=True)
class Path(LikelihoodMethod):
    """log p(x) of the probability-flow ODE at a fraction of the cost of `Ode`; see the module.

        log p(x) = log N(x(1); 0, prior_std² I) + ½ Σ_i log (α² l_i + σ²)|_{t_min}^1
                   + ∫ [∇·F − ∇·F₀ − s·(z' − F)] dθ

    The path ends at t = 1, also if α(1) = 0, or at λ = −6 there for a network that is not regular
    at t = 1 (`ScoreModel.t_most`), with `sde.start_std` in place of prior_std.

    The value equals that of `Ode` up to two errors: a random error, which `error_of_sum` estimates
    for each sample, and the error of the path, most of which is corrected. The latent is not
    corrected; its accuracy depends on `steps`.

    Steps and nodes are equally spaced in the variable u of `Angle`. Evaluations: steps + 1 for the
    path, and one with `trace.cost` derivative passes for each node.

    Args:
        steps: Steps of the path, at least 1; more steps make its error smaller.
        nodes: M ≥ 1 nodes; more nodes make the standard error smaller. Intervals are reliable from
            8 nodes with 2 probes each, or 16 nodes with 1 probe.
        trace: How ∇·F is estimated at a node, a rule or its text. A rule that gives its own
            standard error, such as 2 probes, makes better intervals than a rule without one.
            "auto": 2 sign probes, but the exact trace in 1 to 3 dimensions.
        order: Order of the path's Adams predictor, at least 1.
        scale: d > 0; steps and nodes are densest where σ/α is near d. A good value is the geometric
            mean of the finest scale of the data (√(1/12) of a cell, for quantized data) and their
            standard deviation. None: this mean for `control`, or 0.25 without a control.
        spread: κ > 0, at most ½ if α(1) = 0; a smaller κ puts more steps and nodes at very high and
            very low noise.
        control: A Gaussian near the data (`fit_gaussian`), whose divergence is ∇·F₀.
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: 1e-5, but not below
            the first discrete label of a network that has such labels (`ScoreModel.t_least`).

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If one is out of range, or a text names no trace rule.
    """

    steps: int = 32
    nodes: int = 12
    trace: TraceRule | str = "auto"
    order: int = 3
    scale: float | None = None
    spread: float = 1 / 6
    control: GaussianMixture | None = None
    t_min: float | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("steps", "nodes", "order"):
            check_integer(name, getattr(self, name), minimum=1)
        check_number("spread", self.spread, above=0)
        if self.scale is not None:
            check_number("scale", self.scale, above=0)
        object.__setattr__(self, "trace", as_trace(self.trace))

    @property
    def differentiable(self) -> bool:
        """Yes."""
        return True

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse points, controls and times that do not fit."""
        check_points(model, x, self.control)
        if model.guided:
            raise ValueError(
                "model must be the score of a density for Path, whose correction uses it, got a "
                "guided one; use Ode(), which gives the density of the guided ODE"
            )
        model.first_time(self.t_min)
        if self.spread > MOST_SPREAD_IN_NOISE and model.t_most == 1 and model.sde.ends_in_noise:
            raise ValueError(
                f"spread must be at most {MOST_SPREAD_IN_NOISE} for {type(model.sde).__name__}, "
                f"got {self.spread}: dθ/du is infinite at t = 1 for a larger one"
            )

    def refined(self) -> Path:
        """The method with twice the steps; nodes and probes stay."""
        return replace(self, steps=2 * self.steps)

    def estimate(self, batch: Batch, x: Tensor) -> Likelihood:
        """log p of one batch: the path first, then its nodes."""
        model, few = batch.model, math.prod(x.shape[1:]) <= FEW_DIMENSIONS
        rule, t_min = self._rule(few), model.first_time(self.t_min)
        scale, variances = self._gaussian(x)
        angle = Angle(model.sde, scale, self.spread, t_min, model.t_most)
        if len(x) == 0:
            none = x.new_empty(0, dtype=torch.float64)
            used = replace(self, trace=rule)
            return Likelihood(none, none, none, none, 0, 0, t_min, used, latent=x)
        with evaluating(model), count_nfe(model) as counted, checked_at_end():
            curve = self._curve(model, x, angle)
            integrand = _Integrand(model, x, angle, curve, variances, rule)
            divergences, errors, corrections = self._terms(integrand, batch.noise)
        first, last = angle.ends()
        latent = angle.scale(last) * curve.points[-1]
        terms = divergences + corrections
        std_error, dof = error_of_sum(terms, errors, few)
        prior = log_prior(latent, end_std(model), model)
        known = prior + _known_integral(variances, first, last, present_rows(model, x))
        return Likelihood(
            log_prob=known + terms.sum(1),
            std_error=std_error.detach(),
            dof=dof.detach(),
            correction=corrections.sum(1).detach(),
            latent=latent.to(x.dtype),
            nfe=counted.forward,
            nfe_derivative=counted.derivative,
            t_min=t_min,
            method=replace(self, trace=rule),
            t_max=model.t_most,
        )

    def _rule(self, few: bool) -> TraceRule:
        if self.trace == "auto":
            return ExactTrace() if few else Hutchinson(probes=2)
        return self.trace

    def _gaussian(self, x: Tensor) -> tuple[float, Tensor]:
        """The scale d, and the variances l of the Gaussian whose divergence is known, (D,)."""
        if self.control is None:
            scale = self.scale or 0.25
            dims = math.prod(x.shape[1:])
            return scale, x.new_full((dims,), scale**2, dtype=torch.float64)
        variances = self.control.variances[0].to(x.device)
        # the finest scale of a singular covariance would be 0
        finest = max(float(variances.min()), 1e-6 * float(variances.max()))
        return self.scale or (finest * float(variances.mean())) ** 0.25, variances

    def _curve(self, model: ScoreModel, x: Tensor, angle: Angle) -> HermiteCurve:
        """z(u) from x to t = 1."""
        u = equally_spaced(*angle.interval(), self.steps + 1)
        nodes = model.sde.nodes(angle.times(u))
        slopes = angle.slope(u).tolist()

        def rate(z: Tensor, i: int) -> Tensor:
            a, b = (slopes[i] * factor for factor in angle.factors(nodes[i]))
            point = (angle.scale(nodes[i]) * z).to(x.dtype)
            return a * z + b * only_present(model, model.v(point, nodes[i])).to(z.dtype)

        z = x.to(torch.float64) / angle.scale(angle.ends()[0])
        return adams_path(rate, z, u.tolist(), self.order)

    def _terms(self, integrand: _Integrand, noise: Noise) -> tuple[Tensor, ...]:
        """The three terms of `_Integrand.at`, times du, at each node; each (B, nodes)."""
        begin, end = integrand.angle.interval()
        offset = noise.times(integrand.x).cpu()[:, None]
        width = (end - begin) / self.nodes
        places = torch.arange(self.nodes, dtype=torch.float64, device="cpu")
        u = begin + width * (places + offset)
        values = [integrand.at(at, noise) for at in u.T]
        return tuple(width * torch.stack(column, dim=1) for column in zip(*values, strict=True))


@dataclass(frozen=True)
class _Integrand:
    """The integrand of (*) over u on the curves of a batch of data x."""

    model: ScoreModel
    x: Tensor
    angle: Angle
    curve: HermiteCurve
    variances: Tensor
    rule: TraceRule

    @property
    def present(self) -> Tensor | None:
        """Which numbers of sets exist, (B, D)."""
        return present_rows(self.model, self.x)

    def at(self, u: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """An estimate of ∇·F − ∇·F₀, its standard error, and −s·(z' − F), per u; each (B,).

        Args:
            u: u of each sample, shape (B,).
            noise: Source of the probes.
        """
        z, slope = self.curve.at(u.to(self.x.device, non_blocking=True))
        node = self.model.sde.at(self.angle.times(u), self.x)
        dtheta = expand(self.angle.slope(u).to(self.x.device, non_blocking=True), z)
        a, b = (dtheta * factor for factor in self.angle.factors(node))
        scale, rule = self.angle.scale(node), self.rule
        x = (scale * z).to(self.x.dtype)
        probes = rule.draw(noise, x)

        def evaluated(model: ScoreModel, x: Tensor) -> tuple[Tensor, Tensor]:
            second = torch.is_grad_enabled()
            jacobian = linearize(_v(model, node), x, model.nfe, node.t, second)
            return jacobian.value, rule.estimate(jacobian, probes)

        v, traces = recomputed(evaluated, self.model, x)
        v = v.to(z.dtype)
        eps = (node.sigma * scale * z + node.alpha * v) / (node.alpha**2 + node.sigma**2)
        residual = slope - a * z - b * v
        score = eps * (-scale / node.sigma)  # ∇_z log p
        factor = (b * scale).flatten()
        return (
            factor * (traces.mean(1) - _known_trace(self.variances, node, self.present)),
            factor * rule.std_error(traces, len(self.variances)),
            -flat_rows(score * residual).sum(1),
        )


def _v(model: ScoreModel, node: Node) -> Callable[[Tensor], Tensor]:
    """v(x, t), which is 0 at the padding of sets."""
    return lambda x: only_present(model, model.v(x, node))


def _known_trace(variances: Tensor, node: Node, present: Tensor | None) -> Tensor:
    """tr ∂v/∂x of the Gaussian, Σ α σ (1 − l)/(α² l + σ²), over numbers that exist, shape (B,)."""
    alpha, sigma = node.alpha.reshape(-1, 1), node.sigma.reshape(-1, 1)
    terms = alpha * sigma * (1 - variances) / (alpha**2 * variances + sigma**2)
    return (terms if present is None else terms * present).sum(1)


def _known_integral(
    variances: Tensor, first: Node, last: Node, present: Tensor | None
) -> float | Tensor:
    """½ Σ log (α² l + σ²), from t_min to 1, over numbers that exist; shape (B,) for sets."""
    ends = [node.alpha**2 * variances + node.sigma**2 for node in (first, last)]
    terms = torch.log(ends[1] / ends[0])
    return 0.5 * (float(terms.sum()) if present is None else (terms * present).sum(1))
