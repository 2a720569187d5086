"""The discrete reverse chain of DDPM on any grid of any SDE, and its KL terms as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._tensor import expand, float64
from ..grid import check_grid, check_on_ladder
from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node
from .denoising import WeightedNode

__all__ = ["ReverseChain", "Variance"]

Variance = Literal["beta", "beta_tilde"]


@dataclass(frozen=True)
class ReverseChain:
    """p(x_s | x_t) = N(μ, v I) for each step of a grid, and the decoder N(x̂_0, v_1 I) at its end.

    Against q(x_s | x_t, x_0) = N(μ̃, β̃ I) a step costs

        KL = (κ²/2v) |ε − ε̂|² + D/2 (β̃/v − 1 − log(β̃/v)),   κ = β/(a σ_t),   a = α_t/α_s

    because μ̃ − μ = κ (ε̂ − ε); β = σ²_{t|s}, β̃ = β σ_s²/σ_t². Ho et al. 2020, arXiv:2006.11239,
    eq. (7) and section 3.2.

    Attributes:
        nodes: The SDE at the N times, decreasing.
        betas: β of the N − 1 steps, and at last σ²(t_min), the decoder's.
        posterior: β̃ of the N − 1 steps.
        gains: κ of the N − 1 steps, and at last σ/α, with x̂_0 − x_0 = (σ/α)(ε − ε̂).
        variances: v of the N − 1 steps and of the decoder.
        strata: How many steps each sample draws; None for all steps.
    """

    nodes: list[Node]
    betas: list[float]
    posterior: list[float]
    gains: list[float]
    variances: list[float]
    strata: int | None = None

    @classmethod
    def build(
        cls,
        model: ScoreModel,
        times: tuple[float, ...] | int,
        variance: Variance | tuple[float, ...] = "beta",
        decoder: Variance | None = None,
        strata: int | None = None,
    ) -> ReverseChain:
        """The chain of `DDPMVLB` for a model.

        Raises:
            ValueError: On a grid that is none, a time at which σ = 0, rounded labels off the
                model's own ladder, or a wrong number of variances.
        """
        sde = model.sde
        ts = check_grid(sde.ladder(times) if isinstance(times, int) else times)
        if model.snapped:
            check_on_ladder(sde, ts)
        model.check_last(float(ts[-1]))
        nodes = sde.nodes(ts)
        betas, posterior, gains = [], [], []
        for t, s in zip(nodes, nodes[1:], strict=False):
            a, b = sde.transition(t, s)
            betas.append(b**2)
            posterior.append((b * s.sigma / t.sigma) ** 2)
            gains.append(b**2 / (a * t.sigma))
        betas.append(nodes[-1].sigma ** 2)
        gains.append(nodes[-1].sigma / nodes[-1].alpha)
        if isinstance(variance, str):
            steps = betas[:-1] if variance == "beta" else posterior
            variance = (*steps, posterior[-1] if decoder == "beta_tilde" else betas[-1])
        if len(variance) != len(nodes):
            raise ValueError(f"variance must have shape ({len(nodes)},), got ({len(variance)},)")
        return cls(nodes, betas, posterior, gains, list(variance), strata)

    @property
    def ends(self) -> tuple[Node, Node]:
        """The SDE at the first time and at t_min."""
        return self.nodes[0], self.nodes[-1]

    @property
    def constant(self) -> float:
        """What all steps cost per dimension, whatever the model: Σ ½ (r − 1 − log r), r = β̃/v."""
        log_r = [math.log(p / v) for p, v in zip(self.posterior, self.variances, strict=False)]
        return 0.5 * math.fsum(math.expm1(r) - r for r in log_r)

    def optimum(self, errors: Tensor) -> Tensor:
        """v of least KL from E|ε − ε̂|²/D at each time: β̃ + κ² E|ε − ε̂|²/D; shape (N,)."""
        return float64([*self.posterior, 0.0]) + float64(self.gains) ** 2 * errors

    def terms(self, x0: Tensor, noise: Noise, draws: int) -> Iterator[list[WeightedNode]]:
        """The weights κ²/2v of |ε − ε̂|², from noise to data, with independent draws of each.

        Without strata every step comes once. With strata the steps are drawn per sample, with
        probability P ∝ h = λ_s − λ_t and the factor 1/(strata · P). For a good model no step costs
        more than about D h (that of the continuous-time bound), so that the weighted terms stay of
        one size on any grid. Each stratum is an interval of the distribution function. The sum of
        their terms is an unbiased estimate of the sum over all steps.
        """
        weights = [0.5 * k**2 / v for k, v in zip(self.gains[:-1], self.variances, strict=False)]
        if self.strata is None:
            for node, weight in zip(self.nodes, weights, strict=False):
                yield [WeightedNode(node, weight)] * draws
            return
        weights = torch.tensor(weights, dtype=torch.float64, device=x0.device)
        columns = torch.tensor(self.nodes, dtype=torch.float64, device=x0.device).T
        steps = columns[Node._fields.index("lam")].diff()
        edges = torch.cumsum(steps, 0) / steps.sum()
        share = self.strata * steps / steps.sum()
        for m in range(self.strata):
            u = [(m + noise.times(x0)) / self.strata for _ in range(draws)]
            chosen = [torch.searchsorted(edges, v, right=True).clamp(max=len(steps) - 1) for v in u]
            yield [
                WeightedNode(Node(*(expand(c[i], x0) for c in columns)), weights[i] / share[i])
                for i in chosen
            ]
