"""`latent_log_likelihood_bound`: a lower bound on log p(x) through an autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, bound_rows, take_rows
from .._tensor import check_integer, check_type
from ..data import DataSpec
from ..evaluation import own_context
from ..likelihood import LikelihoodMethod, log_likelihood
from ..likelihood.method import check_data
from ..likelihood.ode import Ode
from ..noise import SampleNoise, check_seed
from ..score import ScoreModel
from .gaussian import log_normal
from .model import Autoencoder

__all__ = ["LatentBound", "check_latents", "latent_log_likelihood_bound"]


@dataclass(frozen=True)
class LatentBound:
    """Lower bounds on log p(x) of each datum, through an autoencoder.

    Attributes:
        log_prob: Estimate of the bound E_q log w in nats, shape (B,), float64.
        std_error: Its standard error over the draws of z, shape (B,); NaN for a single draw.
        weighted: log of the mean of w over the K draws, shape (B,). Its expectation is a lower
            bound as well, and at least as large; it tends to log p(x) as K grows. This holds only
            if the method gives log p(z) without random error: with an exact trace.
        log_weights: log w of each draw, shape (K, B).
        nfe: Network evaluations for each draw, counted; the largest if draws differ.
        nfe_derivative: Derivative passes for each draw, counted.
        spec: What the data are.
    """

    log_prob: Tensor
    std_error: Tensor
    weighted: Tensor
    log_weights: Tensor
    nfe: int
    nfe_derivative: int
    spec: DataSpec

    @property
    def per_unit(self) -> Tensor:
        """Upper bound on −log p(x) in bits/dim of quantized data, nats/dim of others, (B,)."""
        return -self.log_prob / self.spec.nats_per_unit


@own_context()
@torch.no_grad()
def latent_log_likelihood_bound(
    autoencoder: Autoencoder,
    model: ScoreModel,
    x: Tensor,
    *,
    seed: int,
    draws: int = 8,
    method: LikelihoodMethod | str = Ode(),
    y: Condition | None = None,
    batch: int | None = None,
) -> LatentBound:
    """A lower bound on log p(x) of an autoencoder with a score model of its latents.

        log p(x) ≥ E_q log w,     w = p(x | z) p(z) / q(z | x),     z ~ q(z | x)

    p(z) is the density of the score model, which `method` computes. The difference is
    KL(q(z | x) ‖ p(z | x)). It is 0 where q is the exact posterior of decoder and score model:
    there log w = log p(x) for every draw. The mean of w over K draws gives the importance-weighted
    bound of Burda et al. 2016, arXiv:1509.00519, eq. (8).

    The draws of datum i depend on (seed, i) only. Errors of the method (cut-off, solver, prior) are
    not in the standard error.

    Args:
        autoencoder: The autoencoder.
        model: The score model of its latents, as scaled by `Autoencoder.fit_scale`.
        x: Data, shape (B, *spec.shape): levels of quantized data, which get the probability of
            their cells, otherwise points in the units of the data.
        seed: Integer in [0, 2^64) for all randomness.
        draws: K, number of draws of z for each datum, at least 1.
        method: A method for densities of points, or its text.
        y: Condition of the data, which a conditional model needs.
        batch: Data at a time; None = all at once.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the shapes of data, latents and model differ, a number is out of range, or as
            for `log_likelihood`.
        RuntimeError: As for `log_likelihood`.
    """
    check_type("autoencoder", autoencoder, Autoencoder)
    check_integer("draws", draws, minimum=1)
    check_seed(seed)
    spec = autoencoder.spec
    check_data(x, spec)
    check_latents(autoencoder, model)
    size = max(len(x), 1) if batch is None else check_integer("batch", batch, minimum=1)
    z, log_det = (x, 0.0) if spec.transform is None else (spec.to_model(x), spec.log_det(x))
    y = None if y is None else bound_rows(y, len(x), x.device)
    parts = []
    for begin in range(0, max(len(x), 1), size):
        rows = slice(begin, min(begin + size, len(x)))
        noise = SampleNoise(seed, range(rows.start, rows.stop))
        given = {"noise": noise, "y": None if y is None else take_rows(y, rows)}
        parts.append(_log_weights(autoencoder, model, z[rows], draws, method, given))
    logs = torch.cat([part[0] for part in parts], dim=1) + log_det
    spread = logs.std(0) if draws > 1 else torch.full_like(logs[0], math.nan)
    return LatentBound(
        log_prob=logs.mean(0),
        std_error=spread / math.sqrt(draws),
        weighted=logs.logsumexp(0) - math.log(draws),
        log_weights=logs,
        nfe=max(part[1] for part in parts),
        nfe_derivative=max(part[2] for part in parts),
        spec=spec,
    )


def _log_weights(
    autoencoder: Autoencoder,
    model: ScoreModel,
    x: Tensor,
    draws: int,
    method: LikelihoodMethod | str,
    given: Mapping[str, Any],
) -> tuple[Tensor, int, int]:
    """log w of each draw, shape (draws, B), with the evaluations and derivative passes of a draw.

    Args:
        autoencoder: The autoencoder.
        model: The score model.
        x: Levels, or points at the model's scale.
        draws: Number of draws.
        method: The method for log p(z).
        given: Source of noise and condition, as for `log_likelihood`.
    """
    mean, log_std = autoencoder.posterior(x)
    logs, counts = [], []
    for _ in range(draws):
        z = mean + log_std.exp() * given["noise"].fresh(mean)
        prior = log_likelihood(model, z, method, **given)
        log_q = log_normal(z, mean, log_std)
        logs.append(autoencoder.log_conditional(x, z) + prior.log_prob - log_q)
        counts.append((prior.nfe, prior.nfe_derivative))
    return torch.stack(logs), *map(max, zip(*counts, strict=True))


def check_latents(autoencoder: Autoencoder, model: ScoreModel) -> None:
    """Raise ValueError if a score model says that its data have another shape than the latents."""
    if model.data is not None and model.data.shape != autoencoder.latent_shape:
        raise ValueError(
            f"model must be one of latents of shape {autoencoder.latent_shape}, as the autoencoder "
            f"makes them, got one of data of shape {model.data.shape}"
        )
