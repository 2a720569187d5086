"""The recommended settings for a number of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import grid as grids
from ..score import ScoreModel
from .base import Sampler
from .unipc import UniPC

__all__ = ["Recommendation", "recommended"]


@dataclass(frozen=True)
class Recommendation:
    """What `recommended` chose.

    Attributes:
        sampler: The sampler.
        ts: The time grid, shape (N + 1,).
        denoise: Whether to finish with E[x_0 | x] at ts[-1].
        grid: Name of the grid with its parameters, such as "uniform:t_min=0.05".
    """

    sampler: Sampler
    ts: Tensor
    denoise: bool
    grid: str


def recommended(model: ScoreModel, nfe: int) -> Recommendation:
    """The sampler, grid and last time that are recommended for `nfe` evaluations per sample.

    Args:
        model: The score model; only what it says about itself is used, it is not evaluated.
        nfe: Evaluations per sample, at least 1, the final denoising included.
    """
    t_min = max(1e-3, model.t_least)
    ts = grids.log_snr(model.sde, max(nfe - 1, 1), t_min)
    return Recommendation(UniPC(), ts, True, f"log_snr:t_min={t_min:g}")
