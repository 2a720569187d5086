"""DDIM with the noise η: the exponential integrator of first order.

The step is written with x0, where all terms are positive. Written with ε it would subtract numbers
of size 1/α, and lose digits where α is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from .._tensor import check_number, plain_numbers
from ..fingerprint import ADDED
from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node
from .base import GridSampler

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(GridSampler):
    """DDIM on any SDE; η = 0 is the deterministic DPM-Solver-1, η = 1 is ancestral sampling.

        x_s = α_s x0 + √(σ_s² − c²) ε + c z,   c² = η² (σ_s²/σ_t²) σ²_{t|s}

    With h = λ_s − λ_t, u = −η² expm1(−2h) = c²/σ_s² and k = √(1 − u) this is

        x_s = k (σ_s/σ_t) x_t + α_s (1 − k e^{−h}) x0 + σ_s √u z

    and for η = 0  x_s = (α_s/α_t) x_t − σ_s (e^h − 1) ε.

    Order 1 (η = 0), weak order 1 (η > 0); 1 NFE per step; stochastic unless η = 0. Song et al.
    2020, "Denoising Diffusion Implicit Models", arXiv:2010.02502, eq. (12) and (16); Lu et al.
    2022, "DPM-Solver", arXiv:2206.00927, section 3. η = 1 equals `Ancestral("beta_tilde")`.

    Args:
        eta: η in [0, 1].
        clip: Largest size of the entries of x0; infinite for no clipping. Only x0 is clipped, and
            not the ε of the same evaluation, as the library diffusers does it by default
            (`clip_sample`). The wrapper `Clipped` clips both.

    Raises:
        ValueError: If η is outside [0, 1], or `clip` is not above 0.
    """

    eta: float = 0.0
    clip: float = field(default=math.inf, metadata=ADDED)

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("eta", self.eta, at_least=0, at_most=1)
        if self.clip != math.inf:
            check_number("clip", self.clip, above=0)

    @property
    def starts_in_noise(self) -> bool:
        """Yes: where α = 0 the step is x_s = k (σ_s/σ_t) x_t + α_s x0 + σ_s η z."""
        return True

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        h = s.lam - t.lam
        u = -(self.eta**2) * math.expm1(-2 * h)
        k = math.sqrt(1 - u)
        x0, ratio = model.x0(x, t), k * s.sigma / t.sigma
        if self.clip < math.inf:
            x_s = (ratio * (x - t.alpha * x0)).add_(x0.clamp(-self.clip, self.clip), alpha=s.alpha)
        else:
            # 1 − k e^{−h}, free of cancellation for small h
            weight = -math.expm1(-h) + math.exp(-h) * u / (1 + k)
            x_s = (ratio * x).add_(x0, alpha=s.alpha * weight)
        if u > 0:
            x_s.add_(noise.increment(x, t.t, s.t), alpha=s.sigma * math.sqrt(u))
        return x_s, None
