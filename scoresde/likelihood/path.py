"""Log-likelihood along a path: cheap to follow, probed at random places, corrected for its error.

The density along the probability-flow ODE dz/dθ = F (see `angle`) obeys, on *any* smooth path
z(θ), be it a solution or not,

    d log p_θ(z(θ))/dθ = −∇·F + s·(z' − F),   s = ∇_z log p_θ

by the continuity equation. Integrated from the data z(θ₀) to the noise z(θ₁),

    log p(z(θ₀)) = log p(z(θ₁)) + ∫ [∇·F − s·(z' − F)] dθ                                    (*)

So the path need not be accurate. A few steps give it, without a single derivative, and the second
term pays for its error with a score that costs nothing, because F is a multiple of it and z. What
is left of the error is (network's score − gradient of the log-density that its ODE has) · (z' − F),
0 for an exact model.

The integral is not done by a solver either but at equally spaced nodes with one random offset for
all, with fresh probes at each. That is unbiased; every probe's noise is averaged with the others';
and as the integrand falls to 0 at both ends, little error comes from where the nodes are
(systematic sampling is a trapezoidal rule of a periodic function). To that end ∇·F is split in
that of a Gaussian, whose integral is known, and the rest:

    ∫ ∇·F dθ + D log n(θ₁)/n(θ₀) = ½ Σ_i log (α² l_i + σ²)|_{t_min}^1 + ∫ (∇·F − ∇·F₀) dθ

with l_i the variances of `control`, or d² for all (d is the scale in `angle`). Rounding apart, no
sample depends on another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from .._tensor import check_integer, check_number, equally_spaced, expand, plain_numbers
from ..evaluation import count_nfe, evaluating, own_context
from ..exact import GaussianMixture
from ..ivp.adams import Path, adams_path
from ..noise import Noise, SampleNoise
from ..score import ScoreModel
from ..sde import Node
from .angle import Angle
from .control import check_control
from .flow import check_points
from .jacobian import flat_rows, linearize
from .node_error import error_of_sum
from .ode import log_prior
from .trace import ExactTrace, Hutchinson, TraceRule

__all__ = ["PathLikelihood", "PathQuadrature", "path_log_likelihood"]


# Dimensions in which an exact trace costs no more than probes, of which signs have few values.
FEW = 3


@dataclass(frozen=True)
class PathQuadrature:
    """How a path is followed and where it is probed; hyper-parameters only.

    Steps and nodes are equally spaced in the variable u of `Angle`. Evaluations: steps + 1 for the
    path, and one with `trace.cost` derivative passes for each node.

    Args:
        steps: Steps of the path, at least 1; its error falls with them.
        nodes: M ≥ 1 nodes; the standard error falls with them. Intervals can be relied upon from
            8 nodes with 2 probes each on, or 16 with 1.
        trace: How ∇·F is found at a node, with fresh probes at each. A rule that knows its own
            error, such as 2 probes, makes better intervals than one that does not. None: 2 probes
            of signs, but the exact trace in 1 to 3 dimensions.
        order: Order of the path's Adams predictor, at least 1.
        scale: d > 0, where they are densest in σ/α: about the geometric mean of the finest scale
            of the data (√(1/12) of a cell, for quantized data) and their standard deviation. None:
            that of `control`, or 0.25 without one.
        spread: κ > 0, the smaller the more steps and nodes at very high and very low noise.
    """

    steps: int = 32
    nodes: int = 12
    trace: TraceRule | None = None
    order: int = 3
    scale: float | None = None
    spread: float = 1 / 6

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("steps", "nodes", "order"):
            check_integer(name, getattr(self, name), minimum=1)
        check_number("spread", self.spread, above=0)
        if self.scale is not None:
            check_number("scale", self.scale, above=0)


@dataclass(frozen=True)
class PathLikelihood:
    """What `path_log_likelihood` returns, and what is needed to repeat it.

    Attributes:
        log_prob: log p(x) in nats at the scale of x, shape (B,), float64.
        std_error: Its standard error in nats from the probes and from where the nodes fell, shape
            (B,), by `error_of_sum`.
        dof: Degrees of freedom behind `std_error`, shape (B,), for Student's t.
        correction: −∫ s·(z' − F) dθ in nats, contained in `log_prob`: what the path's error would
            have done. Shape (B,).
        latent: x at t = 1 of the path, like x; only as accurate as `steps` makes it.
        nfe: Network evaluations per sample, counted.
        nfe_derivative: Derivative passes per sample, counted.
        t_min: Time at which x was put in.
        quadrature: Steps, nodes and trace.
        seed: Seed of nodes and probes; None where a source was given.
    """

    log_prob: Tensor
    std_error: Tensor
    dof: Tensor
    correction: Tensor
    latent: Tensor
    nfe: int
    nfe_derivative: int
    t_min: float
    quadrature: PathQuadrature
    seed: int | None

    def half_width(self, level: float = 0.95) -> Tensor:
        """Half the width of the confidence interval at `level`, in nats, shape (B,)."""
        check_number("level", level, above=0, below=1)
        quantile = stdtrit(self.dof.cpu().numpy(), 0.5 + 0.5 * level)
        return torch.from_numpy(quantile).to(self.std_error) * self.std_error


@own_context()
def path_log_likelihood(
    model: ScoreModel,
    x: Tensor,
    *,
    quadrature: PathQuadrature | None = None,
    t_min: float | None = None,
    control: GaussianMixture | None = None,
    y: Tensor | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    batch: int | None = None,
) -> PathLikelihood:
    """log p(x) of the probability-flow ODE at a fraction of `log_likelihood`'s cost.

    The same number, up to a random error that is estimated per sample (`std_error`) and an error
    of the path, most of which is corrected; `correction` says how much that was. See the module.

    Args:
        model: Score model.
        x: Data at the model's scale, shape (B, *D), float32 or float64.
        quadrature: Steps, nodes and trace; None for the defaults.
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: 1e-5, but not below
            the first discrete label of a network that has such labels (`ScoreModel.t_least`).
        control: A Gaussian near the data (`fit_gaussian`), whose divergence leaves less to the
            nodes.
        y: Integer class labels, shape (B,), which a conditional model needs.
        seed: Integer in [0, 2^64) for nodes and probes; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        batch: Take so many samples at a time; None = all at once.

    Returns:
        The log-likelihoods with their uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If x is not float32 or float64.
        ValueError: On a bad argument, or a model with rounded labels.
        RuntimeError: If the network or its derivative is not finite; the time is named.
    """
    if (seed is None) == (noise is None):
        raise ValueError("exactly one of seed and noise must be given")
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves the one batch it was made for")
    t_min = model.first_time(t_min)
    check_points(model, x)
    size = max(len(x), 1) if batch is None else check_integer("batch", batch, minimum=1)
    if control is not None:
        check_control(control, x)
    quadrature = quadrature or PathQuadrature()
    model = model.labelled(y, len(x), x.device)
    parts = []
    for begin in range(0, max(len(x), 1), size):
        rows = slice(begin, min(begin + size, len(x)))
        source = noise or SampleNoise(seed, range(rows.start, rows.stop))
        estimator = _Estimator(model.take(rows), x[rows], quadrature, t_min, control, source)
        parts.append(estimator.run())
    columns = zip(*(part[:5] for part in parts), strict=True)
    return PathLikelihood(
        *(torch.cat(column) for column in columns),
        nfe=max(part[5] for part in parts),
        nfe_derivative=max(part[6] for part in parts),
        t_min=t_min,
        quadrature=quadrature,
        seed=seed,
    )


class _Estimator:
    """One batch: its path, then its nodes."""

    def __init__(
        self,
        model: ScoreModel,
        x: Tensor,
        quadrature: PathQuadrature,
        t_min: float,
        control: GaussianMixture | None,
        noise: Noise,
    ) -> None:
        self.model, self.x, self.quadrature = model, x, quadrature
        self.control, self.noise = control, noise
        self.dims = math.prod(x.shape[1:])
        default = ExactTrace() if self.dims <= FEW else Hutchinson(probes=2)
        self.rule = quadrature.trace or default
        scale, self.variances = _gaussian(quadrature.scale, control, x)
        self.angle = Angle(model.sde, scale, quadrature.spread, t_min)
        self.first, self.last = self.angle.ends()
        self.u = [self.angle.u(node) for node in (self.first, self.last)]

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int, int]:
        """The fields of `PathLikelihood` that are found per batch."""
        if len(self.x) == 0:
            none = self.x.new_empty(0, dtype=torch.float64)
            return none, none, none, none, self.x, 0, 0
        with evaluating(self.model), count_nfe(self.model) as counted:
            path = self._path()
            traces, errors, corrections = self._probed(path)
        latent = self.angle.scale(self.last) * path.points[-1]
        terms = traces + corrections
        error, dof = error_of_sum(terms, errors, self.dims <= FEW)
        return (
            log_prior(latent, self.model.sde.prior_std) + self._known_integral() + terms.sum(1),
            error,
            dof,
            corrections.sum(1),
            latent.to(self.x.dtype),
            counted.forward,
            counted.derivative,
        )

    def _path(self) -> Path:
        """z(u) from x to t = 1 on `steps` steps."""
        u = equally_spaced(*self.u, self.quadrature.steps + 1)
        nodes = self.model.sde.nodes(self.angle.times(u))
        slopes = self.angle.slope(u).tolist()

        def rate(z: Tensor, i: int) -> Tensor:
            a, b = (slopes[i] * factor for factor in self.angle.factors(nodes[i]))
            point = (self.angle.scale(nodes[i]) * z).to(self.x.dtype)
            return a * z + b * self.model.v(point, nodes[i]).to(z.dtype)

        z = self.x.to(torch.float64) / self.angle.scale(self.first)
        return adams_path(rate, z, u.tolist(), self.quadrature.order)

    def _probed(self, path: Path) -> tuple[Tensor, ...]:
        """Each node's share of ∫ (∇·F − ∇·F₀) dθ, its error, and of −∫ s·(z' − F) dθ.

        All of shape (B, nodes); the integral is over u, θ being a function of it.
        """
        n, (begin, end) = self.quadrature.nodes, self.u
        offset = self.noise.times(self.x).cpu()[:, None]
        width = (end - begin) / n
        u = begin + width * (torch.arange(n, dtype=torch.float64, device="cpu") + offset)
        values = [self._at(path, at) for at in u.T]
        return tuple(width * torch.stack(column, dim=1) for column in zip(*values, strict=True))

    def _at(self, path: Path, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An estimate of ∇·F − ∇·F₀, its standard error, and −s·(z' − F), per u; each (B,)."""
        z, slope = path.at(u.to(self.x.device))
        node = self.model.sde.at(self.angle.times(u), self.x)
        dtheta = expand(self.angle.slope(u).to(self.x.device), z)
        a, b = (dtheta * factor for factor in self.angle.factors(node))
        scale, rule = self.angle.scale(node), self.rule
        x = (scale * z).to(self.x.dtype)
        jacobian = linearize(lambda x: self.model.v(x, node), x, self.model.nfe, node.t)
        v = jacobian.value.to(z.dtype)
        traces = rule.estimate(jacobian, rule.draw(self.noise, x))
        eps = (node.sigma * scale * z + node.alpha * v) / (node.alpha**2 + node.sigma**2)
        residual = slope - a * z - b * v
        score = eps * (-scale / node.sigma)  # ∇_z log p
        factor = (b * scale).flatten()
        return (
            factor * (traces.mean(1) - self._known_trace(node)),
            factor * rule.std_error(traces, self.dims),
            -flat_rows(score * residual).sum(1),
        )

    def _known_trace(self, node: Node) -> Tensor:
        """tr ∂v/∂x of the Gaussian, Σ α σ (1 − l)/(α² l + σ²), shape (B,)."""
        alpha, sigma = node.alpha.reshape(-1, 1), node.sigma.reshape(-1, 1)
        values = alpha * sigma * (1 - self.variances)
        return (values / (alpha**2 * self.variances + sigma**2)).sum(1)

    def _known_integral(self) -> float:
        """½ Σ log (α² l + σ²), from t_min to 1."""
        ends = [n.alpha**2 * self.variances + n.sigma**2 for n in (self.first, self.last)]
        return 0.5 * float(torch.log(ends[1] / ends[0]).sum())


def _gaussian(
    scale: float | None, control: GaussianMixture | None, x: Tensor
) -> tuple[float, Tensor]:
    """The scale d, and the variances, shape (D,), of the Gaussian whose divergence is known."""
    if control is None:
        scale = scale or 0.25
        dims = math.prod(x.shape[1:])
        return scale, x.new_full((dims,), scale**2, dtype=torch.float64)
    variances = control.variances[0].to(x.device)
    # a singular covariance has no finest scale
    finest = max(float(variances.min()), 1e-6 * float(variances.max()))
    return scale or (finest * float(variances.mean())) ** 0.25, variances
