"""Adams predictor–corrector methods in the angle θ = arctan(σ/(α d)), on the output v."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from ..score import ScoreModel
from ..score.combining import combine
from ..sde import SDE, Node
from .multistep import LinearMultistep, StepWeights
from .weights import Prediction, lagrange_weights, past_knots, step_orders

__all__ = ["AngularAdams"]


@dataclass(frozen=True)
class AngularAdams(LinearMultistep):
    """Adams–Bashforth–Moulton in θ on v. The evaluation of the next step corrects this step.

    d is `data_std`. With n = √(d²α² + σ²) and θ = arctan(σ/(α d)) the probability-flow ODE of any
    SDE is

        d(x/n)/dθ = v/n,   v = d α ε − (σ/d) x0

    and a step is

        x_s = (n_s/n_t) x_t + n_s Σ_j (v_j/n_j) ∫_{θ_t}^{θ_s} ℓ_j(θ) dθ

    The ℓ_j are Lagrange polynomials. The predictor's use the last `order` outputs; the corrector's
    use these and the output at the predicted x_s. For data N(0, d² I), v is 0 at all times, while
    ε and x0 change. So only the difference of the data from N(0, d² I) is extrapolated.

    The order of convergence is min(order, 2) without and min(order + 1, 3) with the corrector,
    because the first step is Euler's. (In λ the error of that step is negligible, in θ it is not.)
    With few steps, errors still fall with `order`. 1 NFE per step; deterministic. x at the last
    time is not corrected.

    θ and v are smooth down to σ = 0, so that t_min may be as small as 1e-6, and no final denoising
    is needed. The grid `arctan` takes equal steps in θ. The variables are those of Salimans & Ho
    2022, "Progressive distillation", arXiv:2202.00512, appendix D, for x/d in place of x; the
    solver is ours.

    With `to_data` one more step of order 1 leads from the last time to σ = 0. It takes the place of
    the final denoising, at the same cost. Its evaluation also corrects the step before it, which
    the evaluation of a denoising does not.

    Args:
        order: Number of outputs in the predictor, 1 to 4. We advise 2 for few steps, 3 from about
            15 steps and 4 from about 20.
        corrector: Whether to correct.
        to_data: Whether to take one more step, down to σ = 0.
        data_std: d > 0.

    Raises:
        ValueError: If the order or d is out of range.
    """

    prediction: ClassVar[Prediction] = "v"

    order: int = 3
    corrector: bool = True
    to_data: bool = False
    data_std: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=4)
        check_number("data_std", self.data_std, above=0)

    @property
    def starts_in_noise(self) -> bool:
        """Yes: θ and v are regular where α = 0."""
        return True

    @property
    def reaches_data(self) -> bool:
        """Whether the last step ends at σ = 0."""
        return self.to_data

    def output(self, model: ScoreModel, x: Tensor, t: Node) -> Tensor:
        """v = (α σ (d − 1/d) x + (d α² + σ²/d) v₁)/(α² + σ²); v₁ = α ε − σ x0 is the model's."""
        d, total = self.data_std, t.alpha**2 + t.sigma**2
        if d == 1:
            return model.v(x, t)
        of_x = t.alpha * t.sigma * (d - 1 / d) / total
        return combine(of_x, x, (d * t.alpha**2 + t.sigma**2 / d) / total, model.v(x, t))

    def nodes(self, sde: SDE, ts: Tensor) -> list[Node]:
        """The nodes of the grid, and with `to_data` one at σ = 0, where nothing is evaluated."""
        at_data = Node(
            t=0.0, alpha=1.0, sigma=0.0, lam=math.inf, f=0.0, g=0.0, alpha_rate=0.0, sigma_rate=0.0
        )
        return [*sde.nodes(ts), *([at_data] if self.to_data else [])]

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        steps = len(nodes) - 1
        d = self.data_std
        n = np.array([math.hypot(d * node.alpha, node.sigma) for node in nodes])
        theta = np.array([math.atan2(node.sigma, d * node.alpha) for node in nodes])
        orders = step_orders(steps, self.order, lower_order_final=False)
        if self.to_data:
            orders[-1] = 1
        predictors = _weights(n, theta, orders, newest=0)
        corrected = [order + 1 if self.corrector else 0 for order in orders[:-1]] + [0]
        correctors = _weights(n, theta, corrected, newest=1)
        return [
            StepWeights(float(n[i + 1] / n[i]), predictors[i], corrector=correctors[i])
            for i in range(steps)
        ]


def _weights(
    n: np.ndarray, theta: np.ndarray, orders: list[int], newest: int
) -> list[tuple[float, ...]]:
    """n_s/n_j ∫ ℓ_j dθ of each step, for its `past_knots`."""
    ratios = n[1:, None] / past_knots(n, orders, newest)
    weights = lagrange_weights(theta, 0.0, orders, newest)
    return [tuple((r[: len(w)] * w).tolist()) for r, w in zip(ratios, weights, strict=True)]
