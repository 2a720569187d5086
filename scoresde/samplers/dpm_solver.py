"""DPM-Solver and DPM-Solver++: single-step and multistep, in ε or x0, for the ODE or the SDE."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .._tensor import check_choice, check_integer, check_number, float64, plain_numbers
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler
from .multistep import LinearMultistep, StepWeights
from .weights import Prediction, interval, output, phi, step_orders

__all__ = ["DPMSolverMultistep", "DPMSolverSinglestep"]


class _Stage(NamedTuple):
    """x_end = carry x_t + weight m_t + slope (m_previous − m_t); m_previous: the last stage's m."""

    end: Node
    carry: float
    weight: float
    slope: float


_Stages = dict[float, list[_Stage]]  # of the step from each t


@dataclass(frozen=True)
class DPMSolverSinglestep(GridSampler):
    """DPM-Solver-1/2/3 (prediction "eps") and DPM-Solver++ 1S/2S/3S (prediction "x0").

    These are exponential Runge–Kutta methods: a step uses no earlier step. m is the output of the
    model, and carry, gain, z and h are those of `interval`. An index r marks the interval from t to
    λ_t + r h; without index it is the whole step.

        order 1   x_s = carry x + gain h φ₁(z) m_t                                       DDIM
        order 2   x_½ = carry_½ x + gain_½ h/2 φ₁(z/2) m_t
                  x_s = carry x + gain h φ₁(z) m_½
        order 3   x_⅓ = carry_⅓ x + gain_⅓ h/3 φ₁(z/3) m_t
                  x_⅔ = carry_⅔ x + gain_⅔ 2h/3 (φ₁(2z/3) m_t + 2 φ₂(2z/3) (m_⅓ − m_t))
                  x_s = carry x + gain h (φ₁(z) m_t + 3/2 φ₂(z) (m_⅔ − m_t))

    Order 1, 2 or 3, with as many NFE per step; deterministic. Lu et al. 2022, "DPM-Solver",
    arXiv:2206.00927, algorithms 1 and 2, and "DPM-Solver++", arXiv:2211.01095, algorithm 1 (2S).
    3S is algorithm 2 of the first paper with x0 instead of ε.

    Args:
        order: 1, 2 or 3.
        prediction: The output that is interpolated, "eps" or "x0".

    Raises:
        ValueError: On an argument out of range.
    """

    order: int = 2
    prediction: Prediction = "eps"

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=3)
        check_choice("prediction", self.prediction, ("eps", "x0"))

    @property
    def off_grid(self) -> bool:
        """Yes, unless the order is 1."""
        return self.order > 1

    def start(self, sde: SDE, nodes: list[Node]) -> _Stages:
        """The stages of the step from each t."""
        lam = float64([node.lam for node in nodes])
        parts = torch.arange(1, self.order, dtype=torch.float64, device="cpu") / self.order
        times = sde.t_of_lam(lam[:-1, None] + parts * lam.diff()[:, None])
        between = iter(sde.nodes(times.flatten()))
        return {
            t.t: [
                self._stage(k, t, s if k == self.order else next(between))
                for k in range(1, self.order + 1)
            ]
            for t, s in pairwise(nodes)
        }

    def _stage(self, k: int, t: Node, end: Node) -> _Stage:
        """The k-th stage, which ends at k/order of the step from t to s."""
        to = interval(t, end, self.prediction)
        if k == 1:
            slope = 0.0
        elif self.order == 2:
            slope = phi(1, to.z)
        else:
            slope = k / (k - 1) * phi(2, to.z)
        scale = to.gain * to.h
        return _Stage(end, to.carry, scale * phi(1, to.z), scale * slope)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _Stages, noise: Noise
    ) -> tuple[Tensor, _Stages]:
        """One step; x of shape (B, *D)."""
        m = output(model, x, t, self.prediction)
        first, *others = state[t.t]
        x_stage, end = (first.carry * x).add_(m, alpha=first.weight), first.end
        for stage in others:
            change = output(model, x_stage, end, self.prediction).sub(m)
            x_stage = (stage.carry * x).add_(m, alpha=stage.weight).add_(change, alpha=stage.slope)
            end = stage.end
        return x_stage, state


@dataclass(frozen=True)
class DPMSolverMultistep(LinearMultistep):
    """DPM-Solver++ 2M and 3M, their forms in ε, and with η > 0 their SDE versions.

    carry, gain, z, std and h are those of `interval`. h₁ and h₂ are the lengths in λ of the two
    steps before, r₁ = h₁/h, r₂ = h₂/h. m₀ is the output at t, m₁ and m₂ are the ones before it:

        order 1   x_s = carry x_t + gain h φ₁ m₀ + std z
        order 2   x_s = carry x_t + gain h φ₁ (m₀ + D/2) + std z,     D = (m₀ − m₁)/r₁
        order 3   x_s = carry x_t + gain h (φ₁ m₀ + φ₂ D′ + 2 φ₃ D″) + std z
                  D″ = (D − (m₁ − m₂)/r₂)/(r₁ + r₂),   D′ = D + r₁ D″

    D″ is half of h² d²m/dλ². The authors' code and its copies have φ₃ D″ instead of 2 φ₃ D″, which
    is of order 2 only. `copied` computes that form, to reproduce their results.

    With order 3 the first two steps are of order 1 and 2. If the grid starts in pure noise, m
    changes so little there that the observed order is still 3.

    Order 1, 2 or 3 (η = 0); 1 NFE per step; stochastic if η > 0. For η > 0 no weak order is
    proved. For Gaussian data we measure 1 for order 1, and 2 for orders 2 and 3. Order 1 with
    prediction "x0" and η = 1 is ancestral sampling with β̃. Lu et al. 2022, "DPM-Solver++",
    arXiv:2211.01095, algorithm 2 (2M) and section 5 (SDE).

    Args:
        order: 1, 2 or 3.
        prediction: The output that is extrapolated, "x0" or "eps".
        eta: η ≥ 0: 0 is the ODE, 1 the reverse SDE; a larger η means more noise.
        copied: Compute order 3 as the authors' code does.
        lower_order_final: Lower the order to 1 at the last steps. With few steps (N below about
            15) extrapolation is unstable near the data.

    Raises:
        ValueError: On an argument out of range.
    """

    order: int = 2
    prediction: Prediction = "x0"
    eta: float = 0.0
    copied: bool = False
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("order", self.order, minimum=1, maximum=3)
        check_choice("prediction", self.prediction, ("x0", "eps"))
        check_number("eta", self.eta, at_least=0)
        if self.copied and self.order != 3:
            raise ValueError(f"copied is a form of order 3, got order {self.order}")

    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The weights of each step."""
        orders = step_orders(len(nodes) - 1, self.order, self.lower_order_final)
        return [self._row(order, nodes[: i + 2]) for i, order in enumerate(orders)]

    def _row(self, order: int, nodes: list[Node]) -> StepWeights:
        """The step between the last two nodes; the earlier nodes give h₁ and h₂."""
        t, s = nodes[-2:]
        to = interval(t, s, self.prediction, self.eta)
        scale, phi_1 = to.gain * to.h, phi(1, to.z)
        if order == 1:
            return StepWeights(to.carry, (scale * phi_1,), to.std)
        r_1 = (t.lam - nodes[-3].lam) / to.h
        if order == 2:
            half = 0.5 * scale * phi_1 / r_1
            return StepWeights(to.carry, (scale * phi_1 + half, -half), to.std)
        r_2 = (nodes[-3].lam - nodes[-4].lam) / to.h
        curvature = (1 if self.copied else 2) * phi(3, to.z) + r_1 * phi(2, to.z)
        # of D and of (m₁ − m₂)/r₂ in φ₂ D′ + 2 φ₃ D″
        a, b = phi(2, to.z) + curvature / (r_1 + r_2), -curvature / (r_1 + r_2)
        weights = (phi_1 + a / r_1, b / r_2 - a / r_1, -b / r_2)
        return StepWeights(to.carry, tuple(scale * w for w in weights), to.std)
