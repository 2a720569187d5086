"""The likelihood methods by name, and `log_likelihood`, the one entry for all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from torch import Tensor

from .._condition import Condition
from .._tensor import check_type
from ..batches import batches
from ..evaluation import own_context
from ..noise import Noise
from ..plain import construct_named
from ..score import Clipped, ScoreModel
from .method import Likelihood, LikelihoodMethod, joined
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
) -> Likelihood:
    """log p(x) of each datum, computed by a method.

        log_likelihood(model, x, Ode(rtol=1e-4), seed=0)          density of points
        log_likelihood(model, x, "path:steps=64", seed=0)         density, the method as text
        log_likelihood(model, k, Dequantized(spec), seed=0)       probability of quantized data

    Sample i depends on (seed, i) and not on its batch mates, unless the method says otherwise.

    Args:
        model: Score model. Of a `Clipped` one the model inside is taken, with a warning. For a
            guided one `Ode` gives the density of the guided ODE, with a warning, because it is not
            p(x) p(y|x)^w; `Path` refuses it.
        x: Data, shape (B, *D). The method says which kind it needs: points at the model's scale
            (float32 or float64), or integer levels.
        method: The method, or its text.
        seed: Integer in [0, 2^64) for all randomness of the method; one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        y: Condition of the data, which a conditional model needs; see `ScoreModel.labelled`. log p
            is then log p(x | y).
        batch: Samples at a time; None = all at once.

    Returns:
        The log-likelihoods with their uncertainty and cost; empty for B = 0.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: On a bad argument, or if model, data and method do not fit together.
        RuntimeError: If the network or its derivative is not finite, or a solver gives up; the
            message names the time.
    """
    check_type("model", model, ScoreModel)
    model = _unclipped(model)
    method = as_method(method)
    method.check(model, x)
    if model.guided:
        words = "log p is that of the guided model, which is not p(x) p(y|x)^w"
        warnings.warn(words, UserWarning, stacklevel=3)
    given = {"seed": seed, "noise": noise, "y": y, "batch": batch}
    parts = batches(model, len(x), x.device, random=method.needs_noise(x), **given)
    found = joined([method.estimate(part, x[part.rows]) for part in parts])
    return replace(found, seed=None if seed is None else int(seed))


def _unclipped(model: ScoreModel) -> ScoreModel:
    """The model itself, or with a warning the one that is `Clipped`."""
    if not isinstance(model, Clipped):
        return model
    warnings.warn(
        "the likelihood is that of the model without clipping of x0", UserWarning, stacklevel=4
    )
    return model.model.given(model.y)
