"""azula's deterministic samplers on a scoresde model.

Their state is x_t = α x_0 + σ ε with α and σ of a noise schedule, which need not be the model's.
The model gets x_t rescaled to its own α at the same σ/α. For variance-preserving SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from paired import BORROWED, Levels, Setting
from torch import Tensor

from scoresde.grid import GRIDS

__all__ = ["azula_settings"]

# For a model with given noise levels, a noise schedule of azula acts as a grid with equal steps in
# the schedule's time. Its α(1) is chosen so that its first σ/α is that of the model.
_SCHEDULES = {
    "VE": lambda top, end: ("VESchedule", {"sigma_max": top, "sigma_min": end}),
    "VP": lambda top, end: ("VPSchedule", {"alpha_min": (1 + top**2) ** -0.5, "sigma_min": end}),
    "cosine": lambda top, end: (
        "CosineSchedule",
        {"alpha_min": (1 + top**2) ** -0.5, "sigma_min": end},
    ),
    "rectified": lambda top, end: ("RectifiedSchedule", {"alpha_min": 1 / top, "sigma_min": end}),
    "decay": lambda top, end: ("DecaySchedule", {"alpha_min": 1 / top, "sigma_min": end}),
}
_AZULA = (
    *(("DDIM", {}), ("Euler", {}), ("Heun", {})),
    *((f"{kind}AB", {"order": n}) for kind in ("z", "v", "zE", "xE", "RE") for n in (2, 3, 4)),
)


def azula_settings() -> list[Setting]:
    """azula's deterministic samplers × its noise schedules, and × our grids."""
    own = [
        (f"{name} sigma_min={end:g}", _Schedule(name, end))
        for name in _SCHEDULES
        for end in (1e-3, 1e-2, 3e-2)
    ]
    borrowed = [
        (f"{name} t_min={t_min:g}", _Borrowed(name, t_min))
        for name in ("uniform", "quadratic", "log_snr", "arctan")
        for t_min in (1e-5, 1e-3, 1e-2)
    ]
    return [
        Setting(
            library,
            family,
            " ".join([grid, *(f"{k}={v}" for k, v in options.items()), *["denoised"] * denoise]),
            _Azula(family, options, places, denoise),
        )
        for library, grids in (("azula", own), (BORROWED, borrowed))
        for family, options in _AZULA
        for grid, places in grids
        for denoise in (False, True)
    ]


@dataclass(frozen=True)
class _Schedule:
    """α and σ of one of azula's schedules at times 1, ..., 0."""

    name: str
    end: float

    def __call__(self, levels: Levels, steps: int) -> tuple[Tensor, Tensor]:
        from azula import noise

        top = math.exp(-levels.top.lam)
        name, options = _SCHEDULES[self.name](top, self.end)
        return getattr(noise, name)(**options)(torch.linspace(1, 0, steps + 1, dtype=torch.float64))


@dataclass(frozen=True)
class _Borrowed:
    """α and σ of the model at the times of one of our grids."""

    name: str
    t_min: float

    def __call__(self, levels: Levels, steps: int) -> tuple[Tensor, Tensor]:
        nodes = levels.model.sde.nodes(GRIDS[self.name](levels.model.sde, steps, self.t_min))
        alpha, sigma = torch.tensor([(n.alpha, n.sigma) for n in nodes], dtype=torch.float64).T
        return alpha, sigma


@dataclass(frozen=True)
class _Azula:
    """One of azula's samplers with the values of a schedule, with or without final denoising."""

    family: str
    options: dict[str, Any]
    places: Callable[[Levels, int], tuple[Tensor, Tensor]]
    denoise: bool

    def __call__(self, levels: Levels, x: Tensor, nfe: int) -> Tensor | None:
        import azula.sample

        calls = nfe - self.denoise
        steps = calls // 2 if self.family == "Heun" else calls
        if steps < 1:
            return None
        denoiser = _denoiser(levels, *self.places(levels, steps))
        sampler = getattr(azula.sample, f"{self.family}Sampler")(
            denoiser, steps=steps, silent=True, dtype=torch.float64, **self.options
        )
        first, last = denoiser.alpha[0], denoiser.alpha[-1]
        x = sampler(x.double() * (first / levels.top.alpha))
        return denoiser(x, torch.tensor(0.0)).mean if self.denoise else x / last


def _denoiser(levels: Levels, alpha: Tensor, sigma: Tensor) -> Any:
    """The model as azula's denoiser, whose schedule is a table of α and σ at 1 − i/N."""
    from azula.denoise import Denoiser, DiracPosterior

    class Adapter(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.alpha, self.sigma = alpha, sigma

        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            row = ((1 - t) * (len(alpha) - 1)).round().long()
            return alpha[row], sigma[row]

        def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
            a, s = self.schedule(t)
            node = levels.at_lam(float(torch.log(a / s)))
            inside = (x_t * (node.alpha / a)).to(levels.dtype)
            return DiracPosterior(levels.model.x0(inside, node).double())

    return Adapter()
