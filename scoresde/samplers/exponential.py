"""Exponential integrators of the probability-flow ODE: DDIM (with its noise η) and DPM-Solver++.

In λ = log(α/σ) the ODE's linear part is solved exactly and only x0(x_t, t) is approximated:

    x_s = (σ_s/σ_t) x_t + α_s ∫_{λ_t}^{λ_s} e^{λ − λ_s} x0(x_λ, λ) dλ

All steps are said through x0, whose weights are sums of positive terms; the same step said
through ε subtracts numbers of size 1/α and loses their digits where α is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from .._tensor import check_number
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler

__all__ = ["DDIM", "DPMSolverPP2M"]


@dataclass(frozen=True)
class DDIM(GridSampler):
    """DDIM on any SDE; η = 0 is deterministic and is DPM-Solver-1, η = 1 is ancestral sampling.

        x_s = α_s x0 + √(σ_s² − c²) ε + c z,   c² = η² (σ_s²/σ_t²) σ²_{t|s}

    With h = λ_s − λ_t, u = −η² expm1(−2h) = c²/σ_s² and k = √(1 − u) this is

        x_s = k (σ_s/σ_t) x_t + α_s (1 − k e^{−h}) x0 + σ_s √u z

    and for η = 0  x_s = (α_s/α_t) x_t − σ_s (e^h − 1) ε.

    Order 1 (η = 0), weak order 1 (η > 0); 1 NFE per step; stochastic unless η = 0. Song et al.
    2020, "Denoising Diffusion Implicit Models", arXiv:2010.02502, eq. (12) and (16); Lu et al.
    2022, "DPM-Solver", arXiv:2206.00927, section 3. η = 1 equals `Ancestral("beta_tilde")`.

    Args:
        eta: η in [0, 1].

    Raises:
        ValueError: If η is outside [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, at_least=0, at_most=1)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        h = s.lam - t.lam
        u = -(self.eta**2) * math.expm1(-2 * h)
        k = math.sqrt(1 - u)
        # 1 − k e^{−h}, free of cancellation for small h
        weight = -math.expm1(-h) + math.exp(-h) * u / (1 + k)
        x0 = model.x0(x, t)
        x_s = ((k * s.sigma / t.sigma) * x).add_(x0, alpha=s.alpha * weight)
        if u > 0:
            x_s.add_(noise.increment(x, t.t, s.t), alpha=s.sigma * math.sqrt(u))
        return x_s, None


class _History(NamedTuple):
    """What a step of DPM-Solver++(2M) leaves to the next."""

    t_min: float
    x0: Tensor | None = None
    h: float = 0.0


@dataclass(frozen=True)
class DPMSolverPP2M(GridSampler):
    """DPM-Solver++(2M): two-step exponential integrator in x0; its first step is DDIM's.

        x_s = (σ_s/σ_t) x_t − α_s (e^{−h} − 1) D,   D = (1 + 1/(2r)) x0_t − 1/(2r) x0_previous
        h = λ_s − λ_t,   r = h_previous/h

    Order 2; 1 NFE per step; deterministic. Lu et al. 2022, "DPM-Solver++", arXiv:2211.01095,
    algorithm 2.

    Args:
        lower_order_final: Take the last step with D = x0_t, as at the start. Extrapolation is
            unstable where few steps end near the data (N below about 15).
    """

    multistep: ClassVar[bool] = True

    lower_order_final: bool = False

    def start(self, sde: SDE, nodes: list[Node]) -> _History:
        """No history yet; the last time is what tells the last step."""
        return _History(nodes[-1].t)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _History, noise: Noise
    ) -> tuple[Tensor, _History]:
        """One step; x of shape (B, *D)."""
        h = s.lam - t.lam
        x0 = d = model.x0(x, t)
        first_order = state.x0 is None or (self.lower_order_final and s.t == state.t_min)
        if not first_order:
            half_over_r = 0.5 * h / state.h
            d = ((1 + half_over_r) * x0).add_(state.x0, alpha=-half_over_r)
        x_s = ((s.sigma / t.sigma) * x).add_(d, alpha=-s.alpha * math.expm1(-h))
        return x_s, state._replace(x0=x0, h=h)
