"""UniPC: a predictor and a corrector with one evaluation per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .._tensor import check_choice, check_integer, plain_numbers
from ..sde import SDE, Node
from .multistep import LinearMultistep, StepWeights
from .weights import Prediction, interval, phi, step_orders

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(LinearMultistep):
    """UniPC-p: UniP-p predicts x_s, UniC-p corrects it with the output that the next step needs.

    carry, gain, z and h are those of `interval`. m₀ is the output at t, m₁, m₂ ... are the earlier
    outputs, m_s is the output at the predicted x_s, and r_k = (λ_k − λ_t)/h, so that r_s = 1:

        x_s = carry x_t + gain (h φ₁(z) m₀ + B Σ_k a_k (m_k − m₀)/r_k)
        Σ_k a_k r_k^{n−1} = n! φ_{n+1}(z) h/B,     n = 1, ..., number of terms
        B₁ = h,   B₂ = h φ₁(z)

    UniP-p sums over the p − 1 outputs before t, UniC-p over these and m_s. If there is only one
    unknown a_k, it is set to ½. B₁ and B₂ differ only in this case: otherwise the system is solved,
    and a_k B does not depend on B.

    Order p + 1 with the corrector, p without; 1 NFE per step; deterministic. Without corrector
    UniPC-1 is DDIM, UniPC-2 with B₂ is DPM-Solver++ 2M, and UniPC-3 is the exponential
    Adams–Bashforth method. x at the last time is not corrected, and early steps are of lower order.
    Zhao et al. 2023, "UniPC", arXiv:2302.04867.

    Args:
        order: p = 1, 2 or 3.
        variant: "B1" or "B2".
        corrector: Whether to correct.
        prediction: The output that is interpolated, "x0" or "eps".
        lower_order_final: Lower p to 1 at the last steps.

    Raises:
        ValueError: On an argument out of range.
    """

    order: int = 3
    variant: Literal["B1", "B2"] = "B2"
    corrector: bool = True
    prediction: Prediction = "x0"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=3)
        check_choice("variant", self.variant, ("B1", "B2"))
        check_choice("prediction", self.prediction, ("x0", "eps"))

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        steps = len(nodes) - 1
        orders = step_orders(steps, self.order, self.lower_order_final)
        return [
            self._row(order, nodes[: i + 2], self.corrector and i < steps - 1)
            for i, order in enumerate(orders)
        ]

    def _row(self, order: int, nodes: list[Node], corrected: bool) -> StepWeights:
        """The step between the last two nodes."""
        t, s = nodes[-2:]
        to = interval(t, s, self.prediction)
        ratios = [(node.lam - t.lam) / to.h for node in nodes[-3 : -2 - order : -1]]
        scale = to.gain * to.h
        corrector: list[float] = []
        if corrected:
            centre, newest, *before = self._weights(to.z, [1.0, *ratios])
            corrector = [newest, centre, *before]
        return StepWeights(
            to.carry,
            tuple(scale * w for w in self._weights(to.z, ratios)),
            corrector=tuple(scale * w for w in corrector),
        )

    def _weights(self, z: float, ratios: list[float]) -> list[float]:
        """Weights, in units of gain h, of m₀ and of each m_k."""
        b = 1.0 if self.variant == "B1" else phi(1, z)  # B/h
        if len(ratios) == 1:
            a = np.array([0.5])
        else:
            n = np.arange(len(ratios))
            right = [math.factorial(k) * phi(k + 1, z) / b for k in n + 1]
            a = np.linalg.solve(np.array(ratios) ** n[:, None], right)
        weights = (b * a / ratios).tolist() if ratios else []
        return [phi(1, z) - sum(weights), *weights]
