"""Observed orders of foreign samplers with error bars, and moments of those that draw noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..interop.samplers import ForeignSampler, Levels
from .level_problems import (
    gaussian_denoiser,
    gaussian_moments,
    gaussian_states,
    mixture_denoiser,
    mixture_states,
)
from .orders import rms_distance, slope
from .runs import Outcome, run_sampler

__all__ = ["STEPS", "Errors", "Moments", "Order", "measure_errors", "measure_moments"]

# All odd, and multiples of 3: methods that group two or three steps then end with the same group.
STEPS = (15, 33, 63, 129, 255)
WINDOW = 3  # numbers of steps whose errors give the order
FLOOR = 20  # an error is used if it is this many times the rounding
SAMPLES = 2**15


class Order(NamedTuple):
    """An observed order.

    Attributes:
        value: The least-squares slope of −log error against log N.
        bar: The difference of the slopes between neighbours, and what rounding adds.
        steps: The numbers of steps that it comes from.
    """

    value: float
    bar: float
    steps: tuple[int, ...]


class Errors(NamedTuple):
    """Distances of a deterministic sampler to the exact solutions.

    Attributes:
        steps: Numbers of steps.
        errors: Root mean square distance for each.
        rounding: The rounding error of one run, measured.
        outcomes: The runs.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]
    rounding: float
    outcomes: tuple[Outcome, ...]

    @property
    def order(self) -> Order | None:
        """The order at the largest numbers of steps above rounding; None if fewer than 3 are."""
        pairs = zip(self.steps, self.errors, strict=True)
        usable = [(n, e) for n, e in pairs if e > max(FLOOR * self.rounding, 1e-13)][-WINDOW:]
        if len(usable) < WINDOW:
            return None
        steps, errors = zip(*usable, strict=True)
        slopes = [slope(steps[i : i + 2], errors[i : i + 2]) for i in range(WINDOW - 1)]
        bar = abs(slopes[1] - slopes[0]) + 2 * self.rounding / errors[-1]
        return Order(slope(steps, errors), bar, steps)


def measure_errors(sampler: ForeignSampler, levels: Levels, steps: Sequence[int]) -> Errors:
    """The errors of a deterministic sampler on the mixture.

    Rounding is measured: the second difference of the end points in the start is a rounding error
    if the three starts are near one another. Schedulers may compute in float32.

    Args:
        sampler: The sampler.
        levels: The noise levels.
        steps: Numbers of steps, at least `WINDOW`, increasing.
    """

    def ends(n: int, shift: float = 0.0) -> Outcome:
        def start(sigma: float) -> torch.Tensor:
            return mixture_states(sigma) + shift * sigma

        return run_sampler(sampler, mixture_denoiser(), start, levels, n)

    outcomes = tuple(ends(n) for n in steps)
    judged = [outcome.before_zero for outcome in outcomes]
    errors = tuple(rms_distance(y, mixture_states(sigma)) for y, sigma in judged)
    middle = steps[-2]
    low, high = (ends(middle, shift).before_zero[0] for shift in (-1e-6, 1e-6))
    rounding = rms_distance(low + high, 2 * judged[-2][0]) / 2
    return Errors(tuple(steps), errors, rounding, outcomes)


class Moments(NamedTuple):
    """The moments of a sampler that draws noise, against the exact ones.

    Attributes:
        steps: Numbers of steps.
        std: Standard deviation of the output over the exact one, for each.
        mean: Mean of the output minus the exact one, in exact standard deviations, for each.
        error: Standard error of one standard deviation; that of a mean is √2 times as large.
    """

    steps: tuple[int, ...]
    std: tuple[float, ...]
    mean: tuple[float, ...]
    error: float

    def limit(self) -> tuple[float, float, float]:
        """(std, its error, mean) for N → ∞, by a least-squares fit of a + b/N + c/N²."""
        h = 1 / np.array(self.steps, dtype=float)
        design = np.stack([np.ones_like(h), h, h**2], axis=1)
        inverse = np.linalg.pinv(design)
        std, mean = inverse[0] @ np.array(self.std), inverse[0] @ np.array(self.mean)
        return float(std), float(np.linalg.norm(inverse[0]) * self.error), float(mean)

    @property
    def order(self) -> Order | None:
        """The weak order, between the numbers of steps whose bias is above 5 standard errors."""
        bias = [math.hypot(s - 1, m) for s, m in zip(self.std, self.mean, strict=True)]
        usable = [(n, b) for n, b in zip(self.steps, bias, strict=True) if b > 5 * self.error]
        if len(usable) < 2:
            return None
        (first, b), (last, c) = usable[-3:][0], usable[-1]
        bar = 2 * math.hypot(self.error / b, self.error / c) / math.log(last / first)
        return Order(slope((first, last), (b, c)), bar, (first, last))


def measure_moments(
    sampler: ForeignSampler, levels: Levels, steps: Sequence[int], n: int = SAMPLES
) -> Moments:
    """The moments of n outputs for Gaussian data, from the exact distribution at the start."""
    stds, means = [], []
    for count in steps:
        outcome = run_sampler(
            sampler,
            gaussian_denoiser(),
            lambda sigma: gaussian_states(sigma, n),
            levels,
            count,
            seed=count,
            global_seed=count,
        )
        y, sigma = outcome.before_zero
        mean, std = gaussian_moments(sigma)
        stds.append(float(y.std()) / std)
        means.append((float(y.mean()) - mean) / std)
    return Moments(tuple(steps), tuple(stds), tuple(means), (2 * n) ** -0.5)
