"""The forward SDE: VP, SubVP, VE, CosineVP and TabulatedVP (a discrete DDPM as an SDE).

Everything is said with five functions of time t in [0, 1] (0 = data, 1 = noise):

    x_t = α(t) x_0 + σ(t) ε            perturbation kernel, ε ~ N(0, I)
    dx  = f(t) x dt + g(t) dw          the SDE whose kernel that is
    λ(t) = log(α(t)/σ(t))              half log signal-to-noise ratio, decreasing in t

They are tied by f = d log α/dt and g² = dσ²/dt − 2 f σ² (Kingma et al. 2021, "Variational
Diffusion Models", appendix). VP, SubVP and VE are in Song et al. 2021, "Score-Based Generative
Modeling through SDEs", arXiv:2011.13456, sections 3.4 and appendices B and C.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ._tensor import (
    as_time,
    check_integer,
    check_number,
    equally_spaced,
    expand,
    float64,
    plain_numbers,
)

__all__ = ["SDE", "VE", "VP", "CosineVP", "Node", "SubVP", "TabulatedVP", "cosine_betas"]


# Largest α/σ at which sampling starts from a normal distribution instead of from x_init.
_START_RATIO = 0.1


class Node(NamedTuple):
    """An SDE at one time: float64 numbers, or tensors of shape (B, 1, ..., 1) if times differ.

    Numbers, because arithmetic on 0-d tensors costs more per step than a small network.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor
    lam: float | Tensor
    f: float | Tensor
    g: float | Tensor


@dataclass(frozen=True)
class SDE(ABC):
    """dx = f(t) x dt + g(t) dw with kernel x_t = α(t) x_0 + σ(t) ε.

    The methods take a number or a tensor of times of any shape and return a tensor of that shape
    (float64 for numbers).
    """

    @abstractmethod
    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α(t)."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t), the standard deviation of x_t given x_0."""

    @abstractmethod
    def f(self, t: Tensor | float) -> Tensor:
        """f(t), the drift coefficient in f(t) x."""

    @abstractmethod
    def g(self, t: Tensor | float) -> Tensor:
        """g(t), the diffusion coefficient."""

    @abstractmethod
    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """The time at which λ(t) = `lam`; the inverse of `lam`."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior that sampling starts from: 1."""
        return 1.0

    def start_std(self, t: float) -> float:
        """Standard deviation s of N(0, s² I), from which sampling may start at time t.

            s² = α(t)² v + σ(t)²,   v = max(0, (prior_std² − σ(1)²)/α(1)²)

        v is the variance of data for which the prior is the marginal at t = 1, so that s is
        `prior_std` there, and 1 for VP and σ(t) for VE at all times. The true mean and variance
        of x_t depend on the data. They are near 0 and s² where α/σ is small: for data of
        variance 1 the wrong part of the variance is at most about (α/σ)², 1 % at the limit.

        Args:
            t: First time of a grid, in (0, 1].

        Raises:
            ValueError: If t < 1 and α(t)/σ(t) is above 0.1.
        """
        if t == 1:
            return self.prior_std
        start, end = self.nodes([t, 1.0])
        ratio = start.alpha / start.sigma
        if ratio > _START_RATIO:
            raise ValueError(
                f"x_init must be given for a grid that starts at t = {t:g}: α/σ is {ratio:.2g} "
                f"there, above {_START_RATIO}, so that x depends on the data and cannot be drawn "
                "from a normal distribution; or start at t = 1"
            )
        variance = max(0.0, (self.prior_std**2 - end.sigma**2) / end.alpha**2)
        return math.sqrt(start.alpha**2 * variance + start.sigma**2)

    def alpha(self, t: Tensor | float) -> Tensor:
        """α(t), the scale of x_0 in x_t."""
        return torch.exp(self.log_alpha(t))

    def lam(self, t: Tensor | float) -> Tensor:
        """λ(t) = log(α(t)/σ(t)), half the log signal-to-noise ratio."""
        return self.log_alpha(t) - torch.log(self.sigma(t))

    def perturb(self, x0: Tensor, t: Tensor | float, eps: Tensor) -> Tensor:
        """x_t = α(t) x_0 + σ(t) ε.

        Args:
            x0: Data, shape (B, *D).
            t: Times, shape () or (B,).
            eps: Noise like `x0`.

        Returns:
            x_t in the dtype of `x0`.
        """
        t = as_time(t)
        alpha, sigma = (expand(v, x0).to(x0) for v in (self.alpha(t), self.sigma(t)))
        return alpha * x0 + sigma * eps

    def drift(self, x: Tensor, t: Tensor | float) -> Tensor:
        """f(t) x, the forward drift; x of shape (B, *D), t of shape () or (B,)."""
        return expand(self.f(as_time(t)), x).to(x) * x

    def transition(self, t: Node, s: Node) -> tuple[float, float]:
        """Mean factor and standard deviation of x_t given x_s, for s ≤ t.

            α_t/α_s  and  σ_{t|s},  σ²_{t|s} = σ_t² − (α_t/α_s)² σ_s² = σ_t² (1 − e^{2(λ_t − λ_s)})

        The last form does not cancel for close times. On DDPM's ladder σ²_{t|s} is its β.
        """
        return t.alpha / s.alpha, t.sigma * math.sqrt(-math.expm1(2 * (t.lam - s.lam)))

    def ladder(self, levels: int) -> Tensor:
        """The decreasing times of a discrete model with so many levels: 1, (L−1)/L, ..., 1/L.

        Args:
            levels: L ≥ 2.

        Returns:
            Shape (L,), float64.
        """
        levels = check_integer("levels", levels, minimum=2)
        return torch.arange(levels, 0, -1, dtype=torch.float64, device="cpu") / levels

    def nodes(self, ts: Tensor | Sequence[float]) -> list[Node]:
        """The SDE at each time of a grid, as numbers, computed in one vectorised call.

        Args:
            ts: Times in [0, 1], N of them.

        Raises:
            ValueError: If a time is outside [0, 1], NaN, or one at which σ = 0.
        """
        ts = ts.to(torch.float64) if isinstance(ts, Tensor) else float64(ts)
        columns = self._columns(ts)
        return [Node(*row) for row in torch.stack(columns, dim=1).tolist()]

    def at(self, t: Tensor | float | Node, x: Tensor) -> Node:
        """The SDE at time t for a state x: `t` itself if it is a `Node` already.

        Args:
            t: A node, a number, or a tensor of shape () or (B,).
            x: State, shape (B, *D).

        Returns:
            A node of numbers for one common time, of (B, 1, ..., 1) tensors for times per sample.

        Raises:
            ValueError: If a time is outside [0, 1], NaN, or one at which σ = 0, or if `t` is
                neither one time nor one per sample.
        """
        if isinstance(t, Node):
            return t
        t = as_time(t).to(torch.float64)
        if t.ndim == 0:
            return self.nodes(t.reshape(1))[0]
        return Node(*(expand(c, x) for c in self._columns(t.to(x.device))))

    def _columns(self, ts: Tensor) -> tuple[Tensor, ...]:
        """A node's entries at checked float64 times, each like `ts`."""
        if not bool(((ts >= 0) & (ts <= 1)).all()):
            raise ValueError(f"times must lie in [0, 1], got {ts.tolist()}")
        sigma = self.sigma(ts)
        if bool((sigma <= 0).any()):
            raise ValueError(
                f"t_min must be greater than 0 for {type(self).__name__}: σ(0) = 0, where the "
                "score 1/σ is infinite; 1e-3 or 1e-5 are usual"
            )
        return ts, self.alpha(ts), sigma, self.lam(ts), self.f(ts), self.g(ts)


@dataclass(frozen=True)
class _LinearBeta(SDE):
    """What VP and SubVP share: β(t) = β_min + t (β_max − β_min), α and f."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("beta_min", self.beta_min, at_least=0)
        check_number("beta_max", self.beta_max)
        if not self.beta_max > self.beta_min:
            raise ValueError(
                f"beta_max must be greater than beta_min, got {self.beta_max} and {self.beta_min}"
            )

    def beta(self, t: Tensor | float) -> Tensor:
        """β(t) = β_min + t (β_max − β_min)."""
        return self.beta_min + as_time(t) * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log α = −t²/4 (β_max − β_min) − t/2 β_min, the integral of f."""
        t = as_time(t)
        return -0.25 * t * t * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def f(self, t: Tensor | float) -> Tensor:
        """f(t) = −β(t)/2."""
        return -0.5 * self.beta(t)

    def _t_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The root t of the quadratic `log_alpha`, in the form that does not cancel."""
        b = -2 * log_alpha
        slope = self.beta_max - self.beta_min
        return 2 * b / (torch.sqrt(self.beta_min**2 + 2 * slope * b) + self.beta_min)


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance-preserving SDE; its discretization is DDPM.

        β(t) = β_min + t (β_max − β_min),   f = −β/2,   g = √β
        log α = −t²/4 (β_max − β_min) − t/2 β_min,   σ² = 1 − α²

    Song et al. 2021, arXiv:2011.13456, eq. (11), (32), (33).

    Args:
        beta_min: β(0) ≥ 0.
        beta_max: β(1) > β_min.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = √(1 − α²)."""
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = √β(t)."""
        return torch.sqrt(self.beta(t))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, from −2 log α = log(1 + e^{−2λ})."""
        return self._t_of_log_alpha(-0.5 * _softplus(-2 * as_time(lam)))

    def ddpm_betas(self, steps: int) -> Tensor:
        """DDPM's β_1..β_N on N steps: β_i = (β_min + i/(N−1) (β_max − β_min))/N, i = 0..N−1.

        VP(0.1, 20).ddpm_betas(1000) is Ho et al.'s linear schedule 1e-4..0.02. The way back is
        `TabulatedVP(betas)`, which keeps this ladder, or `VP(N β_1, N β_N)`, its N → ∞ limit.

        Args:
            steps: N, at least 2 and so large that every β_i < 1 (β_max < N).

        Returns:
            Shape (N,), float64.

        Raises:
            ValueError: If N is too small for β_i < 1.
        """
        steps = check_integer("steps", steps, minimum=2)
        if not steps > self.beta_max:
            raise ValueError(
                f"steps must be greater than beta_max = {self.beta_max} (else β_i ≥ 1), got {steps}"
            )
        return equally_spaced(self.beta_min, self.beta_max, steps) / steps


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-VP SDE: β, α and f of VP with the smaller kernel σ = 1 − α².

        g² = β (1 − α⁴)

    Song et al. 2021, arXiv:2011.13456, section 3.4 and appendix B.

    Args:
        beta_min: β(0) ≥ 0.
        beta_max: β(1) > β_min.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = 1 − α²."""
        return -torch.expm1(2 * self.log_alpha(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = √(β (1 − α⁴))."""
        return torch.sqrt(self.beta(t) * -torch.expm1(4 * self.log_alpha(t)))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, from e^{−λ} = 1/α − α = 2 sinh(−log α)."""
        return self._t_of_log_alpha(-torch.asinh(0.5 * torch.exp(-as_time(lam))))


@dataclass(frozen=True)
class VE(SDE):
    """Variance-exploding SDE (NCSN): α = 1, σ(t) = σ_min (σ_max/σ_min)^t.

        g = σ(t) √(2 log(σ_max/σ_min))

    Convention of the paper's code and ours: the kernel's standard deviation is σ(t), so that
    x at t = 0 already carries σ_min; the SDE started from clean data would have
    √(σ(t)² − σ_min²). Song et al. 2021, arXiv:2011.13456, eq. (9), (30), (31).

    Args:
        sigma_min: σ(0) > 0.
        sigma_max: σ(1) > σ_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("sigma_min", self.sigma_min, above=0)
        check_number("sigma_max", self.sigma_max)
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                "sigma_max must be greater than sigma_min, "
                f"got {self.sigma_max} and {self.sigma_min}"
            )

    @classmethod
    def from_data(cls, x: Tensor, sigma_min: float = 0.01) -> VE:
        """NCSNv2's choice: σ_max is the largest Euclidean distance between two data points.

        Song & Ermon 2020, arXiv:2006.09011, technique 1.

        Args:
            x: Data, shape (n, *D), n ≥ 2; all n² distances are computed, in pieces.
            sigma_min: σ(0).
        """
        rows = x.detach().flatten(1).double()
        return cls(sigma_min, max(float(torch.cdist(part, rows).max()) for part in rows.split(512)))

    def ladder(self, levels: int) -> Tensor:
        """Times whose σ are NCSN's geometric sequence from σ_max down to σ_min, shape (L,)."""
        levels = check_integer("levels", levels, minimum=2)
        return equally_spaced(1, 0, levels)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior: σ_max."""
        return self.sigma_max

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = σ_min (σ_max/σ_min)^t."""
        return self.sigma_min * torch.exp(as_time(t) * self._log_ratio)

    def f(self, t: Tensor | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = σ(t) √(2 log(σ_max/σ_min))."""
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ = −log σ."""
        return (-as_time(lam) - math.log(self.sigma_min)) / self._log_ratio


@dataclass(frozen=True)
class CosineVP(SDE):
    """Variance-preserving SDE on a quarter circle: α = cos θ, σ = sin θ, θ linear in t.

        θ = θ_0 + t (θ_1 − θ_0),   λ = log cot θ,   f = −θ' tan θ,   g² = 2 θ' tan θ

    θ runs between the finite half log-SNRs lam_max (t = 0) and lam_min (t = 1), because the
    textbook form ends at θ = π/2, where g is infinite. The schedule is the continuous form of
    Nichol & Dhariwal 2021, arXiv:2102.09672; the truncated form is in Hoogeboom et al. 2023,
    "Simple diffusion", arXiv:2301.11093.

    Args:
        lam_max: λ(0), half the log signal-to-noise ratio at the data end.
        lam_min: λ(1) < λ(0), at the noise end.
    """

    lam_max: float = 10.0
    lam_min: float = -6.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("lam_max", self.lam_max, at_most=20)
        check_number("lam_min", self.lam_min, at_least=-20)
        if not self.lam_min < self.lam_max:
            raise ValueError(
                f"lam_min must be less than lam_max, got {self.lam_min} and {self.lam_max}"
            )

    @property
    def _theta_span(self) -> tuple[float, float]:
        return math.atan(math.exp(-self.lam_max)), math.atan(math.exp(-self.lam_min))

    def _theta(self, t: Tensor | float) -> Tensor:
        theta_0, theta_1 = self._theta_span
        return theta_0 + as_time(t) * (theta_1 - theta_0)

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """log cos θ."""
        return torch.log(torch.cos(self._theta(t)))

    def sigma(self, t: Tensor | float) -> Tensor:
        """sin θ."""
        return torch.sin(self._theta(t))

    def f(self, t: Tensor | float) -> Tensor:
        """f = −θ' tan θ."""
        theta_0, theta_1 = self._theta_span
        return -(theta_1 - theta_0) * torch.tan(self._theta(t))

    def g(self, t: Tensor | float) -> Tensor:
        """g = √(2 θ' tan θ) = √(−2 f)."""
        return torch.sqrt(-2 * self.f(t))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ: θ = arccot e^λ."""
        theta_0, theta_1 = self._theta_span
        return (torch.atan(torch.exp(-as_time(lam))) - theta_0) / (theta_1 - theta_0)


@dataclass(frozen=True)
class TabulatedVP(SDE):
    """A discrete DDPM (a table of β) as a continuous variance-preserving SDE.

    ᾱ_i = Π_{j≤i} (1 − β_j) sits at t_i = (i + 1)/N, and log ᾱ(0) = 0. Between the knots log ᾱ is
    the monotone cubic PCHIP (Fritsch & Butland 1984), so that f is continuous: a piecewise-linear
    log ᾱ makes f jump, and an adaptive solver at tolerance 1e-8 then needs 30 times as many
    evaluations. At the knots ᾱ is the table's to rounding.

    Args:
        betas: β_1..β_N, each in (0, 1), N ≥ 2; any sequence of numbers.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        betas = tuple(float(b) for b in self.betas)
        if len(betas) < 2:
            raise ValueError(f"betas must hold at least 2 values, got {len(betas)}")
        bad = next((i for i, b in enumerate(betas) if not 0 < b < 1), None)
        if bad is not None:
            raise ValueError(f"betas must lie in (0, 1), got betas[{bad}] = {betas[bad]}")
        object.__setattr__(self, "betas", betas)

    def __repr__(self) -> str:
        return f"TabulatedVP(N={len(self.betas)}, {self.betas[0]:g}..{self.betas[-1]:g})"

    @cached_property
    def _cubics(self) -> np.ndarray:
        """Coefficients (4, N), highest power first, of log ᾱ on [i/N, (i+1)/N]."""
        log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-np.array(self.betas)))])
        knots = np.arange(len(self.betas) + 1) / len(self.betas)
        return PchipInterpolator(knots, log_alpha_bar).c

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cubic coefficients at each time, shape (4, *t.shape), and t's offset from its knot."""
        n = len(self.betas)
        i = (t.detach().double() * n).floor().clamp(0, n - 1).long()
        cubics = torch.from_numpy(self._cubics).to(t.device)[:, i].to(t.dtype)
        return cubics, t - i.to(t.dtype) / n

    def log_alpha(self, t: Tensor | float) -> Tensor:
        """Half of the PCHIP of log ᾱ."""
        (a, b, c, d), u = self._piece(as_time(t))
        return 0.5 * (((a * u + b) * u + c) * u + d)

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = √(1 − α²)."""
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def f(self, t: Tensor | float) -> Tensor:
        """f = d log α/dt."""
        (a, b, c, _), u = self._piece(as_time(t))
        # The slope of a monotone cubic may round to +1e-16 where it is 0, and g would be NaN.
        return (0.5 * ((3 * a * u + 2 * b) * u + c)).clamp(max=0)

    def g(self, t: Tensor | float) -> Tensor:
        """g = √(−2 f), as for any variance-preserving SDE."""
        return torch.sqrt(-2 * self.f(t))

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        """t at λ, by bisection on the piece of log ᾱ = −log(1 + e^{−2λ}) that holds it."""
        target = -0.5 * _softplus(-2 * as_time(lam).double())
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(60):  # halves the bracket to below float64's spacing at t = 1e-5
            middle = 0.5 * (low + high)
            below = self.log_alpha(middle) > target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def label(self, t: Tensor | float) -> Tensor:
        """The index i = N t − 1 of the discrete network's time label, clipped at 0; continuous."""
        return (as_time(t) * len(self.betas) - 1).clamp(min=0)

    def ladder(self, levels: int) -> Tensor:
        """The times of the table's own steps; `levels` must be its length N."""
        if levels != len(self.betas):
            raise ValueError(f"levels must be the table's {len(self.betas)}, got {levels}")
        return super().ladder(levels)


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


def _softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) without overflow (torch's own is linear above 20, off by 2e-9)."""
    return torch.logaddexp(torch.zeros_like(x), x)
