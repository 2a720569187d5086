"""Exponential Adams–Bashforth methods: DEIS, iPNDM and their relatives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch

from .._tensor import check_choice, check_integer, plain_numbers
from ..sde import SDE, Node
from .multistep import LinearMultistep, StepWeights
from .weights import Prediction, interval, lagrange_weights, phi, step_orders

__all__ = ["IPNDM", "ExponentialAB"]


@dataclass(frozen=True)
class ExponentialAB(LinearMultistep):
    """Exponential Adams–Bashforth: the polynomial through the last outputs is integrated.

        x_s = carry x_t + gain Σ_j m_j ∫_{λ_t}^{λ_s} e^{−rate (λ_s − λ)} ℓ_j(u(λ)) dλ

    carry, gain and rate are those of `interval`. The m_j are the last `order` outputs, and ℓ_j is
    the polynomial of degree order − 1 in the variable u that is 1 where m_j was computed and 0
    where the other outputs were. The integrals are exact to rounding on any grid. Special cases are

        prediction  variable
        "eps"       "t"        DEIS tAB (Zhang & Chen 2022)
        "eps"       "sigma"    DEIS ρAB, iPNDM with variable steps: Adams–Bashforth in σ/α
        "eps"       "lam"      exponential Adams–Bashforth in ε
        "x0"        "lam"      the same in x0: DPM-Solver++ 3M (order 3), SA-Solver at η = 0

    Order 1 to 4; 1 NFE per step; deterministic. Early steps are of lower order. Zhang & Chen
    2022, "Fast sampling of diffusion models with exponential integrator", arXiv:2204.13902.

    Args:
        order: 1 to 4.
        prediction: The output that is extrapolated, "eps" or "x0".
        variable: u: "lam" (λ), "t" or "sigma" (σ/α).
        lower_order_final: Lower the order to 1 at the last steps.

    Raises:
        ValueError: On an argument out of range.
    """

    order: int = 4
    prediction: Prediction = "eps"
    variable: Literal["lam", "t", "sigma"] = "lam"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=4)
        check_choice("prediction", self.prediction, ("eps", "x0"))
        check_choice("variable", self.variable, ("lam", "t", "sigma"))

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        steps = [interval(t, s, self.prediction) for t, s in pairwise(nodes)]
        orders = step_orders(len(steps), self.order, self.lower_order_final)
        lam = np.array([node.lam for node in nodes])
        weights = lagrange_weights(
            lam, steps[0].rate, orders, variable=lambda lam: self._variable(sde, lam)
        )
        return [
            StepWeights(to.carry, tuple((to.gain * w).tolist()))
            for to, w in zip(steps, weights, strict=True)
        ]

    def _variable(self, sde: SDE, lam: np.ndarray) -> np.ndarray:
        if self.variable == "t":
            return sde.t_of_lam(torch.from_numpy(lam)).numpy()
        return lam if self.variable == "lam" else np.exp(-lam)


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """iPNDM: DDIM's step with ε extrapolated by Adams–Bashforth coefficients of equal steps.

        x_s = (α_s/α_t) x_t − σ_s (e^h − 1) Σ_j c_j ε_j
        c = (1), (3, −1)/2, (23, −16, 5)/12, (55, −59, 37, −9)/24    for order 1, 2, 3, 4

    The coefficients are those of equal steps, whatever the grid is. So from `order` 2 on, the order
    of convergence is 2 on a grid whose steps change smoothly, and 1 where they jump.
    `ExponentialAB(prediction="eps", variable="sigma")` uses the coefficients of the actual grid.
    1 NFE per step; deterministic.

    Zhang & Chen 2022, arXiv:2204.13902, after Liu et al. 2022, "Pseudo numerical methods for
    diffusion models on manifolds", arXiv:2202.09778.

    Args:
        order: 1 to 4.

    Raises:
        ValueError: If the order is out of range.
    """

    prediction: ClassVar[Prediction] = "eps"

    order: int = 4

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=4)

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        rows = []
        orders = step_orders(len(nodes) - 1, self.order, lower_order_final=False)
        for order, (t, s) in zip(orders, pairwise(nodes), strict=True):
            to = interval(t, s, self.prediction)
            scale = to.gain * to.h * phi(1, to.z)
            rows.append(StepWeights(to.carry, tuple(scale * c for c in _EQUAL_STEPS[order])))
        return rows


_EQUAL_STEPS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
