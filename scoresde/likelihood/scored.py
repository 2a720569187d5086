"""Samples together with their log-density, in one pass of the probability-flow ODE or the SDE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._condition import Condition
from .._tensor import check_shape, check_type
from ..batches import batches
from ..evaluation import own_context
from ..noise import Noise
from ..plain import construct_named
from ..score import ScoreModel
from ..score.units import log_det_at, refuse_latents, to_units
from .ito import Ito
from .method import Likelihood, joined
from .methods import METHODS
from .ode import Ode

__all__ = ["ScoredSamples", "sample_with_log_prob"]

_METHODS = {**METHODS, "ito": Ito}


@dataclass(frozen=True, kw_only=True)
class ScoredSamples(Likelihood):
    """Samples with their likelihood, the result of `sample_with_log_prob`.

    `latent` holds the states at t = 1 from which the samples started.

    Attributes:
        x: Samples at t_min in the units of the data, shape (n, *D).
        scaled: The same samples at the model's scale; x itself unless the data have a transform.
        method: The `Ode` or the `Ito`.
    """

    x: Tensor
    scaled: Tensor
    method: Ode | Ito


@own_context()
def sample_with_log_prob(
    model: ScoreModel,
    shape: Sequence[int],
    method: Ode | Ito | str = Ode(),
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
    batch: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ScoredSamples:
    """Draw samples by the probability-flow ODE or the SDE, each with the log-density at the sample.

        x(1) ~ N(0, prior_std² I),   dx/dt = h(x, t) = f x − ½ g² score(x, t)   down to t_min
        log p(x(t_min)) = log N(x(1); 0, prior_std² I) + ∫ tr ∂h/∂x dt   over [t_min, 1]

    Song et al. 2021, arXiv:2011.13456, section 4.3. One solve computes the sample and the integral
    together, so that the density costs derivative passes but no further evaluations. It equals
    `log_likelihood` of x, within the tolerance and the error of the probes; like there, x and log p
    are in the units of the data.

    With `Ito` the samples are those of the reverse SDE, and the density costs nothing besides. Its
    random error, and what it means for a learned score, are said there.

    Sample i depends on (seed, i) only; by an `Ode` without `per_sample` also on its batch mates,
    within the tolerance. It starts from the same x(1) as sample i of `scoresde.sample` with that
    seed.

    Args:
        model: Score model.
        shape: Shape of the result, (n, *D).
        method: An `Ode` or an `Ito`, or its text, such as "ito:steps=1000". The samples contain
            noise of standard deviation σ(t_min); without noise there would be no density.
        seed: Integer in [0, 2^64) for all randomness; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Condition of the samples, which a conditional model needs; log p is then log p(x | y).
        batch: Samples at a time; None = all at once.
        device: Where to run.
        dtype: Dtype of the samples, float32 or float64.

    Returns:
        The samples with their log-density, its uncertainty and cost; empty for n = 0.

    Raises:
        TypeError: If dtype is not float32 or float64, or the method is no `Ode` and no `Ito`.
        ValueError: On a bad argument, or as for `log_likelihood`.
        RuntimeError: As for `log_likelihood`.
    """
    check_type("model", model, ScoreModel)
    refuse_latents(model)
    shape, method = check_shape(shape), _method(method)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    method.check(model, torch.empty((0, *shape[1:]), dtype=dtype, device=device))
    given = {"seed": seed, "noise": noise, "y": y, "batch": batch}
    parts = []
    for part in batches(model, shape[0], device, **given):
        drawn = part.noise.prior((part.n, *shape[1:])) * method.start_std(model)
        z, likelihood = method.draw(part, drawn.to(device, dtype))
        log_det, z = log_det_at(part.model, z), z.to(dtype)
        likelihood = likelihood if log_det is None else likelihood.shifted(log_det)
        x = to_units(part.model, z)
        parts.append(ScoredSamples(x=x, scaled=z, **vars(likelihood)))
    return replace(joined(parts), seed=None if seed is None else int(seed))


def _method(method: Ode | Ito | str) -> Ode | Ito:
    """The method itself, or the one that a text names."""
    found = construct_named("method", method, _METHODS) if isinstance(method, str) else method
    if not isinstance(found, (Ode, Ito)):
        raise TypeError(f"method must be of type Ode or Ito, or its text, got {method!r}")
    return found
