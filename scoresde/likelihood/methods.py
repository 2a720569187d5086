"""The likelihood methods by name, and `log_likelihood`, the one entry for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from .._condition import Condition
from .._tensor import check_type
from ..batches import Batch, batches
from ..evaluation import own_context
from ..noise import Noise
from ..plain import construct_named
from ..score import Clipped, ScoreModel
from ..score.gradients import with_gradients
from ..score.sets import check_padding
from ..score.units import to_model_scale
from .method import GUIDED, Likelihood, LikelihoodMethod, joined
from .ode import ODE_METHODS, Ode
from .path.path import Path

__all__ = ["METHODS", "as_method", "log_likelihood", "parse_method"]

METHODS: dict[str, Callable[..., LikelihoodMethod]] = {
    "path": Path,
    # by position, so that `dopri5:method=bosh3` is an unknown key
    **{name: partial(Ode, name) for name in ODE_METHODS},
}

Method = TypeVar("Kind", bound=LikelihoodMethod)


def parse_method(text: str) -> LikelihoodMethod:
    """A method from `name` or `name:key=value:key=value`, such as `path:steps=64`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    return construct_named("method", text, METHODS)


def as_method(method: LikelihoodMethod | str, kind: type[Method] = LikelihoodMethod) -> Method:
    """A method itself, or the method that a text names.

    Args:
        method: Method or text.
        kind: The class that the method must have.

    Raises:
        TypeError: If the method is not of that class.
        ConfigError: As for `parse_method`.
    """
    found = parse_method(method) if isinstance(method, str) else method
    if not isinstance(found, kind):
        raise TypeError(f"method must be of type {kind.__name__} or its text, got {method!r}")
    return found


@own_context()
def log_likelihood(
    model: ScoreModel,
    x: Tensor,
    method: LikelihoodMethod | str = Path(),
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
    batch: int | None = None,
    grad: bool = False,
) -> Likelihood:
    """log p(x) of each datum in nats, a density in the units of the data, computed by a method.

        log_likelihood(model, x, Ode(rtol=1e-4), seed=0)          density of points
        log_likelihood(model, x, "path:steps=64", seed=0)         density, the method as text
        log_likelihood(model, k, Dequantized(spec), seed=0)       probability of quantized data

    If the data of the model have a transform z = g(x) (`DataSpec.transform`), x is in the user's
    units and log p(x) = log p(z) + log |det ∂z/∂x|; latents are at the model's scale.

    Sample i depends on (seed, i) and not on its batch mates, unless the method says otherwise.

    Args:
        model: Score model. Of a `Clipped` one the model inside is taken, with a warning. For a
            guided one `Ode` gives the density of the guided ODE, with a warning and a `label`,
            because it is not p(x) p(y|x)^w; `Path` refuses it.
        x: Data, shape (B, *D). The method says which kind it needs: points in units
            (float32 or float64), or integer levels.
        method: The method, or its text.
        seed: Integer in [0, 2^64) for all randomness of the method; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Condition of the data, which a conditional model needs; see `ScoreModel.labelled`. log p
            is then log p(x | y).
        batch: Samples at a time; None = all at once.
        grad: Whether `log_prob` and `latent` are differentiable: with respect to x, the condition y
            and the weights of the model, those of them that require gradients. The gradient is that
            of the number that is returned: probes, nodes, dequantization and the steps of an
            adaptive solver are constants. The backward pass computes each evaluation with its
            derivative passes again (`model.nfe.repeated`), so that the memory grows by a few states
            for each evaluation. Gradients flow through the derivative of the network, which must
            have a second derivative. Only first derivatives of log p exist.

    Returns:
        The log-likelihoods with their uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: On a bad argument, or if model, data and method do not fit together; for `grad`,
            if nothing requires gradients, or the method is not differentiable.
        RuntimeError: If the network or its derivative is not finite, or a solver gives up; the
            message names the time. For `grad`, if the model is not differentiable.
    """
    check_type("model", model, ScoreModel)
    check_type("grad", grad, bool)
    model = _unclipped(model)
    if model.distilled is not None:
        raise ValueError(
            f"model must have a score, got {model.distilled.in_words}: its x0 is the end of a long "
            "step; take its teacher"
        )
    method = as_method(method)
    method.check(model, x)
    if grad and not method.differentiable:
        raise ValueError(
            f"grad must be False for {type(method).__name__}, which is not differentiable; Path "
            "and Ode are"
        )
    if model.guided:
        warnings.warn(GUIDED, UserWarning, stacklevel=3)
    given = {"seed": seed, "noise": noise, "y": y, "batch": batch}
    random = method.needs_noise(x)
    with torch.set_grad_enabled(grad):
        parts = batches(model, len(x), x.device, random=random, **given)
        for part in parts:
            check_padding(part.model, x[part.rows])
        z, log_det = (x, None) if method.encodes else to_model_scale(model, x, y)
        if grad:
            parts = [_with_gradients(part, z[part.rows]) for part in parts]
        found = joined([method.estimate(part, z[part.rows]) for part in parts])
        found = found if log_det is None else found.shifted(log_det)
    label = GUIDED if model.guided else None
    return replace(found, seed=None if seed is None else int(seed), label=label)


def _with_gradients(part: Batch, x: Tensor) -> Batch:
    """The batch with a model that gradients flow through."""
    if not x.is_floating_point():  # levels, at which no model is evaluated
        x = torch.zeros_like(x, dtype=torch.float32)
    return part._replace(model=with_gradients(part.model, x, part.model.t_most))


def _unclipped(model: ScoreModel) -> ScoreModel:
    """The model itself, or with a warning the one that is `Clipped`."""
    if not isinstance(model, Clipped):
        return model
    warnings.warn(
        "the likelihood is that of the model without clipping of x0", UserWarning, stacklevel=4
    )
    inside = model.model.given(model.y)
    inside.data = model.data  # which may be at the model's scale; `given` has made a copy
    return inside
