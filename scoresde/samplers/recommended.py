"""The recommended settings for a number of evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .. import grid as grids
from .._tensor import check_integer
from ..score import ScoreModel
from .angular_adams import AngularAdams
from .base import Sampler

__all__ = ["Choice", "recommended"]

# The last evaluation is made LAST of the other steps away from σ = 0, in θ^{1/power}.
LAST = 2.0
# The scale d of the data in the grid: of vectors, and per pixel of an image's longer side. The
# neighbouring pixels are alike, so that the first principal component grows with the side.
STD, STD_PER_SIDE = 2.8, 0.2
# With many evaluations the error of images is made near the data, where a larger d makes the steps
# more equal in (σ/α)^{1/power}.
STD_PER_EVALUATION = 0.55
# Power of the grid, and the least evaluations for order 4, which extrapolates further than order 2
# and needs small steps.
VECTORS, IMAGES = (2.5, 12), (3.0, 15)
LEAST_TIME = 1e-4  # networks are seldom trained nearer to the data


@dataclass(frozen=True)
class Choice:
    """A sampler and its times.

    Attributes:
        sampler: The sampler.
        ts: The time grid, shape (N + 1,).
        denoise: Whether the samples are brought to σ = 0 at the end.
        grid: Name of the grid with its parameters, such as "uniform:t_min=0.05"; None for given
            times, and for a sampler that chooses its own steps.
    """

    sampler: Sampler
    ts: Tensor
    denoise: bool
    grid: str | None


def recommended(model: ScoreModel, nfe: int, shape: Sequence[int] | None = None) -> Choice:
    """The sampler, grid and last time that are recommended for `nfe` evaluations per sample.

    The sampler is `AngularAdams`, of order 2, and of order 4 from 12 evaluations (15 for images).
    The grid is `arctan`. With few evaluations it ends early, at a σ that falls with `nfe`. One more
    step leads from there to σ = 0 and takes the place of the final denoising, so that the last
    evaluation is not spent at a σ where the samples hardly change. One evaluation is one step
    without this end.

    The constants were chosen for small errors, compared with the best of 771 settings of diffusers,
    on mixtures, images with power-law spectra and trained networks, under VP, sub-VP and VE. They
    are not the best for every model: `benchmarks/samplers.py` makes this comparison on any model.

    Args:
        model: The score model; only what it says about itself is used, it is not evaluated.
        nfe: Evaluations per sample, at least 1, the final denoising included.
        shape: Shape of one sample without its batch axis; None for that of the model's data, or of
            a vector if this is unknown.

    Returns:
        The settings; the times are on the ladder if the labels of the model are rounded.

    Raises:
        TypeError: If `nfe` is not an integer.
        ValueError: If `nfe` is less than 1.
    """
    nfe = check_integer("nfe", nfe, minimum=1)
    if shape is None and model.data is not None:
        shape = model.data.shape
    image = shape is not None and len(shape) > 1
    power, high = IMAGES if image else VECTORS
    std = STD
    if image:
        std = round(max(STD, STD_PER_SIDE * max(shape[-2:]), STD_PER_EVALUATION * nfe), 2)
    t_min = _last_time(model, nfe, std, power)
    ts = grids.arctan(model.sde, max(nfe - 1, 1), t_min, data_std=std, power=power)
    if model.snapped:
        ts = grids.snapped(model.sde, ts)
    sampler = AngularAdams(4 if nfe >= high else 2, to_data=nfe > 1)
    name = f"arctan:data_std={std:g}:power={power:g}:t_min={t_min:g}"
    return Choice(sampler, ts, nfe > 1, name)


def _last_time(model: ScoreModel, nfe: int, std: float, power: float) -> float:
    """The time of the last evaluation, rounded to 4 digits so that its name can be typed."""
    sde, least = model.sde, max(LEAST_TIME, model.t_least)
    if nfe == 1:
        return least
    largest, smallest = (math.exp(-node.lam) for node in sde.nodes([1.0, least]))
    top = math.atan(largest / std) ** (1 / power)
    sigma = std * math.tan((top * LAST / (nfe - 1 + LAST)) ** power)
    return float(f"{float(sde.t_of_sigma(sigma)):.4g}") if sigma > smallest else least
