"""The problem on which samplers are compared: a model, x_T, and the ODE's solution from x_T."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.score import ScoreModel
from scoresde.sde import VP, Node, TabulatedVP

__all__ = [
    "BORROWED",
    "LEVELS",
    "Levels",
    "PairedProblem",
    "Setting",
    "mixture",
    "network",
    "rmse",
    "solve",
]

LEVELS = 1000

OURS = "scoresde"
# Library name for settings that combine a peer's sampler with our grids.
BORROWED = "peers, our grids"


@dataclass(frozen=True)
class Setting:
    """One sampler with its parameters.

    Attributes:
        library: Library of the sampler.
        family: Name of the sampler in the library.
        label: Parameters as text.
        solve: Maps (levels, x_T, evaluations) to x_0; None if so few evaluations are impossible.
    """

    library: str
    family: str
    label: str
    solve: Callable[[Levels, Tensor, int], Tensor | None]


class Levels:
    """A model's noise levels as a discrete table.

    Attributes:
        model: The model, under a variance-preserving SDE.
        dtype: Dtype of the model.
        betas: β_1..β_L whose ᾱ_i are the SDE's α² at t = i/L.
    """

    def __init__(self, model: ScoreModel, dtype: torch.dtype) -> None:
        self.model, self.dtype, sde = model, dtype, model.sde
        ts = torch.arange(1, LEVELS + 1, dtype=torch.float64) / LEVELS
        alpha_bar = torch.exp(2 * sde.log_alpha(ts))
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        self.betas = (1 - alpha_bar / before).tolist()
        self.lam = sde.lam(ts)
        self.at_lam = cache(self._at_lam)

    @property
    def top(self) -> Node:
        """The node of t = 1."""
        return self.at_index(LEVELS - 1)

    def at_index(self, index: float) -> Node:
        """The node of a time label, which may lie between two indices."""
        low = min(max(int(index), 0), LEVELS - 2)
        return self.at_lam(float(torch.lerp(*self.lam[low : low + 2], index - low)))

    def _at_lam(self, lam: float) -> Node:
        t = self.model.sde.t_of_lam(torch.tensor([lam], dtype=torch.float64))
        return self.model.sde.nodes(t.clamp(max=1))[0]


@dataclass(frozen=True)
class PairedProblem:
    """A model, starting points, and the exact solution from these points.

    Attributes:
        levels: The model, and its noise levels in the form that the peers use.
        x: States at t = 1, shape (n, *D).
        exact: The solution of the ODE at σ = 0, like x.
        error: Estimate of the error of `exact`, in the same unit as the results.
    """

    levels: Levels
    x: Tensor
    exact: Tensor
    error: float


def mixture(seed: int, n: int, tolerance: float = 1e-10) -> PairedProblem:
    """The random mixture that `samplers.py` describes, with n starting points."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k, d = 8, 16
    weights = 0.5 + torch.special.ndtr(draw(k))
    a = draw(k, d, d)
    covs = a @ a.mT / 64 + 0.01 * torch.eye(d, dtype=torch.float64)
    sde = TabulatedVP(tuple(VP().ddpm_betas(LEVELS).tolist()))
    model = GaussianMixture(sde, weights / weights.sum(), draw(k, d), covs)
    return _problem(model, draw(n, d), tolerance)


def network(name: str, seed: int, n: int, tolerance: float = 1e-6) -> PairedProblem:
    """A checkpoint under a variance-preserving SDE, with n starting points."""
    checkpoint = scoresde.load(name)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *checkpoint.data.shape, generator=generator)
    return _problem(checkpoint.model.eval(), x, tolerance)


@torch.no_grad()
def _problem(model: ScoreModel, x: Tensor, tolerance: float) -> PairedProblem:
    levels = Levels(model, x.dtype)
    exact = solve(levels, x, tolerance)
    return PairedProblem(levels, x, exact, rmse(solve(levels, x, 10 * tolerance), exact))


def solve(levels: Levels, x: Tensor, tolerance: float) -> Tensor:
    """The probability-flow ODE from t = 1 to σ/α = 1e-4, and x0 there; float64.

    Solved by SciPy's DOP853 in u = arsinh(10 σ/α), where d(x/α)/du = ε d(σ/α)/du. The solver shares
    neither formulas nor code with the samplers. The last part, below σ/α = 1e-4, is of the order of
    1e-8.
    """

    def field(u: float, state: object) -> object:
        node = levels.at_lam(-math.log(0.1 * math.sinh(u)))
        x_t = node.alpha * torch.as_tensor(state).reshape(x.shape).to(x.dtype)
        return (levels.model.eps(x_t, node) * 0.1 * math.cosh(u)).double().flatten().numpy()

    top = levels.top
    ends = [math.asinh(10 * s) for s in (top.sigma / top.alpha, 1e-4)]
    start = (x.double() / top.alpha).flatten().numpy()
    solution = solve_ivp(field, ends, start, "DOP853", rtol=tolerance, atol=tolerance)
    if not solution.success:
        raise RuntimeError(f"the reference failed: {solution.message}; loosen the tolerance")
    last = levels.at_lam(-math.log(1e-4))
    end = torch.from_numpy(solution.y[:, -1]).reshape(x.shape) * last.alpha
    return levels.model.x0(end.to(x.dtype), last).double()


def rmse(x: Tensor, exact: Tensor) -> float:
    """√(mean over samples and coordinates of (x − exact)²)."""
    return float((x.double() - exact).square().mean().sqrt())
