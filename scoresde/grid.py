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
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ._tensor import check_integer, check_number, equally_spaced, float64, plain_number
from .sde import SDE
from .sde.base import SAME_TIME

__all__ = [
    "GRIDS",
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


class LadderError(ValueError):
    """A grid needs more times than a discrete model has."""


def uniform(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in t, the grid of the continuous-time samplers of Song et al. 2021.

    Args:
        sde: Not used; all grids have the same first arguments.
        steps: N ≥ 1.
        t_min: Last time, in [0, t_max).
        t_max: First time, in (t_min, 1].

    Returns:
        Shape (N + 1,).
    """
    steps, t_min, t_max = _check(steps, t_min, t_max)
    return _pinned(equally_spaced(t_max, t_min, steps + 1), t_min, t_max)


def quadratic(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in √t: finer near the data. Song et al. 2020 (DDIM), arXiv:2010.02502, D.2.

    Arguments as for `uniform`.
    """
    steps, t_min, t_max = _check(steps, t_min, t_max)
    root = equally_spaced(t_max**0.5, t_min**0.5, steps + 1)
    return _pinned(root**2, t_min, t_max)


def cosine(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Cosine spacing, t = t_min + (t_max − t_min) (1 + cos(π i/N))/2: finer near both ends.

    The Chebyshev extreme points (Trefethen 2012, "Approximation Theory and Approximation
    Practice", chapter 2). The grid of the cosine noise schedule is `arctan`.

    Arguments as for `uniform`.
    """
    steps, t_min, t_max = _check(steps, t_min, t_max)
    # (1 + cos 2x)/2 = cos² x, which loses no digits near t_min
    x = equally_spaced(0, math.pi / 2, steps + 1)
    return _pinned(t_min + (t_max - t_min) * torch.cos(x) ** 2, t_min, t_max)


def log_snr(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in λ = log(α/σ). Lu et al. 2022 (DPM-Solver), arXiv:2206.00927, section 3.

    The steps are equal in log σ for VE, and in logit(σ²/(α² + σ²)) = −2λ for any SDE.

    Arguments as for `uniform`; the SDE needs σ(t_min) > 0.
    """
    steps, t_min, t_max = _check(steps, t_min, t_max)
    lam = _lam_ends(sde, t_min, t_max)
    return _pinned(sde.t_of_lam(equally_spaced(*lam, steps + 1)), t_min, t_max)


def karras(
    sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0, rho: float = 7.0
) -> Tensor:
    """Equal steps in (σ/α)^{1/ρ}. Karras et al. 2022 (EDM), arXiv:2206.00364, eq. (5).

    EDM's N noise levels and final 0 correspond to a grid of N − 1 steps and a final denoising.
    Other arguments as for `uniform`; the SDE needs σ(t_min) > 0.

    Args:
        sde: The SDE, whose σ/α is spaced.
        steps: N ≥ 1.
        t_min: Last time.
        t_max: First time.
        rho: ρ > 0; larger is finer near the data.
    """
    steps, t_min, t_max = _check(steps, t_min, t_max)
    rho = check_number("rho", rho, above=0)
    first, last = (-float64(_lam_ends(sde, t_min, t_max)) / rho).exp()
    root = first + equally_spaced(0, 1, steps + 1) * (last - first)
    return _pinned(sde.t_of_lam(-rho * root.log()), t_min, t_max)


def arctan(
    sde: SDE,
    steps: int,
    t_min: float = 1e-3,
    t_max: float = 1.0,
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
    steps, t_min, t_max = _check(steps, t_min, t_max)
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
    t_max: float = 1.0,
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
    steps, t_min, t_max = _check(steps, t_min, t_max)
    scale = check_number("scale", scale, above=0)
    shift = check_number("shift", shift)
    ends = float64(_lam_ends(sde, t_min, t_max))
    share = (-ends - shift) / scale
    # u and 1 − u are computed separately, because near 1 the difference would lose digits.
    w = equally_spaced(0, 1, steps + 1)
    u, rest = (torch.lerp(end[0], end[1], w) for end in (share.sigmoid(), (-share).sigmoid()))
    return _pinned(sde.t_of_lam(-shift - scale * torch.log(u / rest)), t_min, t_max)


def check_grid(ts: Sequence[float] | Tensor) -> Tensor:
    """A grid from times given as a list, array or tensor, checked.

    Args:
        ts: At least two strictly decreasing times in [0, 1].

    Returns:
        Shape (N + 1,), float64, on the CPU unless `ts` is a tensor elsewhere.

    Raises:
        TypeError: If `ts` does not hold real numbers.
        ValueError: Unless it has shape (N + 1,), N ≥ 1, and decreases strictly within [0, 1].
    """
    ts = _times(ts)
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise ValueError(f"a time grid must have shape (N + 1,) with N ≥ 1, got {tuple(ts.shape)}")
    if not bool(torch.isfinite(ts).all()) or float(ts.max()) > 1 or float(ts.min()) < 0:
        raise ValueError(f"a time grid must lie in [0, 1], got {ts.tolist()}")
    stalled = torch.nonzero(ts[1:] >= ts[:-1]).flatten().tolist()
    if stalled:
        i = stalled[0]
        raise ValueError(
            f"a time grid must decrease strictly, got t[{i}] = {float(ts[i])!r} and "
            f"t[{i + 1}] = {float(ts[i + 1])!r}"
        )
    return ts


def snapped(sde: SDE, ts: Tensor) -> Tensor:
    """The grid moved to times i/L of a discrete model's ladder, each used at most once.

    The ends move to the nearest ladder time. Every other time also moves to its nearest ladder
    time, unless several times share it. Such times are spread over neighbouring ladder times, so
    that the largest move is within half a level of the least possible.

    Args:
        sde: An SDE whose `levels` is L, such as a `TabulatedVP`.
        ts: A grid, shape (N + 1,).

    Returns:
        Strictly decreasing times of `sde.ladder`, shape (N + 1,).

    Raises:
        ValueError: If the SDE has no ladder, or `ts` is not a grid.
        LadderError: If there are fewer than N + 1 levels between the ends.
    """
    ts = check_grid(ts)
    ladder = sde.ladder().to(ts.device)
    levels, index = len(ladder), sde.label(ts)
    order = torch.arange(len(ts), dtype=torch.float64, device=ts.device)
    first, last = round(float(index[0])), round(float(index[-1]))
    if first - last + 1 < len(ts):
        raise LadderError(
            f"{len(ts)} times do not fit between t = {float(ts[0]):g} and {float(ts[-1]):g}, where "
            f"the model has {first - last + 1} of its {levels} discrete times; take fewer steps"
        )
    # Indices k_i decrease strictly if k_i + i never increases. The sequence halfway between the
    # nearest such sequence above and the nearest one below has the least largest move.
    goal = index + order
    above, below = goal.flip(0).cummax(0).values.flip(0), goal.cummin(0).values
    k = (0.5 * (above + below)).round().clamp(last + len(ts) - 1, first) - order
    k[0], k[-1] = first, last
    return ladder[levels - 1 - k.long()]


def check_on_ladder(sde: SDE, ts: Tensor) -> None:
    """Raise unless every time is a time i/L of the discrete model, within 1e-9.

    Args:
        sde: An SDE whose `levels` is not None.
        ts: Times, any shape.

    Raises:
        ValueError: If a time is not; the message names the first one.
    """
    ladder, flat = sde.ladder(), ts.to("cpu", torch.float64).flatten()
    nearest = ladder[len(ladder) - 1 - sde.label(flat).round().long()]
    off = flat[(flat - nearest).abs() > SAME_TIME].tolist()
    if off:
        raise ValueError(
            f"t = {off[0]!r} is not one of the {len(ladder)} discrete times i/"
            f"{len(ladder)} of the model, whose labels are rounded; use grid.snapped(sde, ts)"
        )


GRIDS: dict[str, Callable[..., Tensor]] = {
    grid.__name__: grid for grid in (uniform, quadratic, cosine, log_snr, karras, arctan, logit)
}


def _check(steps: int, t_min: float, t_max: float) -> tuple[int, float, float]:
    steps = check_integer("steps", steps, minimum=1)
    t_max = check_number("t_max", t_max, above=0, at_most=1)
    return steps, check_number("t_min", t_min, at_least=0, below=t_max), t_max


def _times(ts: Sequence[float] | Tensor) -> Tensor:
    """Times in any container as a float64 tensor."""
    if not isinstance(ts, Tensor):
        try:
            values = np.array([plain_number(t) for t in ts] if isinstance(ts, list | tuple) else ts)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"a time grid must hold numbers, got {type(ts).__name__}") from error
        if values.dtype.kind not in "iuf":
            raise TypeError(f"a time grid must hold numbers, got {ts!r}")
        return torch.from_numpy(values.astype(np.float64))
    if ts.is_complex() or ts.dtype == torch.bool:
        raise TypeError(f"a time grid must hold numbers, got {ts.dtype}")
    return ts.detach().to(torch.float64)


def _lam_ends(sde: SDE, t_min: float, t_max: float) -> tuple[float, float]:
    first, last = sde.nodes([t_max, t_min])
    return first.lam, last.lam


def _pinned(ts: Tensor, t_min: float, t_max: float) -> Tensor:
    """The grid with its ends set exactly, without the rounding of the inverse map."""
    ts[0], ts[-1] = t_max, t_min
    return check_grid(ts)
