"""Time grids: decreasing float64 tensors of shape (N + 1,) from t_max to t_min.

A grid is an argument of its own: any sampler runs on any grid. Each function takes the SDE, the
number of steps N and the end times, and returns times whose ends are t_max and t_min exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ._tensor import check_integer, check_number
from .sde import SDE

__all__ = ["GRIDS", "check_grid", "from_list", "karras", "log_snr", "quadratic", "uniform"]


def uniform(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in t, the grid of the continuous-time samplers of Song et al. 2021.

    Args:
        sde: Not used; grids share one signature.
        steps: N ≥ 1.
        t_min: Last time, in [0, t_max).
        t_max: First time, in (t_min, 1].

    Returns:
        Shape (N + 1,).
    """
    _check(steps, t_min, t_max)
    return _pinned(torch.linspace(t_max, t_min, steps + 1, dtype=torch.float64), t_min, t_max)


def quadratic(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in √t: finer near the data. Song et al. 2020 (DDIM), arXiv:2010.02502, D.2.

    Arguments as for `uniform`.
    """
    _check(steps, t_min, t_max)
    root = torch.linspace(t_max**0.5, t_min**0.5, steps + 1, dtype=torch.float64)
    return _pinned(root**2, t_min, t_max)


def log_snr(sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0) -> Tensor:
    """Equal steps in λ = log(α/σ). Lu et al. 2022 (DPM-Solver), arXiv:2206.00927, section 3.

    Arguments as for `uniform`; the SDE needs σ(t_min) > 0.
    """
    _check(steps, t_min, t_max)
    lam = _lam_ends(sde, t_min, t_max)
    return _pinned(sde.t_of_lam(torch.linspace(*lam, steps + 1, dtype=torch.float64)), t_min, t_max)


def karras(
    sde: SDE, steps: int, t_min: float = 1e-3, t_max: float = 1.0, rho: float = 7.0
) -> Tensor:
    """Equal steps in (σ/α)^{1/ρ}. Karras et al. 2022 (EDM), arXiv:2206.00364, eq. (5).

    EDM's N noise levels and its final 0 are a grid of N − 1 steps here and the final denoise.
    Other arguments as for `uniform`; the SDE needs σ(t_min) > 0.

    Args:
        sde: The SDE, whose σ/α is spaced.
        steps: N ≥ 1.
        t_min: Last time.
        t_max: First time.
        rho: ρ > 0; larger is finer near the data.
    """
    _check(steps, t_min, t_max)
    check_number("rho", rho, above=0)
    first, last = (-torch.tensor(_lam_ends(sde, t_min, t_max), dtype=torch.float64) / rho).exp()
    root = first + torch.linspace(0, 1, steps + 1, dtype=torch.float64) * (last - first)
    return _pinned(sde.t_of_lam(-rho * root.log()), t_min, t_max)


def from_list(ts: Sequence[float] | Tensor) -> Tensor:
    """A grid from times given one by one, checked.

    Args:
        ts: At least two strictly decreasing times in [0, 1].
    """
    return check_grid(torch.as_tensor(ts, dtype=torch.float64))


def check_grid(ts: Tensor) -> Tensor:
    """Return the grid, or raise.

    Raises:
        ValueError: Unless it has shape (N + 1,), N ≥ 1, and decreases strictly within [0, 1].
    """
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise ValueError(f"a time grid must have shape (N + 1,) with N ≥ 1, got {tuple(ts.shape)}")
    ts = ts.to(torch.float64)
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


GRIDS: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "log_snr": log_snr,
    "karras": karras,
}


def _check(steps: int, t_min: float, t_max: float) -> None:
    check_integer("steps", steps, minimum=1)
    check_number("t_max", t_max, above=0, at_most=1)
    check_number("t_min", t_min, at_least=0, below=t_max)


def _lam_ends(sde: SDE, t_min: float, t_max: float) -> tuple[float, float]:
    first, last = sde.nodes(torch.tensor([t_max, t_min], dtype=torch.float64))
    return first.lam, last.lam


def _pinned(ts: Tensor, t_min: float, t_max: float) -> Tensor:
    """The grid with its ends set exactly, whatever the inverse map rounded them to."""
    ts[0], ts[-1] = t_max, t_min
    return check_grid(ts)
