"""The base class of forward SDEs, `SDE`.

Everything is written with five functions of time t in [0, 1] (0 = data, 1 = noise):

    x_t = α(t) x_0 + σ(t) ε            perturbation kernel, ε ~ N(0, I)
    dx  = f(t) x dt + g(t) dw          the SDE with this kernel
    λ(t) = log(α(t)/σ(t))              half log signal-to-noise ratio, decreasing in t

They satisfy f = d log α/dt and g² = dσ²/dt − 2 f σ² (Kingma et al. 2021, "Variational
Diffusion Models", appendix). VP, SubVP and VE are in Song et al. 2021, "Score-Based Generative
Modeling through SDEs", arXiv:2011.13456, sections 3.4 and appendices B and C.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .._deferred import refuse
from .._tensor import as_time, check_integer, expand, float64
from .node import Node

__all__ = ["REGULAR_LAM", "SAME_TIME", "SDE", "VariancePreserving"]

# Times closer than this count as equal. It is far above the rounding of i/L, and far below the
# spacing of any ladder.
SAME_TIME = 1e-9

# Relative distance by which a noise level may lie outside an SDE's range.
_ROUNDING = 1e-9

# λ at which what needs a finite f, g or λ starts, if α(1) = 0: the data are then 0.25 % of x.
REGULAR_LAM = -6.0

# Largest α/σ at which sampling may start from a normal distribution; above, x_init is needed.
_START_RATIO = 0.1


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

    @cached_property
    def ends_in_noise(self) -> bool:
        """Whether α(1) = 0, so that x at t = 1 is pure noise.

        Then f, g and λ are infinite at t = 1, and whatever needs them starts at `t_regular`. The
        probability-flow ODE dx/dt = α′ x̂0 + σ′ ε̂ is regular at t = 1, if the model is.
        """
        return float(self.log_alpha(1.0)) == -math.inf

    @property
    def t_regular(self) -> float:
        """The largest time at which f, g and λ may be used: λ = −6 if α(1) = 0, otherwise 1."""
        return float(self.t_of_lam(REGULAR_LAM)) if self.ends_in_noise else 1.0

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """α′(t) and σ′(t), like t: α′ = f α and σ′ = g²/(2σ) + f σ.

        An SDE with α(1) = 0 defines its own, which are finite at t = 1.
        """
        return _rates(self.alpha(t), self.sigma(t), self.f(t), self.g(t))

    def start_std(self, t: float) -> float:
        """Standard deviation s of N(0, s² I), from which sampling may start at time t.

            s² = α(t)² v + σ(t)²,   v = max(0, (prior_std² − σ(1)²)/α(1)²)

        v is the variance of data for which the prior is the marginal at t = 1, or 1 if α(1) = 0,
        where the prior is the marginal for all data. So s is `prior_std`
        at t = 1, and at all times it is 1 for VP and σ(t) for VE. The true mean and variance of x_t
        depend on the data. They are near 0 and s² where α/σ is small: for data of variance 1 the
        relative error of the variance is at most about (α/σ)², which is 1 % at the limit.

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
        known = end.alpha > 0
        variance = max(0.0, (self.prior_std**2 - end.sigma**2) / end.alpha**2) if known else 1.0
        return math.sqrt(start.alpha**2 * variance + start.sigma**2)

    def alpha(self, t: Tensor | float) -> Tensor:
        """α(t), the scale of x_0 in x_t."""
        return torch.exp(self.log_alpha(t))

    def lam(self, t: Tensor | float) -> Tensor:
        """λ(t) = log(α(t)/σ(t)), half the log signal-to-noise ratio."""
        return self.log_alpha(t) - torch.log(self.sigma(t))

    def t_of_sigma(self, sigma: Tensor | float) -> Tensor:
        """The time at which σ(t)/α(t) = `sigma`, the noise level of x_t/α = x_0 + (σ/α) ε.

        Args:
            sigma: Noise levels, of any shape.

        Returns:
            Times in [0, 1], like `sigma`.

        Raises:
            ValueError: If a noise level is not in the range of the SDE, σ(0)/α(0) to σ(1)/α(1).
        """
        sigma = as_time(sigma)
        least, largest = torch.exp(-self.lam(float64([0.0, 1.0]))).tolist()
        bad = ~((sigma >= least * (1 - _ROUNDING)) & (sigma <= largest * (1 + _ROUNDING)))
        if bool(bad.any()):
            raise ValueError(
                f"sigma must lie in {least:.6g} to {largest:.6g} for {type(self).__name__}, got "
                f"{float(sigma[bad][0]):.6g}"
            )
        return self.t_of_lam(-torch.log(sigma)).clamp(0, 1)

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

        The last form does not lose digits if t and s are close. On DDPM's ladder σ²_{t|s} is its β.
        """
        return t.alpha / s.alpha, t.sigma * math.sqrt(-math.expm1(2 * (t.lam - s.lam)))

    @property
    def levels(self) -> int | None:
        """Number L of times of the discrete model behind the SDE; None if there is none."""
        return None

    def label(self, t: Tensor | float) -> Tensor:
        """The index L t − 1 of the discrete model's time label, clipped at 0; continuous in t.

        Raises:
            ValueError: If `levels` is None.
        """
        return (as_time(t) * self._check_levels(None) - 1).clamp(min=0)

    def ladder(self, levels: int | None = None) -> Tensor:
        """The decreasing times of a discrete model with L levels: 1, (L − 1)/L, ..., 1/L.

        Args:
            levels: L ≥ 2; None = `self.levels`.

        Returns:
            Shape (L,), float64.

        Raises:
            ValueError: If both are None, or if they differ and neither is None.
        """
        levels = self._check_levels(levels)
        return torch.arange(levels, 0, -1, dtype=torch.float64, device="cpu") / levels

    def _check_levels(self, levels: int | None) -> int:
        """The number of levels of a ladder, checked."""
        own = self.levels
        if levels is None and own is None:
            raise ValueError(f"{type(self).__name__} has no discrete times of its own")
        if levels is not None and own is not None and levels != own:
            raise ValueError(f"levels must be the table's {own}, got {levels}")
        return check_integer("levels", own if levels is None else levels, minimum=2)

    def nodes(self, ts: Tensor | Sequence[float]) -> list[Node]:
        """The SDE at each time of a grid, as numbers, computed in one vectorised call.

        Args:
            ts: Times in [0, 1], N of them.

        Raises:
            ValueError: If a time is outside [0, 1], NaN, or one at which σ = 0.
        """
        ts = ts.to(torch.float64) if isinstance(ts, Tensor) else float64(ts)
        # Checks of Python numbers cost far less than those of tensors.
        if not all(0 <= t <= 1 for t in ts.tolist()):  # NaN too
            raise _outside(ts)
        nodes = [Node(*row) for row in torch.stack(self._columns(ts), dim=1).tolist()]
        if noiseless := sum(node.sigma <= 0 for node in nodes):
            raise self._no_noise(noiseless)
        return nodes

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
        refuse(~((t >= 0) & (t <= 1)), lambda n: _outside(t))  # NaN too
        columns = self._columns(t)
        refuse(columns[Node._fields.index("sigma")] <= 0, self._no_noise)
        if t.device != x.device:
            # One copy, which need not wait for the work that the device has before it.
            columns = torch.stack(columns).to(x.device, non_blocking=True).unbind(0)
        return Node(*(expand(c, x) for c in columns))

    def _columns(self, ts: Tensor) -> tuple[Tensor, ...]:
        """A node's entries at checked float64 times, each like `ts`."""
        alpha, sigma, f, g = self.alpha(ts), self.sigma(ts), self.f(ts), self.g(ts)
        rates = self.rates(ts) if self.ends_in_noise else _rates(alpha, sigma, f, g)
        lam = self.log_alpha(ts) - torch.log(sigma)  # `lam`, without a second σ
        return ts, alpha, sigma, lam, f, g, *rates

    def _no_noise(self, times: int) -> ValueError:
        """The error for a number of times at which σ = 0."""
        return ValueError(
            f"t_min must be greater than 0 for {type(self).__name__}: σ(0) = 0, where the score "
            "1/σ is infinite; 1e-3 or 1e-5 are usual"
        )


class VariancePreserving(SDE):
    """An SDE with α² + σ² = 1, so that g² = −2 f: σ and g follow from log α and f."""

    def sigma(self, t: Tensor | float) -> Tensor:
        """σ(t) = √(1 − α²)."""
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))

    def g(self, t: Tensor | float) -> Tensor:
        """g(t) = √(−2 f(t))."""
        return torch.sqrt(-2 * self.f(t))

    def _log_alpha_of(self, lam: Tensor) -> Tensor:
        """log α at λ: −log(1 + e^{−2λ})/2, without overflow."""
        # torch's own softplus is linear above 20, off by 2e-9
        return -0.5 * torch.logaddexp(torch.zeros_like(lam), -2 * lam)


def _outside(ts: Tensor) -> ValueError:
    """The error for times that are NaN or not in [0, 1]."""
    return ValueError(f"times must lie in [0, 1], got {ts.tolist()}")


def _rates(alpha: Tensor, sigma: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """α′ and σ′ where f and g are finite, from f = α′/α and g² = 2 σ σ′ − 2 f σ²."""
    return alpha * f, 0.5 * g.square() / sigma + f * sigma
