"""Langevin dynamics: the corrector of predictor–corrector sampling, and NCSN's annealed sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .._tensor import check_choice, check_integer, check_number, plain_numbers
from ..noise import Noise
from ..score import ScoreModel
from ..sde import Node
from .base import Corrector, GridSampler

__all__ = ["AnnealedLangevin", "Langevin"]

Norm = Literal["exact", "batch"]


@dataclass(frozen=True)
class Langevin(Corrector):
    """The Langevin corrector, at the time s that a predictor has just reached from t.

        x ← x + ε score(x, s) + √(2ε) z,   ε = 2a (snr · n)²,   a = (α_t/α_s)²

    In the paper n is ‖z‖/‖score‖. Here n is σ_s by default, the limit of that ratio in high
    dimension. Then a sample does not depend on its batch mates, and the corrector is affine for
    Gaussian data. a is DDPM's α_i = 1 − β_i of the interval, and 1 under VE.

    `steps` NFE per correction; stochastic. Song et al. 2021, arXiv:2011.13456, algorithms 4 and
    5, appendix G (where r is our snr).

    Args:
        snr: Signal-to-noise ratio of the step, greater than 0.
        steps: Langevin steps per correction, at least 1.
        norm: "exact" is n = σ_s. "batch" is the choice of the authors' code: the mean of ‖z‖ over
            the batch divided by the mean of ‖score‖. A sample then depends on its batch.

    Raises:
        ValueError: On an argument out of range.
    """

    snr: float = 0.16
    steps: int = 1
    norm: Norm = "exact"

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("snr", self.snr, above=0)
        check_integer("steps", self.steps, minimum=1)
        check_choice("norm", self.norm, get_args(Norm))

    def correct(self, model: ScoreModel, x: Tensor, t: Node, s: Node, noise: Noise) -> Tensor:
        """`steps` Langevin steps at s; x of shape (B, *D)."""
        a = (t.alpha / s.alpha) ** 2
        for _ in range(self.steps):
            eps = model.eps(x, s)
            z = noise.fresh(x)
            n = s.sigma if self.norm == "exact" else s.sigma * _mean_norm(z) / _mean_norm(eps)
            step = 2 * a * (self.snr * n) ** 2
            # score = −ε/σ
            x = _plus(_plus(x, -step / s.sigma, eps), (2 * step) ** 0.5, z)
        return x


@dataclass(frozen=True)
class AnnealedLangevin(GridSampler):
    """NCSN's annealed Langevin dynamics: K Langevin steps at every time of the grid.

        x ← x + (a_i/2) score(x, t_i) + √a_i z,   a_i = c σ_i²

    and x ← (α_s/α_t) x between two levels (no change under VE). The paper's a_i = ε σ_i²/σ_L²
    corresponds to c = ε/σ_L²; NCSN's ε = 2e-5 at σ_L = 0.01 is c = 0.2. Unlike ε, c does not depend
    on the last level of the grid, and the chain is stable for every c < 4 under every SDE.
    The sampler is biased: the steps are finite, and K of them do not reach equilibrium.

    K NFE at each of the N + 1 times; stochastic. Song & Ermon 2019, arXiv:1907.05600, algorithm
    1. The final denoising of Song & Ermon 2020 (NCSNv2), arXiv:2006.09011, is
    `sample(denoise=True)`.

    Args:
        steps: K, at least 1.
        step_size: c, in (0, 4).

    Raises:
        ValueError: On an argument out of range.
    """

    steps: int = 100
    step_size: float = 0.2

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("steps", self.steps, minimum=1)
        check_number("step_size", self.step_size, above=0, below=4)

    @classmethod
    def for_ratio(cls, ratio: float, steps: int = 5) -> AnnealedLangevin:
        """The step size of NCSNv2 for a geometric ladder of noise levels.

        If the data are one point, x ~ N(0, σ_{i−1}² I) becomes in K steps at σ_i a Gaussian of the
        variance s² with

            s²/σ_i² = (1 − η)^{2K} (γ² − v) + v,   v = 2/(2 − η),   η = c/2,   γ = σ_{i−1}/σ_i

        which is above 1 for every η in (0, 1). This is the c at which it is least. Song & Ermon
        2020, arXiv:2006.09011, technique 4 and eq. (4), where η is ε/σ_L².

        Args:
            ratio: γ > 1, for VE `sde.ratio(levels)`.
            steps: K, at least 1.
        """
        check_number("ratio", ratio, above=1)
        check_integer("steps", steps, minimum=1)

        def variance(eta: float) -> float:
            v = 2 / (2 - eta)
            return (1 - eta) ** (2 * steps) * (ratio**2 - v) + v

        low, high = 0.0, 1.0
        for _ in range(100):  # the ends enclose the only minimum, and move together by a third
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if variance(left) < variance(right) else (left, high)
        return cls(steps, low + high)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: None, noise: Noise
    ) -> tuple[Tensor, None]:
        """The Langevin steps at t, then x scaled to s; x of shape (B, *D)."""
        return (s.alpha / t.alpha) * self._level(model, x, t, noise), None

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """The Langevin steps at the last time."""
        return self._level(model, x, t, noise)

    def _level(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        a = self.step_size * t.sigma**2
        for _ in range(self.steps):
            # score = −ε/σ
            mean = torch.add(x, model.eps(x, t), alpha=-0.5 * a / t.sigma)
            x = mean.add_(noise.fresh(x), alpha=math.sqrt(a))
        return x


def _mean_norm(x: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean norm of a sample, shape (): it is not read here."""
    return x.reshape(x.shape[0], -1).norm(dim=1).mean()


def _plus(x: Tensor, factor: float | Tensor, y: Tensor) -> Tensor:
    """x + factor y, for a number or a tensor of shape ()."""
    if isinstance(factor, Tensor):
        return torch.addcmul(x, factor, y)
    return torch.add(x, y, alpha=factor)
