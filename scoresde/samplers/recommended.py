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
from .students import own_sampler, own_steps, own_times

__all__ = ["Choice", "data_shape", "of_student", "recommended", "recommended_for_calls"]

USUAL_NUMBERS = 64  # in a sample of unknown shape
LEAST_TIME = 1e-4  # networks are seldom trained nearer to the data


@dataclass(frozen=True)
class _Rule:
    """The choices for one kind of data and one number of evaluations, for data of about unit scale.

    Attributes:
        order: Order of the sampler. A high order extrapolates further and needs small steps.
        data_std: d of the sampler.
        grid_std: d of the grid.
        power: p of the grid.
        last: The last evaluation is made this many of the other steps away from σ = 0, in θ^{1/p}.
        corrector: Whether the sampler corrects.
    """

    order: int
    data_std: float
    grid_std: float
    power: float
    last: float
    corrector: bool = True


def _for_vectors(nfe: int, numbers: int) -> _Rule:
    """The scales follow D^{1/3}, D the count of numbers in a sample.

    It stands for the standard deviation along the first principal component, which is between 1
    for independent numbers and √D for equal ones. More evaluations leave room for larger σ, and 2
    or 3 of them are too few to correct with.
    """
    scale = numbers ** (1 / 3)
    grid_std = scale * (min(max(nfe, 10), 30) / 10) ** (1 / 3)
    order = 2 if nfe < 9 else 3 if nfe < 12 else 4
    return _Rule(order, scale / 2 if nfe > 1 else 1.0, grid_std, 2.4, 1.5, nfe > 3)


def _for_images(nfe: int, side: int) -> _Rule:
    """The scale of the grid grows with the longer side: neighbouring pixels are alike.

    With many evaluations the error is made near the data, where a larger d makes the steps more
    equal in (σ/α)^{1/p}.
    """
    return _Rule(4 if nfe >= 15 else 2, 1.0, max(2.8, 0.2 * side, 0.55 * nfe), 3.0, 2.0)


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


def recommended(
    model: ScoreModel,
    nfe: int,
    shape: Sequence[int] | None = None,
    t_max: float | None = None,
) -> Choice:
    """The sampler, grid and last time that are recommended for `nfe` evaluations per sample.

    The sampler is `AngularAdams`. Its order is 2, and with more evaluations 3 (from 9, not for
    images) and 4 (from 12, or 15 for images). The grid is `arctan`. For vectors the scales of both
    grow with the count of numbers. If the data are quantized, half their range is the unit of both.

    With few evaluations the grid ends early, at a σ that falls with `nfe`. One more step leads from
    there to σ = 0 and takes the place of the final denoising, so that the last evaluation is not
    spent at a σ where the samples hardly change. One evaluation is one step without this end.

    The constants were chosen for small errors, compared with the best of 771 settings of diffusers,
    on about 20 problems: mixtures of 2 to 128 dimensions, images with power-law spectra, and
    trained networks, under VP, sub-VP and VE. Series, volumes and sets are taken for vectors, which
    was not compared with other choices. They are not the best for every model:
    `benchmarks/samplers.py` makes this comparison on any model.

    A student of few steps (`scoresde.distillation`) has a sampler and times of its own. It takes as
    many of its steps as `nfe` allows.

    Args:
        model: The score model; only what it says about itself is used, it is not evaluated.
        nfe: Evaluations per sample, at least 1, the final denoising included. A guided model takes
            `model.evaluations` of them each time.
        shape: Shape of one sample without its batch axis; None for that of the model's data, or of
            a vector of 64 numbers if this is unknown.
        t_max: First time of the grid; None for the largest time at which the model is regular,
            which is 1 unless α(1) = 0.

    Returns:
        The settings; the times are on the ladder if the labels of the model are rounded.

    Raises:
        TypeError: If `nfe` is not an integer.
        ValueError: If `nfe` is less than 1, or than `model.evaluations`.
    """
    nfe = check_integer("nfe", nfe, minimum=model.evaluations)
    return recommended_for_calls(model, nfe // model.evaluations, shape, t_max)


def recommended_for_calls(
    model: ScoreModel,
    nfe: int,
    shape: Sequence[int] | None = None,
    t_max: float | None = None,
) -> Choice:
    """As `recommended`, for a number of evaluations of the model itself, at least 1."""
    if model.distilled is not None:
        return of_student(model, nfe)
    shape = data_shape(model) if shape is None else shape
    if shape is not None and len(shape) == 3:
        rule = _for_images(nfe, max(shape[-2:]))
    else:
        rule = _for_vectors(nfe, USUAL_NUMBERS if shape is None else max(1, math.prod(shape)))
    unit, sde = _unit(model), model.sde
    std, power = _rounded(unit * rule.grid_std), rule.power
    t_min = _last_time(model, nfe, std, rule)
    first = model.t_most if t_max is None else t_max
    ts = grids.arctan(sde, max(nfe - 1, 1), t_min, first, data_std=std, power=power)
    if model.snapped:
        ts = grids.snapped(sde, ts)
    own = _rounded(unit * rule.data_std)
    sampler = AngularAdams(rule.order, rule.corrector, to_data=nfe > 1, data_std=own)
    name = f"arctan:data_std={std:g}:power={power:g}:t_min={t_min:g}"
    return Choice(sampler, ts, nfe > 1, name)


def of_student(model: ScoreModel, nfe: int | None) -> Choice:
    """A student's own sampler and times; None for as many evaluations as it was made for."""
    own = model.distilled
    ts = own_times(model.sde, own, own_steps(own, nfe))
    name = f"arctan:data_std={own.data_std:g}:t_min={own.t_min:g}"
    sampler = own_sampler(own)
    return Choice(sampler, ts, sampler.reaches_data, name)


def data_shape(model: ScoreModel) -> tuple[int, ...] | None:
    """The shape *D of one sample, if the model knows it."""
    if model.shape is not None:
        return tuple(model.shape)
    return None if model.data is None else tuple(model.data.shape)


def _unit(model: ScoreModel) -> float:
    """Half the range of quantized data; 1 for others, whose range may be that of rare values."""
    spec = model.data
    return 1.0 if spec is None or spec.levels is None else (spec.high - spec.low) / 2


def _last_time(model: ScoreModel, nfe: int, std: float, rule: _Rule) -> float:
    """The time of the last evaluation, rounded to 4 digits so that its name can be typed."""
    sde, least = model.sde, max(LEAST_TIME, model.t_least)
    if nfe == 1:
        return least
    largest, smallest = (math.exp(-node.lam) for node in sde.nodes([1.0, least]))
    share = rule.last / (nfe - 1 + rule.last)
    sigma = std * math.tan(math.atan(largest / std) * share**rule.power)
    return float(f"{float(sde.t_of_sigma(sigma)):.4g}") if sigma > smallest else least


def _rounded(value: float) -> float:
    """Three digits, so that names of samplers and grids are short and can be typed."""
    return float(f"{value:.3g}")
