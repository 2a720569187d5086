"""The error of a sampler on data with known solutions, and its order of convergence.

- "ode": root mean square distance to the solution of the probability-flow ODE, from 49 fixed starts
- "weak": distance of the output's distribution to p_{t_min}, both Gaussian, without Monte Carlo
- "strong": distance along Brownian paths, see `strong`
- "tolerance": the "ode" error of solvers that choose their own steps
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from .._tensor import float64
from ..exact import GaussianMixture
from ..grid import check_grid
from ..noise import SampleNoise
from ..samplers import Sampler
from ..score import ScoreModel, count_nfe
from ..sde import SDE, Node
from .moments import output_moments

__all__ = [
    "OdeProblem",
    "alternating",
    "exact_flow",
    "gaussian",
    "mixture",
    "ode_errors",
    "rms_distance",
    "slope",
    "starts",
    "weak_errors",
]

MEAN, STD = 0.3, 0.5  # mean and standard deviation of the Gaussian data
REFERENCE_TOLERANCE = 1e-12


def mixture(sde: SDE) -> GaussianMixture:
    """The exact model of three correlated Gaussians in the plane: the data of "ode"."""
    means = [[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]]
    covs = [[[0.20, 0.05], [0.05, 0.10]], [[0.08, -0.03], [-0.03, 0.15]], [[0.05, 0], [0, 0.05]]]
    return GaussianMixture(sde, [0.5, 0.3, 0.2], means, covs)


def gaussian(sde: SDE) -> GaussianMixture:
    """The exact model of N(0.3, 0.5²): the data of "weak" and "strong"."""
    return GaussianMixture(sde, [1.0], [[MEAN]], [STD**2])


def starts(sde: SDE) -> Tensor:
    """49 fixed x_T: prior_std times the 7 × 7 grid of normal quantiles at (i − 1/2)/7."""
    q = float64([NormalDist().inv_cdf((i + 0.5) / 7) for i in range(7)])
    return torch.cartesian_prod(q, q) * sde.prior_std


def alternating(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """A grid with steps h, 3h, h, 3h, ... in λ: it reveals a wrong treatment of step ratios.

    On smooth grids the ratio of neighbouring steps tends to 1 as N grows, so that a method that
    assumes the ratio 1 keeps its order there. Arguments as for `scoresde.grid.uniform`.
    """
    t_max = sde.t_regular if t_max is None else t_max
    first, last = sde.nodes([t_max, t_min])
    lengths = float64([1.0, 3.0]).repeat((steps + 1) // 2)[:steps]
    inner = first.lam + (last.lam - first.lam) * lengths.cumsum(0)[:-1] / lengths.sum()
    return check_grid([t_max, *sde.t_of_lam(inner).tolist(), t_min])


def exact_flow(model: ScoreModel, x: Tensor, t_min: float) -> Tensor:
    """The probability-flow ODE's solution at t_min from x at its start, by SciPy's DOP853 at 1e-12.

    The start is t = 1, or λ = −6 under an SDE with α(1) = 0 (`SDE.t_regular`).

    It is solved in λ, where d(x/α)/dλ = −(σ/α) ε. This form uses neither f and g nor a sampler.

    Args:
        model: An exact model.
        x: States at the start, shape (B, *D), float64.
        t_min: Last time.

    Raises:
        RuntimeError: If the solver gives up.
    """
    first, last = model.sde.nodes([model.sde.t_regular, t_min])

    def rhs(lam: float, y: Tensor) -> Tensor:
        node = Node(0.0, 1.0, math.exp(-lam), lam, 0.0, 0.0, 0.0, 0.0)
        eps = model.eps(torch.from_numpy(y).reshape(x.shape), node)
        return (-node.sigma * eps).flatten().numpy()

    begin = (x / first.alpha).flatten().numpy()
    tolerances = {"rtol": REFERENCE_TOLERANCE, "atol": REFERENCE_TOLERANCE}
    with torch.no_grad():
        solution = solve_ivp(rhs, (first.lam, last.lam), begin, "DOP853", **tolerances)
    if not solution.success:
        raise RuntimeError(f"no reference solution: {solution.message}; try a larger t_min")
    return torch.from_numpy(solution.y[:, -1]).reshape(x.shape) * last.alpha


def rms_distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over the batch of the Euclidean distance."""
    return math.sqrt(float((a - b).flatten(1).square().sum(1).mean()))


def slope(steps: Sequence[float], errors: Sequence[float]) -> float:
    """The observed order: minus the least-squares slope of log error against log N.

    NaN if an error is 0 or not finite.
    """
    if not all(0 < error < math.inf for error in errors):
        return math.nan
    n, e = float64(steps).log(), float64(errors).log()
    n = n - n.mean()
    return -float((n * e).sum() / n.square().sum())


@dataclass(frozen=True, eq=False)
class OdeProblem:
    """The probability-flow ODE from some starting points, with its solution.

    Attributes:
        model: Score model.
        start: States at t = 1, shape (B, *D), float64.
        t_min: Last time.
        solve: The reference solver, called with (model, start, t_min).
    """

    model: ScoreModel
    start: Tensor
    t_min: float
    solve: Callable[[ScoreModel, Tensor, float], Tensor] = exact_flow

    @cached_property
    def exact(self) -> Tensor:
        """The solution at t_min, like `start`. It is expensive, so it is computed only once."""
        return self.solve(self.model, self.start, self.t_min)


@torch.no_grad()
def ode_errors(
    problem: OdeProblem, runs: Iterable[tuple[Sampler, Tensor]]
) -> tuple[list[float], list[int]]:
    """Distance to the exact end points, and NFE, of deterministic samplers.

    Args:
        problem: The ODE.
        runs: Samplers, each with its time grid from 1 to the problem's t_min.
    """
    errors, nfe = [], []
    for sampler, ts in runs:
        with count_nfe(problem.model) as counted:
            # a deterministic sampler draws no noise; the seed would make any draw repeatable
            noise = SampleNoise(0, range(len(problem.start)))
            end = sampler.run(problem.model, problem.start, ts, noise).state
        errors.append(rms_distance(end, problem.exact))
        nfe.append(counted.forward)
    return errors, nfe


def weak_errors(sde: SDE, sampler: Sampler, grids: Sequence[Tensor]) -> list[float]:
    """2-Wasserstein distance of the output to p_{t_min} on each grid, exact for Gaussian data.

        √((m − m')² + (s − s')²),   m and s the mean and standard deviation

    The sampler starts from p_1, so that the distance is the bias of its steps alone.

    Args:
        sde: The SDE.
        sampler: A sampler that `output_moments` accepts.
        grids: Time grids.
    """
    errors = []
    for ts in grids:
        (mean, std), goal = _marginal(sde, float(ts[0])), _marginal(sde, float(ts[-1]))
        got = output_moments(gaussian(sde), sampler, ts, mean, std)
        errors.append(math.dist(got, goal))
    return errors


def _marginal(sde: SDE, t: float) -> tuple[float, float]:
    """Mean and standard deviation of p_t."""
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return MEAN * alpha, math.hypot(STD * alpha, sigma)
