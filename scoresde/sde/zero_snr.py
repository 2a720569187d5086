"""Tables of β that end in pure noise: how they are made, and their last interval.

A table with β_N = 1 has ᾱ(1) = 0, so that log ᾱ(1) = −∞ has no cubic. With the angle φ of

    α = sin φ,   σ = cos φ,   λ = log tan φ,   φ(1) = 0

the last interval is smooth up to its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import float64

__all__ = ["LastInterval", "last_interval", "zero_terminal_snr"]


@dataclass(frozen=True)
class LastInterval:
    """φ on [1 − width, 1], from φ(1 − width) = `first` to φ(1) = 0.

        φ = first w/(1 + (a − 1)(1 − w)),   w = (1 − t)/width,   a = slope · width/first

    It is the only function (c_0 + c_1 w)/(c_2 + c_3 w) with these two values and −φ' = `slope` at
    the left end. It decreases for every a > 0, its inverse has the same form, and its slope at
    t = 1, first/(a width), is finite and not 0.

    Attributes:
        width: Length of the interval in t.
        first: φ at its left end, in (0, π/2).
        slope: −φ' at its left end, above 0.
    """

    width: float
    first: float
    slope: float

    @property
    def _bend(self) -> float:
        """a."""
        return self.slope * self.width / self.first

    def phi(self, t: Tensor) -> Tensor:
        """The angle φ(t)."""
        w = (1 - t) / self.width
        return self.first * w / (1 + (self._bend - 1) * (1 - w))

    def rate(self, t: Tensor) -> Tensor:
        """φ'(t) < 0."""
        w = (1 - t) / self.width
        return -self.slope / (1 + (self._bend - 1) * (1 - w)) ** 2

    def alpha(self, t: Tensor) -> Tensor:
        """sin φ."""
        return torch.sin(self.phi(t))

    def sigma(self, t: Tensor) -> Tensor:
        """cos φ."""
        return torch.cos(self.phi(t))

    def log_alpha(self, t: Tensor) -> Tensor:
        """log sin φ = −log(1 + cot² φ)/2, which keeps its digits where α is near 1."""
        return -0.5 * torch.log1p(torch.tan(self.phi(t)) ** -2)

    def f(self, t: Tensor) -> Tensor:
        """d log α/dt = φ' cot φ, −∞ at t = 1."""
        return self.rate(t) / torch.tan(self.phi(t))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α', σ') = (φ' cos φ, −φ' sin φ)."""
        phi, rate = self.phi(t), self.rate(t)
        return rate * torch.cos(phi), -rate * torch.sin(phi)

    def t_of_lam(self, lam: Tensor) -> Tensor:
        """The time of λ = log tan φ, where φ ≤ first."""
        share, a = torch.atan(torch.exp(lam)) / self.first, self._bend
        return 1 - self.width * a * share / (1 + (a - 1) * share)


def last_interval(log_alpha_bar: Sequence[float]) -> LastInterval:
    """The last interval of a table, whose slope at the left knot suits both neighbours.

    The slope is the harmonic mean of the two slopes of φ (its chords), as PCHIP takes it inside a
    table: it lies between them, and is not 0. It is cut where log ᾱ would rise before the knot: its
    slope there may be at most three times its chord (Fritsch & Carlson 1980,
    doi:10.1137/0717021).

    Args:
        log_alpha_bar: log ᾱ at the knots 0, 1/N, …, (N − 1)/N, where the first is 0.
    """
    n = len(log_alpha_bar)
    # tan φ = α/σ
    before, left = (
        math.atan2(math.exp(0.5 * v), math.sqrt(-math.expm1(v))) for v in log_alpha_bar[-2:]
    )
    chords = (before - left) * n, left * n
    slope = 2 * chords[0] * chords[1] / (chords[0] + chords[1])
    # d log ᾱ/dt = 2 φ' cot φ
    steepest = 3 * (log_alpha_bar[-2] - log_alpha_bar[-1]) * n
    return LastInterval(1 / n, left, min(slope, 0.5 * steepest * math.tan(left)))


def zero_terminal_snr(betas: Sequence[float] | Tensor) -> Tensor:
    """A table of β shifted such that it ends in pure noise: α_N = 0, and β_N = 1.

        α'_i = (α_i − α_N) α_1/(α_1 − α_N),   α_i = √ᾱ_i

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    arXiv:2305.08891, algorithm 1. A network that predicts ε says nothing at α = 0, so that it
    suits networks that predict v, x0 or a velocity.

    Args:
        betas: β_1..β_N, each in (0, 1), the last one perhaps 1 already; N ≥ 2.

    Returns:
        Shape (N,), float64.

    Raises:
        ValueError: If there are fewer than two, or one is outside (0, 1).
    """
    betas = float64([float(b) for b in betas])
    if len(betas) < 2:
        raise ValueError(f"betas must hold at least 2 values, got {len(betas)}")
    bad = ~((betas > 0) & (betas < 1))
    bad[-1] &= bool(betas[-1] != 1)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(f"betas must lie in (0, 1), got betas[{i}] = {float(betas[i])}")
    alpha = torch.log1p(-betas).cumsum(0).mul(0.5).exp()
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    alpha_bar = alpha**2
    return torch.cat([betas[:1], 1 - alpha_bar[1:] / alpha_bar[:-1]])
