"""The law of the forward process: the five functions of an SDE belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ...sde import SDE
from ..findings import Finding, judged
from ..probe import Probe

__all__ = ["PROCESS_LAWS"]

TIMES = (0.0937, 0.3137263, 0.5127319, 0.7171943, 0.9371)
NEAR = 1e-5  # half of the distance of two near times
LARGEST = 1e-3  # relative difference; a derivative from float32 numbers is not as exact


def process(probe: Probe) -> Finding:
    """f = d log α/dt, g² = dσ²/dt − 2 f σ², and `t_of_lam` is the inverse of `lam`."""
    gaps = _gaps(probe.model.sde)
    name = max(gaps, key=gaps.__getitem__)
    advice = f"{type(probe.model.sde).__name__}: α, σ, f, g and t_of_lam must belong together"
    return judged(f"relative difference of {name}", gaps[name], LARGEST, f"{advice}, in float64")


def _gaps(sde: SDE) -> dict[str, float]:
    """The largest relative difference between both sides of each relation."""
    t = torch.tensor(TIMES, dtype=torch.float64)

    def slope(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return (function(t + NEAR) - function(t - NEAR)) / (2 * NEAR)

    sigma, f, g = sde.sigma(t), sde.f(t), sde.g(t)
    growth = slope(lambda s: sde.sigma(s).square())
    back = sde.t_of_lam(sde.lam(t))
    sides = {
        "f and d log α/dt": (f, slope(sde.log_alpha), f.abs()),
        "g² and dσ²/dt − 2 f σ²": (
            *(g.square(), growth - 2 * f * sigma.square()),
            g.square() + growth.abs() + 2 * f.abs() * sigma.square(),
        ),
        "t_of_lam(lam(t)) and t": (back, t, t),
    }
    return {
        name: float(((a - b).abs() / size.clamp(min=1e-8)).nan_to_num(torch.inf).max())
        for name, (a, b, size) in sides.items()
    }


PROCESS_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {"forward process": process}
