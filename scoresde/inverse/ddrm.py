"""`DDRM`: DDIM in the coordinates of the singular value decomposition of A."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._tensor import check_number, plain_numbers
from ..noise import Noise
from ..samplers.base import GridSampler
from ..score import ScoreModel
from ..sde import Node
from .measured import measured_in, of_nothing

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(GridSampler):
    """Denoising diffusion restoration: each right singular vector of A has a step of its own.

    For a singular value S let ȳ be the coordinate of A⁺ y, whose noise is σ_y/S. From t to s:

        S = 0                   α_s x0 + √(1 − η²) σ_s ε + η σ_s z
        σ_s S < α_s σ_y         α_s x0 + √(1 − η²) σ_s (ȳ − x0) S/σ_y + η σ_s z
        σ_s S ≥ α_s σ_y         α_s ((1 − η_b) x0 + η_b ȳ) + √(σ_s² − α_s² σ_y² η_b²/S²) z

    with x0 = x0(x_t, t) and ε = (x_t − α_t x0)/σ_t. The paper also draws the first state around ȳ;
    here it is that of `sample`, which is the same but for α/σ at the first time. It is not exact,
    even for Gaussian data.

    1 NFE per step; stochastic unless η = 0 and nothing is measured. Kawar et al. 2022,
    arXiv:2201.11793, eq. (7) and (8), where the noise levels are those of x/α.

    Args:
        eta: η in [0, 1].
        eta_b: η_b in [0, 1].

    Raises:
        ValueError: If a number is out of range.
    """

    measured: ClassVar[bool] = True

    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("eta", self.eta, at_least=0, at_most=1)
        check_number("eta_b", self.eta_b, at_least=0, at_most=1)

    @property
    def starts_in_noise(self) -> bool:
        """Yes: no step divides by α."""
        return True

    def counted_on(self, model: ScoreModel) -> ScoreModel:
        """A model with a measurement."""
        return of_nothing(model)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """One step; x of shape (B, *D)."""
        problem = measured_in(model, self)
        operator, std = problem.operator, problem.noise
        known, z = operator.A_dagger(problem.measurement(x)), noise.increment(x, t.t, s.t)
        kept = math.sqrt(1 - self.eta**2) * s.sigma

        def weight(singular: Tensor) -> Tensor:
            """Factor of ȳ; that of x0 is α_s minus it."""
            low = kept * singular / std if std > 0 else singular
            return torch.where(self._noisy(singular, s, std), self.eta_b * s.alpha, low)

        def spread(singular: Tensor) -> Tensor:
            """Factor of z."""
            square = s.sigma**2 - (s.alpha * std * self.eta_b / singular) ** 2
            high = square.clamp(min=0).sqrt()
            return torch.where(self._noisy(singular, s, std), high, self.eta * s.sigma)

        # first: it refuses an operator of unknown singular values, before the model is evaluated
        noisy = operator.filter(z, spread)
        x0 = model.x0(x, t)
        free = s.alpha * x0 + (kept / t.sigma) * (x - t.alpha * x0) + self.eta * s.sigma * z
        moved = operator.filter(known - x0, weight) + noisy
        return free + operator.filter(s.alpha * x0 - free, torch.ones_like) + moved, None

    def _noisy(self, singular: Tensor, s: Node, std: float) -> Tensor:
        """Whether x_s has more noise than ȳ: σ_s S ≥ α_s σ_y."""
        return s.sigma * singular >= s.alpha * std
