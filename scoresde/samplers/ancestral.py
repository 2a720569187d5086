"""Ancestral sampling (DDPM): the forward chain between the times of the grid, reversed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from .._tensor import check_choice
from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node
from ..sde.reverse import ReverseVariance, learned_std
from .base import GridSampler

__all__ = ["Ancestral"]


@dataclass(frozen=True)
class Ancestral(GridSampler):
    """DDPM's sampler, with the exact transition of the SDE between any two times.

        x_s = a (σ_s²/σ_t²) x_t + α_s (b²/σ_t²) x0 + √v z,   a = α_t/α_s,   b = σ_{t|s}
        v = b² ("beta"),   v = b² σ_s²/σ_t² ("beta_tilde"),   or v between both ("learned")

    The mean is that of q(x_s | x_t, x_0) at x_0 = x0(x_t, t). Under VP the variance "beta" is
    exact for data N(0, I), and "beta_tilde" is exact for data that are one point. On the ladder
    of a `TabulatedVP`, b² is DDPM's β, and v is its β or β̃. Under `VE` this is ancestral sampling
    for NCSN. "learned" takes v of each element from a network with a learned variance; on fewer
    times than those of the training b² and σ_s²/σ_t² are those of the longer steps, as in section 4
    of Nichol & Dhariwal 2021, arXiv:2102.09672.

    Weak order 1; 1 NFE per step; stochastic. Ho et al. 2020, arXiv:2006.11239, eq. (7),
    algorithm 2 and section 3.2; Song et al. 2021, arXiv:2011.13456, eq. (4) and (47).
    "beta_tilde" equals `DDIM(eta=1)`.

    Args:
        variance: "beta", "beta_tilde", or "learned".

    Raises:
        ValueError: If `variance` is none of these.
    """

    variance: ReverseVariance = "beta"

    def __post_init__(self) -> None:
        check_choice("variance", self.variance, get_args(ReverseVariance))

    @property
    def learned_variance(self) -> bool:
        """Whether the variance is "learned"."""
        return self.variance == "learned"

    @property
    def starts_in_noise(self) -> bool:
        """Yes: where α = 0, a = 0 and b = σ_t."""
        return True

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        a, b = model.sde.transition(t, s)
        ratio = s.sigma / t.sigma
        x0, share = model.with_share("x0", x, t)
        mean = ((a * ratio**2) * x).add_(x0, alpha=s.alpha * (b / t.sigma) ** 2)
        z = noise.increment(x, t.t, s.t)
        if self.variance == "learned":
            return mean.addcmul_(learned_std(b, ratio, share), z), None
        return mean.add_(z, alpha=b if self.variance == "beta" else b * ratio), None
