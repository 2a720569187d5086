"""Warnings if the scale of the data does not suit the SDE, or that of conditions the network."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._condition import leaves
from .data import Dataset, Stream
from .sde import SDE

__all__ = ["condition_warning", "scale_warning"]

# Bound on KL(p_1 ‖ prior) of one dimension, in nats. At the bound the sampled mean of Gaussian data
# is wrong by √(2 · 0.01) = 0.14 standard deviations.
_MOST_KL = 0.01

# Usual last time of sampling: structure finer than σ at this time is not sampled.
_T_MIN = 1e-3

# Root mean square of a condition's entry above which, and standard deviation below which, a network
# hardly learns its meaning: the initial weights are made for numbers of size 1.
_LARGEST_CONDITION, _SMALLEST_CONDITION = 10, 0.01

_MOST_VALUES = 1 << 22  # values that are inspected, from evenly spaced rows


def scale_warning(sde: SDE, data: Dataset | Stream) -> str | None:
    """The reason why samples of a model trained on these data will be wrong; None if there is none.

    Samplers start from the prior N(0, s²), s = `sde.prior_std`, in place of p_1, the distribution
    of the noised data. Let m and v be the mean and variance of the data in one dimension. Then p_1
    has mean α m and variance r s² = α² v + σ² (α, σ at t = 1). For Gaussian p_1

        KL(p_1 ‖ prior) = ½ (r − 1 − log r + (α m/s)²)

    in nats. The data are too large if this is above 0.01 in some dimension.
    Continuous data are too small if their standard deviation is below σ(10⁻³) in every dimension;
    constant data are allowed. Quantized data are too small if high − low is below σ(10⁻³).

    Args:
        sde: The forward process.
        data: Training data; quantized data on the scale of their `DataSpec`. Of a stream nothing is
            known.

    Returns:
        One line that says in numbers what is wrong, and how to scale the data; None if all is well.
    """
    if isinstance(data, Stream):
        return None
    (mean, std), spec = _moments(data), data.spec
    last, first = sde.nodes([1.0, _T_MIN])
    shift = last.alpha * mean / sde.prior_std
    ratio = ((last.alpha * std) ** 2 + last.sigma**2) / sde.prior_std**2
    kl = (ratio - 1 - ratio.log() + shift**2) / 2
    worst = int(kl.argmax())
    if float(kl[worst]) > _MOST_KL:
        size = last.alpha * math.hypot(mean[worst], std[worst])
        problem = (
            f"too large for the SDE: at t = 1 there is α·|x| = {size:.2g} left of them (root mean "
            f"square) beside noise of σ = {last.sigma:.3g}, but sampling starts from N(0, s²) with "
            f"s = {sde.prior_std:g}"
        )
    elif 0 < (size := float(std.max()) if spec.levels is None else spec.span) < first.sigma:
        worst = int(std.argmax())
        problem = (
            f"too small for the SDE: they extend over {size:.2g}, but sampling ends at noise of "
            f"σ({_T_MIN:g}) = {first.sigma:.2g}"
        )
    else:
        return None
    remedy = _remedy(data, float(mean[worst]), float(std[worst]))
    return f"the data of {data.name} are {problem}; samples will be wrong, {remedy}"


def condition_warning(data: Dataset | Stream) -> str | None:
    """The reason why a network will hardly learn the conditions of the data; None if there is none.

    An entry of a vector, or a channel of an array, is too large if its root mean square is above
    10, and too small if its standard deviation is below 0.01; constant entries are allowed.

    Args:
        data: Training data; conditions of integers are class labels, which have no scale.

    Returns:
        One line that names the condition, its scale and a remedy.
    """
    unknown = isinstance(data, Stream) or data.labels is None
    for name, leaf in () if unknown else leaves(data.labels):
        if not leaf.is_floating_point():
            continue
        mean, std = _moments_of_entries(leaf)
        large = torch.hypot(mean, std) > _LARGEST_CONDITION
        small = (std > 0) & (std < _SMALLEST_CONDITION)
        if bool((wrong := large | small).any()):
            i = int(wrong.double().argmax())  # the first one
            return (
                f"the condition {name} of {data.name} is too {'large' if large[i] else 'small'}: "
                f"its entry {i} has mean {mean[i]:.4g} and standard deviation {std[i]:.4g}, but a "
                "network is made for numbers of size 1; scale each entry to mean 0 and standard "
                "deviation 1, for training and for every use of the model"
            )
    return None


def _moments_of_entries(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each entry of a vector, or of each channel of an array."""
    y = y[:: math.ceil(y.numel() / _MOST_VALUES)].double()
    y = y.movedim(1, -1).reshape(-1, y.shape[1]) if y.ndim > 1 else y[:, None]
    return y.mean(0), y.std(0, correction=0)


def _moments(data: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each dimension, float64 (D,), on the model's scale."""
    stride = math.ceil(data.x.numel() / _MOST_VALUES)
    x = data.taken(torch.arange(0, len(data), stride)).scaled.x.flatten(1).double()
    mean, std, spec = x.mean(0), x.std(0, correction=0), data.spec
    if spec.levels is None:
        return mean, std
    cell = spec.span / spec.levels
    # Uniform noise in a cell has variance cell²/12.
    return spec.low + cell * (mean + 0.5), cell * (std**2 + 1 / 12).sqrt()


def _remedy(data: Dataset, mean: float, std: float) -> str:
    low, high = data.spec.low, data.spec.high
    if data.spec.levels is not None:
        return (
            f"choose data.low and data.high near -1 and 1, not {low:g} and {high:g}, or another SDE"
        )
    of = "each column" if len(data.spec.shape) == 1 else "them"
    scale = f"scale {of} to mean 0 and standard deviation 1, for example by"
    if not std > 0:
        return f"{scale} x - {mean:.4g}, or choose another SDE"
    return (
        f'{scale} (x - {mean:.4g})/{std:.4g}, which data.transform = "standardize" in a config and '
        "Dataset.fitted in Python do, or choose another SDE"
    )
