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
from scoresde.score import ScoreModel, Time
from scoresde.sde import VE, VP, Node, TabulatedVP

__all__ = [
    "BORROWED",
    "LEVELS",
    "Levels",
    "OURS",
    "RECOMMENDED",
    "PairedProblem",
    "Setting",
    "mixture",
    "network",
    "rmse",
    "solve",
]

LEVELS = 1000

OURS = "scoresde"
# Library name of `scoresde.sample` without any setting but the number of evaluations.
RECOMMENDED = "recommended"
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
        model: The model as its owner has it, under any SDE. It has the probability-flow ODE of
            `levels.model` in x/√(α² + σ²).
    """

    levels: Levels
    x: Tensor
    exact: Tensor
    error: float
    model: ScoreModel


def mixture(
    seed: int, n: int, dim: int = 16, std: float = 1.0, ve: bool = False, tolerance: float = 1e-10
) -> PairedProblem:
    """The random mixture that `samplers.py` describes, with n starting points."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    k = 8
    weights = 0.5 + torch.special.ndtr(draw(k))
    a = draw(k, dim, dim)
    covs = a @ a.mT / (4 * dim) + 0.01 * torch.eye(dim, dtype=torch.float64)
    means = draw(k, dim)
    sde = VE(0.01, 50.0) if ve else TabulatedVP(tuple(VP().ddpm_betas(LEVELS).tolist()))
    model = GaussianMixture(sde, weights / weights.sum(), std * means, std**2 * covs)
    return _problem(model, draw(n, dim), tolerance)


def network(name: str, seed: int, n: int, tolerance: float = 1e-6) -> PairedProblem:
    """A checkpoint, with n starting points."""
    checkpoint = scoresde.load(name)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *checkpoint.data.shape, generator=generator)
    return _problem(checkpoint.model.eval(), x, tolerance)


class _AsVP(ScoreModel):
    """A model of any SDE under the linear VP whose largest σ/α is the same."""

    def __init__(self, model: ScoreModel) -> None:
        top = model.sde.nodes([1.0])[0]
        # ∫β dt = log(1 + (σ/α)²) at t = 1, and ∫β dt = (beta_min + beta_max)/2
        super().__init__(VP(0.1, 2 * math.log1p((top.sigma / top.alpha) ** 2) - 0.1))
        self.model = model

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The model's ε at equal σ/α."""
        node, sde = self.sde.at(t, x), self.model.sde
        self.nfe.add_forward(node.t)
        lam = torch.tensor([node.lam], dtype=torch.float64)
        own = sde.nodes(sde.t_of_lam(lam).clamp(0, 1))[0]
        return self.model.eps(x * (own.alpha / node.alpha), own)


@torch.no_grad()
def _problem(model: ScoreModel, x: Tensor, tolerance: float) -> PairedProblem:
    preserving = isinstance(model.sde, (VP, TabulatedVP))
    levels = Levels(model if preserving else _AsVP(model), x.dtype)
    exact = solve(levels, x, tolerance)
    error = rmse(solve(levels, x, 10 * tolerance), exact)
    return PairedProblem(levels, x, exact, error, model)


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
