"""The loss on held-out data, and on equally many of the training data.

The times, the noise and the dequantization of datum i are functions of (seed, i). They are the same
at each validation, so that a curve over the training is smooth, and the same for held-out and
training data, so that the difference of the two losses has little noise. The times are stratified:
one in each of n equal intervals of u in [0, 1). A network that overfits has a training loss that
falls while the loss on the held-out data rises.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ._condition import take_rows
from ._philox import normals, uniforms
from ._tensor import NonFiniteError
from ._text import reason_of
from .data import Dataset
from .evaluation import evaluating, own_context
from .likelihood import Dequantized, log_likelihood
from .train import Training, device_of, network_seed

__all__ = ["Validation", "check_bits", "measure_bits", "noised", "validate"]


@dataclass(frozen=True)
class Validation:
    """The loss of a network on held-out data, with fixed times and noise.

    Attributes:
        loss: Mean weighted loss on held-out data; NaN if a value is not finite.
        std_error: Standard error of this mean over data, times and noise. It is an upper estimate,
            because the times are stratified. Changes between two validations of one training are
            more precise: both have the same data, times and noise.
        training_loss: The same loss on equally many of the data that are trained on.
        t: Times of the held-out data, shape (n,).
        errors: Their unweighted errors |ε̂ − ε|²/D, shape (n,).
        training_errors: The same of the training data, at the same times, shape (n,).
        accuracy: Share of held-out data whose class a classifier names, over all noise levels;
            its errors are 1 for a wrong class and 0 for the right one. None for a score model.
        nll: Negative log-likelihood of held-out data per dimension, in `unit`; None if it was not
            asked for or could not be computed.
        nll_std_error: Standard error of `nll`, from data, dequantization and probes.
        unit: "bits/dim", or "nats/dim" for continuous data.
    """

    loss: float
    std_error: float
    training_loss: float
    t: Tensor
    errors: Tensor
    training_errors: Tensor
    accuracy: float | None = None
    nll: float | None = None
    nll_std_error: float | None = None
    unit: str | None = None


def validate(training: Training, bits: int = 0) -> Validation:
    """The validation of a training with the present weights of its network.

    If the likelihood cannot be computed, for instance because its derivative passes need too much
    memory, a warning says so.

    Args:
        training: A training with held-out data.
        bits: Number of held-out data whose likelihood is computed, 0 or as `check_bits` allows.

    Returns:
        Losses, errors by time and, on request, the likelihood.
    """
    with _fixed(training):
        losses, t, errors = _losses(training, training.examples.held_out)
        seen, _, training_errors = _losses(training, training.examples.compared)
    found = Validation(
        loss=float(losses.mean()),
        std_error=float(losses.std()) / math.sqrt(len(losses)),
        training_loss=float(seen.mean()),
        t=t,
        errors=errors,
        training_errors=training_errors,
        accuracy=float(1 - errors.mean()) if training.objective.counts_wrong else None,
    )
    if not bits:
        return found
    try:
        nll, nll_std_error = measure_bits(training, bits)
    except (RuntimeError, MemoryError) as error:
        reason = reason_of(error)
        warnings.warn(f"the held-out likelihood was not computed ({reason})", stacklevel=2)
        return found
    unit = training.data.spec.unit
    return replace(found, nll=nll, nll_std_error=nll_std_error, unit=unit)


def check_bits(training: Training, n: int) -> None:
    """Raise ValueError unless the likelihood of n held-out data can be computed.

    Raises:
        ValueError: If n is 1 or less, there are fewer held-out data, or the network has rounded
            labels.
    """
    held = training.examples.held_out
    most = 0 if held is None else len(held)
    if not 2 <= n <= most:
        raise ValueError(f"must be between 2 and the {most} held-out data, got {n}")
    Dequantized(held.spec).check(training.model, held.x[:1])


def measure_bits(training: Training, n: int) -> tuple[float, float]:
    """Negative log-likelihood per dimension of the first n held-out data, and its standard error.

    The method is `log_likelihood`'s default, with one dequantization of each datum. Dequantization
    and probes are the same each time. The unit is that of the data.

    Args:
        training: A training with at least n held-out data.
        n: At least 2.

    Raises:
        RuntimeError: If the network or its derivative is not finite, or memory runs out.
    """
    held, settings = training.examples.held_out, training.settings
    x, y = held.x[:n], None if held.labels is None else take_rows(held.labels, slice(n))
    method, size = Dequantized(held.spec), max(1, settings.batch // settings.accumulate)
    device = device_of(training.model.net)
    with _fixed(training):
        found = log_likelihood(
            training.model, x.to(device), method, seed=settings.seed, y=y, batch=size
        )
    nll = -found.log_prob.cpu() / held.spec.nats_per_unit
    return float(nll.mean()), float(nll.std()) / math.sqrt(n)


def noised(data: Dataset, rows: slice, seed: int) -> tuple[Tensor, Tensor]:
    """Points at the model's scale and noise of some of the data, each (n, *D) in float32.

    Args:
        data: The data; levels are dequantized.
        rows: Which of them.
        seed: Seed of noise and dequantization, which are functions of (seed, row).
    """
    x, index = data.x[rows], np.arange(rows.start, rows.stop)
    size = math.prod(x.shape[1:])
    if data.spec.levels is not None:
        u = uniforms(seed, index, "validation", size, draw=1)
        x = data.spec.dequantize(x, u.reshape(x.shape))
    eps = normals(seed, index, "validation", size, draw=2, dtype=torch.float32)
    return x.float(), eps.reshape(x.shape)


@contextmanager
def _fixed(training: Training) -> Iterator[None]:
    """Evaluation mode without gradients, and the same random numbers for a network's own use."""
    net = training.model.net
    with own_context(), evaluating(net), network_seed(net, training.settings.seed, 0):
        yield


def _losses(training: Training, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted losses, times and unweighted errors of the data, each (n,) in float64 on the CPU.

    Losses and errors are NaN from the first batch on in which a value is not finite.
    """
    n, settings = len(data), training.settings
    index = np.arange(n)
    u = (torch.arange(n) + uniforms(settings.seed, index, "validation", 1)[:, 0]) / n
    found = torch.full((3, n), math.nan, dtype=torch.float64)
    with suppress(NonFiniteError):
        for part in torch.arange(n).split(max(1, settings.batch // settings.accumulate)):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            x0, eps = noised(data, rows, settings.seed)
            y = None if data.labels is None else take_rows(data.labels, rows)
            for target, values in zip(found, training.losses(x0, y, u[rows], eps), strict=True):
                target[rows] = values.double().cpu()
    losses, t, errors = found
    return losses, t, errors
