"""TabulatedVP: a discrete DDPM, given by its table of β, as an SDE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator
from torch import Tensor

from .._tensor import as_time, check_integer, check_number, equally_spaced, float64
from .base import VariancePreserving
from .zero_snr import LastInterval, last_interval

__all__ = ["TabulatedVP", "cosine_betas", "linear_betas"]


@dataclass(frozen=True)
class TabulatedVP(VariancePreserving):
    """A discrete DDPM (a table of β) as a continuous variance-preserving SDE.

    ᾱ_i = Π_{j≤i} (1 − β_j) is the value at t_i = (i + 1)/N, and log ᾱ(0) = 0. Between the knots
    log ᾱ is the monotone cubic PCHIP (Fritsch & Butland 1984), so that f is continuous. With a
    piecewise-linear log ᾱ f would jump, and an adaptive solver at tolerance 1e-8 would need 30
    times as many evaluations. At the knots ᾱ is that of the table, to rounding.

    A table with β_N = 1 ends in pure noise (zero terminal SNR, see `zero_terminal_snr`): α(1) = 0,
    λ(1) = f(1) = −∞ and g(1) = ∞. In its last interval log ᾱ has no cubic. There the angle
    φ = arctan(α/σ) is interpolated, see `LastInterval`; f is continuous, α' and σ' are finite.

    Args:
        betas: β_1..β_N, each in (0, 1), the last one in (0, 1]; N ≥ 2; any sequence of numbers.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        betas = tuple(float(b) for b in self.betas)
        if len(betas) < 2:
            raise ValueError(f"betas must hold at least 2 values, got {len(betas)}")
        ends = (*betas[:-1], 0.5 if betas[-1] == 1 else betas[-1])
        bad = next((i for i, b in enumerate(ends) if not 0 < b < 1), None)
        if bad is not None:
            raise ValueError(
                f"betas must lie in (0, 1), the last one in (0, 1], got betas[{bad}] = {betas[bad]}"
            )
        object.__setattr__(self, "betas", betas)

    def __repr__(self) -> str:
        return f"TabulatedVP(N={len(self.betas)}, {self.betas[0]:g}..{self.betas[-1]:g})"

    @property
    def levels(self) -> int:
        """N, the length of the table."""
        return len(self.betas)

    @property
    def ends_in_noise(self) -> bool:
        """Whether α(1) = 0, because β_N = 1."""
        return self.betas[-1] == 1

    @cached_property
    def _last(self) -> LastInterval | None:
        """The last interval, if the table ends in pure noise."""
        return last_interval(self._finite_log_alpha_bar.tolist()) if self.ends_in_noise else None

    @cached_property
    def _finite_log_alpha_bar(self) -> np.ndarray:
        """log ᾱ at the knots 0, 1/N, …, without the last one if it is −∞."""
        betas = self.betas[:-1] if self.ends_in_noise else self.betas
        return np.concatenate([[0.0], np.cumsum(np.log1p(-np.array(betas)))])

    @cached_property
    def _cubics(self) -> np.ndarray:
        """Coefficients (4, N), highest power first, of log ᾱ on [i/N, (i+1)/N].

        Where ᾱ(1) = 0 those of the last interval are only its first value, see `_last`.
        """
        log_alpha_bar = self._finite_log_alpha_bar
        knots = np.arange(len(self.betas) + 1) / len(self.betas)
        if self._last is None:
            return PchipInterpolator(knots, log_alpha_bar).c
        knots = knots[:-1]
        slopes = PchipInterpolator(knots, log_alpha_bar).derivative()(knots)
        slopes[-1] = 2 * float(self._last.f(float64(knots[-1])))
        left = CubicHermiteSpline(knots, log_alpha_bar, slopes).c
        return np.concatenate([left, [[0.0], [0.0], [0.0], log_alpha_bar[-1:]]], axis=1)

    def _index(self, t: Tensor) -> Tensor:
        """Index i of the interval [i/N, (i + 1)/N] that holds each time."""
        n = len(self.betas)
        return (t.detach().double() * n).floor().clamp(0, n - 1).long()

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cubic coefficients at each time, shape (4, *t.shape), and t's offset from its knot."""
        n, i = len(self.betas), self._index(t)
        cubics = torch.from_numpy(self._cubics).to(t.device, non_blocking=True)[:, i].to(t.dtype)
        return cubics, t - i.to(t.dtype) / n

    def _with_last(
        self,
        t: Tensor,
        before: Callable[[Tensor], Tensor],
        last: Callable[[LastInterval, Tensor], Tensor],
    ) -> Tensor:
        """One function before the last interval and another in it, if the table ends in noise."""
        if self._last is None:
            return before(t)
        inside, width = self._index(t) == len(self.betas) - 1, self._last.width
        # Each function sees some other time where it is not used, so that no infinity occurs.
        used = last(self._last, torch.where(inside, t, 1 - 0.5 * width))
        return torch.where(inside, used, before(torch.where(inside, 0.5 * width, t)))

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """Half of the PCHIP of log ᾱ."""
        return self._with_last(as_time(t), self._log_alpha_of_cubics, LastInterval.log_alpha)

    def _log_alpha_of_cubics(self, t: Tensor) -> Tensor:
        (a, b, c, d), u = self._piece(t)
        return 0.5 * (((a * u + b) * u + c) * u + d)

    def alpha(self, t: Tensor | float) -> Tensor:
        """α(t); in the last interval of a table that ends in noise sin φ."""
        return self._with_last(as_time(t), super().alpha, LastInterval.alpha)

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = √(1 − α²); in the last interval of a table that ends in noise cos φ."""
        return self._with_last(as_time(t), super().sigma, LastInterval.sigma)

    def f(self, t: Tensor | float) -> Tensor:
        """f = d log α/dt."""
        return self._with_last(as_time(t), self._f_of_cubics, LastInterval.f)

    def _f_of_cubics(self, t: Tensor) -> Tensor:
        (a, b, c, _), u = self._piece(t)
        # Where the slope of the monotone cubic is 0, it may round to +1e-16, and g would be NaN.
        return (0.5 * ((3 * a * u + 2 * b) * u + c)).clamp(max=0)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """(α', σ'), finite up to t = 1."""
        t, before = as_time(t), super().rates
        return tuple(
            self._with_last(t, lambda u, k=k: before(u)[k], lambda last, u, k=k: last.rates(u)[k])
            for k in range(2)
        )

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, by bisection on the piece of log ᾱ = −log(1 + e^{−2λ}) that holds it."""
        lam = as_time(lam).double()
        before = self._t_of_cubics(lam)
        if self._last is None:
            return before
        knot = math.log(math.tan(self._last.first))
        return torch.where(lam <= knot, self._last.t_of_lam(lam.clamp(max=knot)), before)

    def _t_of_cubics(self, lam: Tensor) -> Tensor:
        """t at λ from the cubics."""
        target = 2 * self._log_alpha_of(lam)
        n = len(self.betas)
        cubics = torch.from_numpy(self._cubics).to(target.device, non_blocking=True)
        # log ᾱ decreases, and its value at the start of a piece is the cubic's last coefficient
        i = (torch.searchsorted(-cubics[3], -target) - 1).clamp(0, n - 1)
        a, b, c, d = cubics[:, i]
        rest, u, step = d - target, torch.zeros_like(target), 1 / n
        while step > 2.0**-60:  # below float64's spacing at t = 1e-5
            step /= 2
            middle = u + step
            value = ((a * middle + b) * middle + c) * middle + rest
            u = torch.where(value > 0, middle, u)
        return i.double() / n + (u + step / 2)


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """DDPM betas that grow linearly: β_i = first + (i − 1)/(N − 1) (last − first), i = 1 … N.

    Ho et al. 2020, arXiv:2006.11239, section 4, with N = 1000.

    Args:
        steps: N ≥ 2.
        first: β_1, in (0, 1).
        last: β_N, in (0, 1).

    Returns:
        Shape (N,), float64.
    """
    steps = check_integer("steps", steps, minimum=2)
    first = check_number("first", first, above=0, below=1)
    last = check_number("last", last, above=0, below=1)
    return equally_spaced(first, last, steps)


def cosine_betas(steps: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """DDPM betas of the cosine schedule: β_i = min(1 − ᾱ(t_{i+1})/ᾱ(t_i), max_beta).

        ᾱ(t) ∝ cos²((t + s)/(1 + s) π/2),   t_i = i/N

    Nichol & Dhariwal 2021, arXiv:2102.09672, eq. (17).

    Args:
        steps: N ≥ 2.
        s: Offset that keeps β from being tiny near t = 0.
        max_beta: Clip that keeps the last ᾱ positive, in (0, 1).

    Returns:
        Shape (N,), float64.
    """
    steps = check_integer("steps", steps, minimum=2)
    s = check_number("s", s, at_least=0)
    max_beta = check_number("max_beta", max_beta, above=0, below=1)
    t = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    alpha_bar = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)
