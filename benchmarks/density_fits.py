"""Density estimators for `densities.py`: score models with a validation split, and baselines."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from density_data import Part
from torch import Tensor

from scoresde.data import Dataset, DataSpec
from scoresde.ema import EMA
from scoresde.likelihood import Path
from scoresde.likelihood.budget import Budget, likelihood_budget
from scoresde.likelihood.mean_budget import mean_budget
from scoresde.likelihood.method import joined
from scoresde.names.config import Config
from scoresde.score import NetworkScore
from scoresde.train import Training, make_optimizer

__all__ = [
    "Affine",
    "Fitted",
    "Mean",
    "fit_network",
    "gaussian",
    "kernels",
    "mixture",
    "network_mean",
]

VALIDATED = 256  # validation rows, at most, on which log p chooses between averages of the weights
CHECKS = 10  # times at which it does so, equally spaced in the training
Z = 1.959964  # the normal quantile of a 95 % interval; there are at least 150 rows


@dataclass(frozen=True)
class Mean:
    """A mean log-density in nats with the half-width of its 95 % interval."""

    value: float
    half_width: float
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.value:.2f} ± {self.half_width:.2f}{note}"

    @classmethod
    def of(cls, log_prob: np.ndarray, note: str = "", systematic: float = 0.0) -> Mean:
        """The mean over rows; the interval is of the population from which the rows come."""
        error = Z * log_prob.std(ddof=1) / math.sqrt(len(log_prob))
        return cls(float(log_prob.mean()), float(error + systematic), note)


@dataclass(frozen=True)
class Affine:
    """Standardization z = (x − mean)/std by train rows, with log p(x) = log p(z) − Σ log std."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Affine:
        """The standardization of rows (N, D)."""
        return cls(x.mean(0), x.std(0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows at the model's scale."""
        return (x - self.mean) / self.std

    @property
    def log_det(self) -> float:
        """log |det ∂z/∂x| in nats."""
        return -float(np.log(self.std).sum())


@dataclass(frozen=True)
class Fitted:
    """A trained score model.

    Args:
        model: The model, with the averaged weights of the step with the best validation log p.
        scale: The standardization of its data.
        step: This step.
    """

    model: NetworkScore
    scale: Affine
    step: int

    def points(self, x: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows as points at the model's scale."""
        return torch.as_tensor(self.scale(x), dtype=dtype)

    def budgets(self, x: np.ndarray, measured: int) -> tuple[Budget, Budget, Budget]:
        """Log-densities of rows; of the first few also with twice the steps, and in float64."""
        method, few = Path(), slice(measured)
        precise = copy.deepcopy(self.model).double()
        z, shift = self.points(x), self.scale.log_det
        found = (
            likelihood_budget(self.model, z, method, seed=0, batch=1024),
            likelihood_budget(self.model, z[few], method.refined(), seed=0, batch=1024),
            likelihood_budget(precise, z[few].double(), method, seed=0, batch=1024),
        )
        return tuple(replace(each, log_prob=each.log_prob + shift) for each in found)


def network_mean(budgets: Iterable[tuple[Budget, Budget, Budget]], dims: int, note: str) -> Mean:
    """The mean over all rows of several parts, whose interval holds all errors of the budget.

    Args:
        budgets: For each part every row, and the changes of its first rows; if there are several
            parts, these are all rows of each.
        dims: D.
        note: Remark for the table.
    """
    every, refined, precise = (joined(parts) for parts in zip(*budgets, strict=True))
    found = mean_budget(every, dims, bits=False, refined=refined, precise=precise)
    return Mean(-found.value * dims, found.half_width * dims, note)


def fit_network(part: Part, config: Config) -> Fitted:
    """Train a score model on the train rows, and keep the average with the best validation log p.

    Args:
        part: Train and validation rows.
        config: Network, objective and settings; its data are not used.
    """
    scale = Affine.of(part.train)
    x = torch.as_tensor(scale(part.train), dtype=torch.float32)
    spec = DataSpec((x.shape[1],), float(x.min()), float(x.max()), name="rows")
    model = config.build_model(spec)
    training = Training(model, Dataset("rows", x, None, spec), config.objective, config.train)
    average = EMA(model.net, config.train.ema_decay)
    held = Fitted(model, scale, 0).points(part.validation[:VALIDATED])
    every = max(1, config.train.steps // CHECKS)
    best = (-math.inf, 0, {})
    for step in training.steps(make_optimizer(model.net)):
        average.update(model.net, step.left_out)
        if step.step % every and step.step != config.train.steps:
            continue
        with average.applied(model.net):
            value = float(likelihood_budget(model, held, Path(), seed=0).log_prob.mean())
            if value > best[0]:
                best = (value, step.step, copy.deepcopy(model.net.state_dict()))
    model.net.load_state_dict(best[2])
    return Fitted(model, scale, best[1])


def gaussian(part: Part) -> np.ndarray:
    """Log-densities of the test rows under one Gaussian with the moments of the train rows."""
    mean, cov = part.train.mean(0), np.cov(part.train.T, bias=True)
    root = np.linalg.cholesky(cov)
    z = np.linalg.solve(root, (part.test - mean).T)
    log_det = np.log(np.diag(root)).sum()
    return -0.5 * (z**2).sum(0) - log_det - 0.5 * len(mean) * math.log(2 * math.pi)


def mixture(
    part: Part, components: Iterable[int], ridges: Iterable[float], rows: int
) -> np.ndarray:
    """Log-densities of the test rows under scikit-learn's mixture of Gaussians.

    The number of components and the variance that is added to each covariance are those with the
    best mean log-density of the validation rows.

    Args:
        part: The rows.
        components: Candidates for the number of components.
        ridges: Candidates for the added variance, in units of the features' variances.
        rows: Number of train rows that are used, at most.
    """
    from sklearn.mixture import GaussianMixture

    scale = Affine.of(part.train)
    z = scale(part.train[:rows])
    best = (-math.inf, None)
    for count in components:
        for ridge in ridges:
            made = GaussianMixture(count, reg_covar=ridge, random_state=0, tol=1e-2)
            made.fit(z)
            best = max(best, (made.score(scale(part.validation)), made), key=lambda pair: pair[0])
    return best[1].score_samples(scale(part.test)) + scale.log_det


def kernels(part: Part, bandwidths: Iterable[float], rows: int) -> np.ndarray:
    """Log-densities of the test rows under scikit-learn's Gaussian kernel density estimate.

    The bandwidth, in units of the features' standard deviation, is that with the best mean
    log-density of the validation rows.

    Args:
        part: The rows.
        bandwidths: Candidates.
        rows: Number of train rows on which kernels are placed, at most.
    """
    from sklearn.neighbors import KernelDensity

    scale = Affine.of(part.train)
    z = scale(part.train[:rows])
    made = [KernelDensity(bandwidth=width).fit(z) for width in bandwidths]
    held = scale(part.validation[:VALIDATED])
    best = max(made, key=lambda each: each.score(held))
    return best.score_samples(scale(part.test)) + scale.log_det
