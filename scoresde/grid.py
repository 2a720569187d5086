"""Time grids: decreasing float64 tensors of shape (N + 1,) from t_max to t_min.

Any sampler runs on any grid. Each function returns a grid of N steps, exactly from t_max to t_min.
The steps are equal in

    uniform      t
    quadratic    √t
    cosine       arccos of t, scaled to [−1, 1]      finer near both ends of t
    log_snr      λ = log(α/σ)
    karras       (σ/α)^{1/ρ}
    arctan       arctan(σ/(α d)), the angle
    logit        u in log(σ/α) = b + a logit(u)

`check_grid` makes a grid of times given one by one. `snapped` moves a grid to the times that a
network with discrete labels was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ._tensor import check_integer, check_number, equally_spaced, float64
from .given_times import LadderError, check_grid, check_on_ladder, snapped
from .sde import SDE

__all__ = [
    "GRIDS",
    "INFINITE_AT_NOISE",
    "LadderError",
    "arctan",
    "check_grid",
    "check_on_ladder",
    "cosine",
    "karras",
    "log_snr",
    "logit",
    "quadratic",
    "snapped",
    "uniform",
]


def uniform(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """Equal steps in t, the grid of the continuous-time samplers of Song et al. 2021.

    Args:
        sde: Only its `t_regular` is used.
        steps: N ≥ 1.
        t_min: Last time, in [0, t_max).
        t_max: First time, in (t_min, 1]. None: `sde.t_regular`, which is 1 unless α(1) = 0; there
            every sampler may start. Some samplers may start at 1 always.

    Returns:
        Shape (N + 1,).
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    return _pinned(equally_spaced(t_max, t_min, steps + 1), t_min, t_max)


def quadratic(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """Equal steps in √t: finer near the data. Song et al. 2020 (DDIM), arXiv:2010.02502, D.2.

    Arguments as for `uniform`.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    root = equally_spaced(t_max**0.5, t_min**0.5, steps + 1)
    return _pinned(root**2, t_min, t_max)


def cosine(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """Cosine spacing, t = t_min + (t_max − t_min) (1 + cos(π i/N))/2: finer near both ends.

    The Chebyshev extreme points (Trefethen 2012, "Approximation Theory and Approximation
    Practice", chapter 2). The grid of the cosine noise schedule is `arctan`.

    Arguments as for `uniform`.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    # (1 + cos 2x)/2 = cos² x, which loses no digits near t_min
    x = equally_spaced(0, math.pi / 2, steps + 1)
    return _pinned(t_min + (t_max - t_min) * torch.cos(x) ** 2, t_min, t_max)


def log_snr(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None) -> Tensor:
    """Equal steps in λ = log(α/σ). Lu et al. 2022 (DPM-Solver), arXiv:2206.00927, section 3.

    The steps are equal in log σ for VE, and in logit(σ²/(α² + σ²)) = −2λ for any SDE.

    Arguments as for `uniform`; the SDE needs σ(t_min) > 0 and α(t_max) > 0.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    lam = _finite_ends(sde, t_min, t_max)
    return _pinned(sde.t_of_lam(equally_spaced(*lam, steps + 1)), t_min, t_max)


def karras(
    sde: SDE, steps: int, t_min: float = 1e-3, t_max: float | None = None, rho: float = 7.0
) -> Tensor:
    """Equal steps in (σ/α)^{1/ρ}. Karras et al. 2022 (EDM), arXiv:2206.00364, eq. (5).

    EDM's N noise levels and final 0 correspond to a grid of N − 1 steps and a final denoising.
    Other arguments as for `uniform`; the SDE needs σ(t_min) > 0.

    Args:
        sde: The SDE, whose σ/α is spaced.
        steps: N ≥ 1.
        t_min: Last time.
        t_max: First time, at which α > 0.
        rho: ρ > 0; larger is finer near the data.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    rho = check_number("rho", rho, above=0)
    first, last = (-float64(_finite_ends(sde, t_min, t_max)) / rho).exp()
    root = first + equally_spaced(0, 1, steps + 1) * (last - first)
    return _pinned(sde.t_of_lam(-rho * root.log()), t_min, t_max)


def arctan(
    sde: SDE,
    steps: int,
    t_min: float = 1e-3,
    t_max: float | None = None,
    data_std: float = 1.0,
    power: float = 1.0,
) -> Tensor:
    """Equal steps in θ^{1/p} of the angle θ = arctan(σ/(α d)); d is `data_std`, p is `power`.

    For data N(0, d² I) and p = 1 this is the optimal grid of Sabour et al. 2024 (Align Your Steps),
    arXiv:2404.14507. Under VP with d = 1, α = cos θ and σ = sin θ (the angle of Salimans & Ho 2022,
    arXiv:2202.00512). So with p = 1 it is the grid of the cosine noise schedule, equal to `uniform`
    on `CosineVP`.

    Other arguments as for `uniform`; the SDE needs σ(t_min) > 0. d > 0 and p > 0; a smaller d or a
    larger p makes the grid finer near the data. For correlated data a good d is the standard
    deviation along the first principal component.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    data_std = check_number("data_std", data_std, above=0)
    power = check_number("power", power, above=0)
    ends = float64(_lam_ends(sde, t_min, t_max))
    first, last = (torch.atan(torch.exp(-ends) / data_std) ** (1 / power)).tolist()
    theta = equally_spaced(first, last, steps + 1) ** power
    return _pinned(sde.t_of_lam(-torch.log(data_std * torch.tan(theta))), t_min, t_max)


def logit(
    sde: SDE,
    steps: int,
    t_min: float = 1e-3,
    t_max: float | None = None,
    scale: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """Equal steps in u, where log(σ/α) = b + a logit(u): finest in λ around log(σ/α) = b.

    a > 0 is `scale`, b is `shift`. With a = 1 and b = 0, u = σ/(α + σ), the time of rectified flow
    (Liu et al. 2022, arXiv:2209.03003). With a = 1/2 and b = 0, u = σ²/(α² + σ²), the noise's share
    of the variance. As a → ∞ the grid tends to `log_snr`. The form is that of azula's log-logit
    noise schedule.

    Other arguments as for `uniform`; the SDE needs σ(t_min) > 0.
    """
    steps, t_min, t_max = _check(sde, steps, t_min, t_max)
    scale = check_number("scale", scale, above=0)
    shift = check_number("shift", shift)
    ends = float64(_lam_ends(sde, t_min, t_max))
    share = (-ends - shift) / scale
    # u and 1 − u are computed separately, because near 1 the difference would lose digits.
    w = equally_spaced(0, 1, steps + 1)
    u, rest = (torch.lerp(end[0], end[1], w) for end in (share.sigmoid(), (-share).sigmoid()))
    return _pinned(sde.t_of_lam(-shift - scale * torch.log(u / rest)), t_min, t_max)


GRIDS: dict[str, Callable[..., Tensor]] = {
    grid.__name__: grid for grid in (uniform, quadratic, cosine, log_snr, karras, arctan, logit)
}

# Grids whose variable is infinite where α = 0, so that they cannot begin there.
INFINITE_AT_NOISE = ("log_snr", "karras")


def _check(sde: SDE, steps: int, t_min: float, t_max: float | None) -> tuple[int, float, float]:
    steps = check_integer("steps", steps, minimum=1)
    t_max = sde.t_regular if t_max is None else t_max
    t_max = check_number("t_max", t_max, above=0, at_most=1)
    return steps, check_number("t_min", t_min, at_least=0, below=t_max), t_max


def _lam_ends(sde: SDE, t_min: float, t_max: float) -> tuple[float, float]:
    first, last = sde.nodes([t_max, t_min])
    return first.lam, last.lam


def _finite_ends(sde: SDE, t_min: float, t_max: float) -> tuple[float, float]:
    first, last = _lam_ends(sde, t_min, t_max)
    if first == -math.inf:
        raise ValueError(
            f"t_max must be at most {sde.t_regular:.6g} for this grid under {type(sde).__name__}, "
            f"got {t_max:g}: α is 0 there, and σ/α is infinite"
        )
    return first, last


def _pinned(ts: Tensor, t_min: float, t_max: float) -> Tensor:
    """The grid with its ends set exactly, without the rounding of the inverse map."""
    ts[0], ts[-1] = t_max, t_min
    return check_grid(ts)
