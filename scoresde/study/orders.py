"""How fast a sampler's error falls with its steps, on data whose solutions are known.

- "ode": root mean square distance to the probability-flow ODE's solution, from 49 fixed starts
- "weak": distance between Gaussians, that of the output and p_{t_min}: no Monte Carlo
- "strong": distance along Brownian paths, see `strong`
- "tolerance": that of "ode", of solvers that choose their own steps
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ..exact import GaussianMixture
from ..grid import check_grid
from ..noise import SampleNoise
from ..samplers import Sampler
from ..score import ScoreModel, count_nfe
from ..sde import SDE, Node
from .moments import output_moments

__all__ = [
    "Grid",
    "alternating",
    "exact_flow",
    "gaussian",
    "mixture",
    "ode_errors",
    "rms_distance",
    "slope",
    "starts",
    "tolerance_errors",
    "weak_errors",
]

Grid = Callable[..., Tensor]

MEAN, STD = 0.3, 0.5  # of the Gaussian data
REFERENCE_TOLERANCE = 1e-12


def mixture(sde: SDE) -> GaussianMixture:
    """The exact model of three correlated Gaussians in the plane: the data of "ode"."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = [[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]]
    covs = [[[0.20, 0.05], [0.05, 0.10]], [[0.08, -0.03], [-0.03, 0.15]], [[0.05, 0], [0, 0.05]]]
    return GaussianMixture(
        sde,
        weights,
        torch.tensor(means, dtype=torch.float64),
        torch.tensor(covs, dtype=torch.float64),
    )


def gaussian(sde: SDE) -> GaussianMixture:
    """The exact model of N(0.3, 0.5²): the data of "weak" and "strong"."""
    return GaussianMixture(sde, [1.0], [[MEAN]], [STD**2])


def starts(sde: SDE) -> Tensor:
    """49 fixed x_T: prior_std times the 7 × 7 grid of normal quantiles at (i − 1/2)/7."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / 7) for i in range(7)]
    q = torch.tensor(quantiles, dtype=torch.float64)
    return torch.cartesian_prod(q, q) * sde.prior_std


def alternating(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """A grid whose steps in λ are h, 3h, h, 3h, ...: it finds out a wrong ratio of steps.

    On smooth grids neighbouring steps become equal as N grows, and the ratio 1 is as good.
    Arguments as for `scoresde.grid.uniform`.
    """
    first, last = sde.nodes([t_max, t_min])
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat((steps + 1) // 2)[:steps]
    inner = first.lam + (last.lam - first.lam) * lengths.cumsum(0)[:-1] / lengths.sum()
    return check_grid([t_max, *sde.t_of_lam(inner).tolist(), t_min])


def exact_flow(model: ScoreModel, x: Tensor, t_min: float) -> Tensor:
    """The probability-flow ODE's solution at t_min from x at t = 1, by SciPy's DOP853 at 1e-12.

    Solved in λ, where d(x/α)/dλ = −(σ/α) ε: this knows nothing of f and g, nor of any sampler.

    Args:
        model: An exact model.
        x: States at t = 1, shape (B, *D), float64.
        t_min: Last time.

    Raises:
        RuntimeError: If the solver gives up.
    """
    first, last = model.sde.nodes([1.0, t_min])

    def rhs(lam: float, y: Tensor) -> Tensor:
        node = Node(0.0, 1.0, math.exp(-lam), lam, 0.0, 0.0)
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
    n, e = (torch.tensor(v, dtype=torch.float64).log() for v in (steps, errors))
    n = n - n.mean()
    return -float((n * e).sum() / n.square().sum())


@torch.no_grad()
def ode_errors(
    model: ScoreModel,
    sampler: Sampler,
    grids: Sequence[Tensor],
    start: Tensor,
    exact: Tensor,
) -> tuple[list[float], list[int]]:
    """Distance of a deterministic sampler's ends to the exact ones, and NFE, for each grid.

    Args:
        model: Score model.
        sampler: The sampler.
        grids: Time grids of one range.
        start: States at their first time, shape (B, *D).
        exact: The exact states at their last time, like `start`.
    """
    errors, nfe = [], []
    for ts in grids:
        with count_nfe(model) as counted:
            # a deterministic sampler asks for no noise; one that did would still be repeatable
            noise = SampleNoise(0, range(len(start)))
            end = sampler.run(model, start, ts, noise).state
        errors.append(rms_distance(end, exact))
        nfe.append(counted.forward)
    return errors, nfe


def tolerance_errors(
    model: ScoreModel,
    sampler: Sampler,
    tolerances: Sequence[float],
    ts: Tensor,
    start: Tensor,
    exact: Tensor,
) -> tuple[list[float], list[int]]:
    """`ode_errors` of an adaptive sampler at rtol = atol = each tolerance; ts are the ends."""
    errors, nfe = [], []
    for tolerance in tolerances:
        tuned = replace(sampler, rtol=tolerance, atol=tolerance)
        error, evaluations = ode_errors(model, tuned, [ts], start, exact)
        errors += error
        nfe += evaluations
    return errors, nfe


def weak_errors(sde: SDE, sampler: Sampler, grids: Sequence[Tensor]) -> list[float]:
    """2-Wasserstein distance of the output to p_{t_min}, both Gaussian, for each grid.

    For Gaussian data √((m − m')² + (s − s')²), exact; started from p_1 itself, so that the steps'
    own bias is all there is.

    Args:
        sde: The SDE.
        sampler: A sampler that `output_moments` can serve.
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
