"""SA-Solver: a stochastic Adams predictor and corrector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from .._tensor import check_integer, check_number, plain_numbers
from ..sde import SDE, Node
from .multistep import LinearMultistep, StepWeights
from .weights import Prediction, interval, lagrange_weights, step_orders

__all__ = ["SASolver"]


@dataclass(frozen=True)
class SASolver(LinearMultistep):
    """SA-Solver: exponential Adams steps in x0 of the reverse SDE with noise η (the paper's τ).

        x_s = (σ_s/σ_t) e^{−η²h} x_t + α_s (1 + η²) ∫ e^{−(1 + η²)(λ_s − λ)} P(λ) dλ
                                     + σ_s √(1 − e^{−2η²h}) z

    h = λ_s − λ_t, and the integral from λ_t to λ_s is exact to rounding. The predictor's polynomial
    P goes through the last `predictor_order` values of x0. The corrector repeats the step with the
    same z; its P goes through x0 at the predicted x_s and the last `corrector_order` − 1 values.
    (This is mode PEC: x0 is not evaluated again at the corrected x_s.) x at the last time is not
    corrected. Early steps are of lower order.

    The paper proves strong convergence with an error of O(η h + h^p) for p values of x0. So the
    strong order is 1 for η > 0; for η = 0 the order is that of the deterministic Adams methods. The
    paper proves no weak order. For Gaussian data we measure weak order 2 if the polynomial of
    predictor or corrector goes through two or more values, and weak order 1 otherwise. Three or
    four values give no higher weak order in general, because x0 along a path is not differentiable
    in λ. At η = 1 the mean is exact for every N, because x0(x_t, t) is then a martingale.

    1 NFE per step; stochastic unless η = 0. With η = 0 and no corrector it is `ExponentialAB` in
    x0. Order 1 with η = 1 and no corrector is `DDIM(eta=1)`. Xue et al. 2023, "SA-Solver",
    arXiv:2309.05019, eq. (15) and (18).

    Args:
        predictor_order: 1 to 4.
        corrector_order: 1 to 4, or 0 for no corrector. The authors advise orders 3 and 4 with
            little or no guidance, and 2 and 2 with strong guidance. Below about 15 steps 2 and 2
            are better for Gaussian data, because extrapolation amplifies the noise.
        eta: η ≥ 0: 0 is the probability-flow ODE, 1 the reverse SDE.
        s_min: Least σ/α, at the beginning of a step, at which the step has noise; at least 0.
        s_max: Largest such σ/α, at least `s_min`, possibly infinite. Other steps have η = 0, as
            with the paper's piecewise constant τ.
        lower_order_final: Lower both orders at the last steps. This is needed for few steps that
            are equal in t, because the last of them are long in λ.

    Raises:
        ValueError: On an argument out of range.
    """

    prediction: ClassVar[Prediction] = "x0"

    predictor_order: int = 2
    corrector_order: int = 2
    eta: float = 1.0
    s_min: float = 0.0
    s_max: float = math.inf
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("predictor_order", self.predictor_order, minimum=1, maximum=4)
        check_integer("corrector_order", self.corrector_order, minimum=0, maximum=4)
        check_number("eta", self.eta, at_least=0)
        check_number("s_min", self.s_min, at_least=0)
        if self.s_max != math.inf:
            check_number("s_max", self.s_max, at_least=self.s_min)

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        lam = np.array([node.lam for node in nodes])
        noisy = [self.s_min <= math.exp(-node.lam) <= self.s_max for node in nodes]
        steps = [
            interval(t, s, self.prediction, self.eta if noisy[i] else 0.0)
            for i, (t, s) in enumerate(pairwise(nodes))
        ]
        rates = np.array([to.rate for to in steps])
        orders = step_orders(len(steps), self.predictor_order, self.lower_order_final)
        predictors = lagrange_weights(lam, rates, orders)
        corrector_orders = [0] * len(steps)
        if self.corrector_order > 0:
            # The corrector uses one more value, x0 at x_s. The last step is not corrected.
            known = step_orders(len(steps) + 1, self.corrector_order, self.lower_order_final)
            corrector_orders[:-1] = known[1:-1]
        correctors = lagrange_weights(lam, rates, corrector_orders, newest=1)
        return [
            StepWeights(
                to.carry,
                tuple((to.gain * predictor).tolist()),
                to.std,
                tuple((to.gain * corrector).tolist()),
            )
            for to, predictor, corrector in zip(steps, predictors, correctors, strict=True)
        ]
