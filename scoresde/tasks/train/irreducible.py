"""The irreducible loss of denoising score matching, for data whose exact score is known.

    E|ε − ε̂(x_t, t)|² ≥ E|ε − E[ε | x_t]|² = E tr Cov(ε | x_t) = D − σ² E|∇ log p_t(x_t)|²

Models of `scoresde.exact` know tr Cov(ε | x_t). It is averaged over x_t with the times and weights
of the training's objective, so that it can be drawn beside the log of a run.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ..._rows import Rows
from ...data import Dataset
from ...data.densities import DENSITIES
from ...exact import FiniteData, GaussianMixture
from ...exact.base import ExactScore
from ...loss import Objective
from ...noise import SampleNoise
from ...output.training_curves import LeastLoss
from ...sde import SDE
from .history import LEVELS

__all__ = ["exact_model", "least_loss"]

# Draws of (x_0, t, ε): of a density, and of a finite set, whose cost is that of all its points.
DRAWS, FEW_DRAWS = 1000 * LEVELS, 100 * LEVELS
AT_ONCE = 200  # draws evaluated at a time


def exact_model(data: Dataset, sde: SDE) -> tuple[str, ExactScore] | None:
    """The exact score of the data and a name for it.

    It is that of the density if the data set is a Gaussian mixture, and otherwise that of the
    finite training set, which a network can reach only by learning all points by heart.

    Args:
        data: Training data.
        sde: The forward process.

    Returns:
        None for images, for quantized data, which are dequantized anew at every step, for data with
        conditions, and for data that are not held in memory.
    """
    if data.spec.is_image or data.spec.levels is not None or data.labels is not None:
        return None
    if isinstance(data.x, Rows):
        return None
    density = DENSITIES.get(data.name)
    if density is None or density.mixture is None or data.spec.transform is not None:
        return f"{len(data)} points", FiniteData(sde, data.scaled.x)
    found = density.mixture
    return data.name, GaussianMixture(sde, found.weights, found.means, found.covs)


def least_loss(
    name: str, model: ExactScore, data: Dataset, objective: Objective, t_least: float, seed: int
) -> LeastLoss:
    """Loss and error by time of the exact score.

    Args:
        name: What `model` is the exact score of.
        model: From `exact_model`.
        data: Training data.
        objective: The objective of the training.
        t_least: Time of the first discrete label of the trained network, or 0.
        seed: Seed of data, times and noise.
    """
    of_density, sde = isinstance(model, GaussianMixture), model.sde
    n = DRAWS if of_density else FEW_DRAWS
    noise = SampleNoise(seed, range(n))
    if of_density:
        x0 = model.sample(n, seed=seed)
    else:
        places = noise.uniform(torch.empty(n, 1, dtype=torch.float64))[:, 0]
        x0 = data.scaled.x[(places * len(data)).long()].double()
    u = (torch.arange(n) + noise.times(torch.empty(n))) / n
    t, factor = replace(objective, t_min=max(objective.t_min, t_least)).draw_times(sde, u)
    x_t = sde.perturb(x0, t, noise.fresh(x0))
    parts = [model.least_error(x_t[i], t[i]) for i in torch.arange(n).split(AT_ONCE)]
    errors = torch.cat(parts) / model.dim
    losses = objective.weight(sde.at(t, t)) * factor * errors
    bins = (t * LEVELS).long().clamp(0, LEVELS - 1)
    counts = torch.bincount(bins, minlength=LEVELS)
    means, by_t = (torch.bincount(bins, v, LEVELS) / counts for v in (losses, errors))
    # u is stratified, so that the spread between the bins is no error
    error = float((losses - means[bins]).std()) / math.sqrt(n)
    return LeastLoss(name, float(losses.mean()), error, by_t)
