"""Runge–Kutta methods for the probability-flow ODE, in t, λ or σ/α, on the grid's steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor

from .._tensor import check_choice, float64
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from ..sde import SDE, Node
from .base import GridSampler

__all__ = ["RungeKutta"]

_StageNodes = dict[float, list[Node]]  # of the step from each t


class _Tableau(NamedTuple):
    """Butcher's tableau: stage i is at c[i] of the step, at x + h Σ_j a[i][j] rate_j."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


_TABLEAUS = {
    "euler": _Tableau((0,), ((),), (1,)),
    "midpoint": _Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun2": _Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "heun3": _Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "rk4": _Tableau(
        (0, 1 / 2, 1 / 2, 1),
        ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}


@dataclass(frozen=True)
class RungeKutta(GridSampler):
    """A classical Runge–Kutta method for the probability-flow ODE in one of its variables.

        variable      ODE
        "t"           dx/dt = f x + g²/(2σ) ε, or α′ x0 + σ′ ε if α(1) = 0
        "lam"         d(x/α)/dλ = −(σ/α) ε
        "sigma"       d(x/α)/d(σ/α) = ε

        method        order and NFE per step
        "euler"       1
        "midpoint"    2
        "heun2"       2
        "heun3"       3
        "rk4"         4

    Deterministic. In σ/α "euler" is DDIM and "heun2" is EDM's sampler. Song et al. 2021,
    arXiv:2011.13456, eq. (13); Karras et al. 2022, arXiv:2206.00364, eq. (1); the methods are in
    Hairer, Nørsett and Wanner, "Solving Ordinary Differential Equations I", section II.1.

    Args:
        method: One of the above.
        variable: "t", "lam" or "sigma", as above.

    Raises:
        ValueError: If method or variable is unknown.
    """

    method: str = "rk4"
    variable: Literal["t", "lam", "sigma"] = "t"

    def __post_init__(self) -> None:
        check_choice("method", self.method, _TABLEAUS)
        check_choice("variable", self.variable, ("t", "lam", "sigma"))

    @property
    def starts_in_noise(self) -> bool:
        """Whether the variable is t: the other two are infinite where α = 0."""
        return self.variable == "t"

    @property
    def off_grid(self) -> bool:
        """Whether a stage lies inside a step."""
        return any(0 < c < 1 for c in _TABLEAUS[self.method].c)

    def start(self, sde: SDE, nodes: list[Node]) -> _StageNodes:
        """The nodes of the stages of the step from each t."""
        c = _TABLEAUS[self.method].c
        inside = [
            self._between(t, s, part) for t, s in pairwise(nodes) for part in c if 0 < part < 1
        ]
        times = float64(inside)
        if self.variable != "t":
            times = sde.t_of_lam(times)
        between = iter(sde.nodes(times))
        return {
            t.t: [{0: t, 1: s}[part] if part in (0, 1) else next(between) for part in c]
            for t, s in pairwise(nodes)
        }

    def _between(self, t: Node, s: Node, part: float) -> float:
        """The time at a part of the step; its λ if the variable is not t."""
        begin, end = self._variable(t), self._variable(s)
        u = begin + part * (end - begin)
        return -math.log(u) if self.variable == "sigma" else u

    def _variable(self, node: Node) -> float:
        if self.variable == "t":
            return node.t
        return node.lam if self.variable == "lam" else math.exp(-node.lam)

    def _rate(self, model: ScoreModel, x: Tensor, node: Node) -> Tensor:
        """The right-hand side at x."""
        if self.variable == "t":
            return reverse_drift(model, x, node, eta=0.0)
        eps = model.eps(x, node)
        return eps if self.variable == "sigma" else eps * -math.exp(-node.lam)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _StageNodes, noise: Noise
    ) -> tuple[Tensor, _StageNodes]:
        """One step; x of shape (B, *D)."""
        _, a, b = _TABLEAUS[self.method]
        h = self._variable(s) - self._variable(t)
        rates: list[Tensor] = []

        def reach(node: Node, weights: tuple[float, ...]) -> Tensor:
            """x at a node: x (or x/α) plus h Σ weights rates."""
            scale = 1.0 if self.variable == "t" else node.alpha
            moved = x * (1.0 if self.variable == "t" else node.alpha / t.alpha)
            for weight, rate in zip(weights, rates, strict=True):
                if weight:
                    moved.add_(rate, alpha=scale * h * weight)
            return moved

        for node, weights in zip(state[t.t], a, strict=True):
            rates.append(self._rate(model, reach(node, weights) if rates else x, node))
        return reach(s, b), state
