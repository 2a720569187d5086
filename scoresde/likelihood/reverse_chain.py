"""The discrete reverse chain of DDPM on any grid of any SDE, and its KL terms as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from .._tensor import expand, float64, plain_number
from ..grid import check_grid, check_on_ladder
from ..score import ScoreModel
from ..sde import Node
from .denoising import Denoising, Draw

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
        betas: β of the N − 1 steps, and at last σ²(ts[−1]), the decoder's.
        posterior: β̃ of the N − 1 steps.
        gains: κ of the N − 1 steps, and at last σ/α, with x̂_0 − x_0 = (σ/α)(ε − ε̂).
        variances: v of the N − 1 steps and of the decoder.
        settings: What the chain is, as plain data.
    """

    nodes: list[Node]
    betas: list[float]
    posterior: list[float]
    gains: list[float]
    variances: list[float]
    settings: dict[str, str | float | int]

    @classmethod
    def build(
        cls,
        model: ScoreModel,
        ts: Tensor | int,
        variance: Variance | Tensor,
        decoder: Variance | None,
    ) -> ReverseChain:
        """The chain on a grid, checked; arguments and errors as for `ddpm_vlb`."""
        sde, ts = model.sde, plain_number(ts)
        ts = check_grid(sde.ladder(ts) if isinstance(ts, int) else ts)
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
        end = nodes[-1]
        betas.append(end.sigma**2)
        gains.append(end.sigma / end.alpha)
        named = {
            "variance": "given" if isinstance(variance, Tensor) else variance,
            "decoder": "given" if isinstance(variance, Tensor) else decoder or "beta",
            "times": len(nodes),
            "t_max": nodes[0].t,
            "t_min": end.t,
        }
        variances = _variances(variance, decoder, betas, posterior)
        return cls(nodes, betas, posterior, gains, variances, named)

    def all_terms(self, denoising: Denoising) -> Iterator[Callable[[], Draw]]:
        """Every step once, from noise to data."""
        for node, weight in zip(self.nodes, self._weights(), strict=False):
            draw = Draw(node, weight)
            yield lambda draw=draw: draw

    def drawn_terms(self, denoising: Denoising, strata: int) -> Iterator[Callable[[], Draw]]:
        """Steps drawn per sample with probability P ∝ h = λ_s − λ_t, at 1/(strata · P) each.

        For a good model no step costs more than about D h (that of the continuous-time bound),
        so that the weighted terms stay of one size on any grid. Each stratum is an interval of
        the distribution function; their terms' sum is unbiased for the sum over all steps.
        """
        device = denoising.x0.device
        weights = torch.tensor(self._weights(), dtype=torch.float64, device=device)
        columns = torch.tensor(self.nodes, dtype=torch.float64, device=device).T
        steps = columns[Node._fields.index("lam")].diff()
        edges = torch.cumsum(steps, 0) / steps.sum()
        share = strata * steps / steps.sum()

        def draw(m: int) -> Draw:
            u = (m + denoising.uniform()) / strata
            i = torch.searchsorted(edges, u, right=True).clamp(max=len(edges) - 1)
            node = Node(*(expand(column[i], denoising.x0) for column in columns))
            return Draw(node, weights[i] / share[i])

        return (partial(draw, m) for m in range(strata))

    def optimum(self, errors: Tensor) -> Tensor:
        """v of least KL from E|ε − ε̂|²/D at each time: β̃ + κ² E|ε − ε̂|²/D; shape (N,)."""
        gains = float64(self.gains)
        return float64([*self.posterior, 0.0]) + gains**2 * errors

    def constant(self, dims: int) -> float:
        """What the steps cost whatever the model says: Σ D/2 (r − 1 − log r), r = β̃/v."""
        log_r = [math.log(p / v) for p, v in zip(self.posterior, self.variances, strict=False)]
        return 0.5 * dims * math.fsum(math.expm1(r) - r for r in log_r)

    def _weights(self) -> list[float]:
        """κ²/2v of each step."""
        return [0.5 * k**2 / v for k, v in zip(self.gains[:-1], self.variances, strict=False)]


def _variances(
    variance: Variance | Tensor,
    decoder: Variance | None,
    betas: list[float],
    posterior: list[float],
) -> list[float]:
    """v of each step and of the decoder."""
    if isinstance(variance, Tensor):
        if decoder is not None:
            raise ValueError("decoder must be None with variances of your own, which hold it")
        return _given(variance, len(betas))
    for name, value in (("variance", variance), ("decoder", decoder or "beta")):
        if value not in get_args(Variance):
            raise ValueError(f"{name} must be 'beta' or 'beta_tilde', got {value!r}")
    steps = betas[:-1] if variance == "beta" else posterior
    return [*steps, posterior[-1] if decoder == "beta_tilde" else betas[-1]]


def _given(variance: Tensor, n: int) -> list[float]:
    if variance.shape != (n,):
        raise ValueError(f"variance must have shape ({n},), got {tuple(variance.shape)}")
    values = variance.to(torch.float64).tolist()
    bad = next((v for v in values if not (math.isfinite(v) and v > 0)), None)
    if bad is not None:
        raise ValueError(f"variance must be finite and greater than 0, got {bad}")
    return values
