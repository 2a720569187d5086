"""EDM's second-order sampler in x/α and σ/α, deterministic or with churn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_number, float64, plain_numbers
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler

__all__ = ["EDM"]

_Raised = dict[float, Node]


@dataclass(frozen=True)
class EDM(GridSampler):
    """EDM's Heun sampler on any SDE: with x̂ = x/α and σ̂ = σ/α the ODE is dx̂/dσ̂ = ε.

        σ̂' = (1 + γ) σ̂_t,   x̂' = x̂_t + √(σ̂'² − σ̂_t²) S_noise z         only if γ > 0
        d  = ε(x', t'),      x̃ = x̂' + (σ̂_s − σ̂') d                       Euler
        d̃  = ε(α_s x̃, s),    x̂_s = x̂' + (σ̂_s − σ̂') (d + d̃)/2             trapezoid
        γ  = min(S_churn/N, √2 − 1) if S_min ≤ σ̂_t ≤ S_max, else 0

    N is the paper's number of noise levels, one per time of the grid. The paper's last level, 0, is
    `sample(denoise=True)`, so that there are N − 1 Heun steps and one denoising, 2N − 1 NFE. The
    churn is the forward SDE from t to t': x' = (α_t'/α_t) x + σ_{t'|t} S_noise z. We differ from
    the paper in two points: there is no churn before the denoising, and σ̂' is at most σ̂ at t = 1
    (at λ = −6 if α(1) = 0), because no network is trained above it.

    Order 2 with `churn` = 0; 2 NFE per step; stochastic if `churn` > 0. Karras et al. 2022,
    arXiv:2206.00364, algorithms 1 and 2.

    Args:
        churn: S_churn ≥ 0; 0 is deterministic.
        s_min: Least σ/α at which there is churn, at least 0.
        s_max: Largest σ/α at which there is churn, at least `s_min`, possibly infinite.
        s_noise: S_noise > 0, the standard deviation of the churn's noise; 1 is exact.

    Raises:
        ValueError: On an argument out of range.
    """

    churn: float = 0.0
    s_min: float = 0.0
    s_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("churn", self.churn, at_least=0)
        check_number("s_min", self.s_min, at_least=0)
        if self.s_max != math.inf:
            check_number("s_max", self.s_max, at_least=self.s_min)
        check_number("s_noise", self.s_noise, above=0)

    @property
    def off_grid(self) -> bool:
        """True with churn, which moves the time above the grid's."""
        return self.churn > 0

    def start(self, sde: SDE, nodes: list[Node]) -> _Raised:
        """The node t' of each time t at which there is churn."""
        if self.churn == 0:
            return {}
        gamma = min(self.churn / len(nodes), math.sqrt(2) - 1)
        highest = -sde.nodes([sde.t_regular])[0].lam
        churned = [
            node
            for node in nodes[:-1]
            if self.s_min <= math.exp(-node.lam) <= self.s_max and -node.lam < highest
        ]
        log_sigma_hat = [min(math.log1p(gamma) - node.lam, highest) for node in churned]
        # rounding in the inverse may give a time above 1
        raised = sde.t_of_lam(-float64(log_sigma_hat)).clamp(max=sde.t_regular)
        return dict(zip([node.t for node in churned], sde.nodes(raised), strict=True))

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _Raised, noise: Noise
    ) -> tuple[Tensor, _Raised]:
        """One step; x of shape (B, *D)."""
        if t.t in state:
            raised = state[t.t]
            a, b = model.sde.transition(raised, t)
            x = (a * x).add_(noise.fresh(x), alpha=self.s_noise * b)
            t = raised
        # In x rather than x̂: the step is α_s (σ̂_s − σ̂'), and α_s x̂' is (α_s/α_t') x'.
        ratio = s.alpha / t.alpha
        step = s.sigma - ratio * t.sigma
        d = model.eps(x, t)
        x_hat = ratio * x
        d_next = model.eps(torch.add(x_hat, d, alpha=step), s)
        return x_hat.add_(d + d_next, alpha=0.5 * step), state
