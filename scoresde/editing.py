"""Editing of data with a score model: from partly noised data, and by two flows.

    noised       α x + σ ε, from which `sample` may start
    edit         noise up to a time t < 1, and sampling from there: SDEdit
    translate    the code under one condition or model, decoded under another one

Paths between two data are `scoresde.interpolate` and `interpolate_with_log_prob`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._condition import Condition
from ._tensor import check_number, check_type
from .batches import batches
from .grid import snapped
from .likelihood.latent import Coded, decode, encode
from .likelihood.method import check_data
from .likelihood.ode import Ode
from .noise import Noise
from .samplers import Sampler, Samples, sample
from .samplers.arguments import DEFAULT_SEED
from .samplers.choice import check_start, choose, start_time
from .samplers.recommended import Choice, data_shape
from .score import ScoreModel
from .score.units import to_model_scale

__all__ = ["Translation", "edit", "edit_choice", "noised", "translate"]

# Scales of codes that differ by less fit together: it is 0.9975 at λ = −6, where some models end.
_SAME_STD = 1e-2


def noised(
    model: ScoreModel,
    x: Tensor,
    t: float,
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
) -> Tensor:
    """Data with the noise of time t:  x_t = α(t) x + σ(t) ε,  ε ~ N(0, I), at the model's scale.

    It is the start of a sample from partly noised data, on any grid that begins at t:

        scoresde.sample(model, sampler, ts, x_init=noised(model, x, ts[0], seed=0), seed=0)

    ε of datum i depends on (seed, i) alone. It is that of the start of sample i of `sample` with
    this seed, and is independent of all further draws of that sample.

    Args:
        model: The score model, of which only the SDE and the scale of the data are used.
        x: Data in units, shape (B, *D), float32 or float64.
        t: Time in [0, 1].
        seed: Integer in [0, 2^64).
        noise: A source of randomness instead of `seed`.
        y: Condition of the data; it tells the sizes of sets.

    Returns:
        States x_t, like x.

    Raises:
        TypeError: If x is neither float32 nor float64.
        ValueError: If x is not finite, has another shape than the model's data, or t is out of
            range; unless exactly one of seed and noise is given.
    """
    check_type("model", model, ScoreModel)
    t = float(check_number("t", t, at_least=0, at_most=1))
    _check_points(model, x)
    z, _ = to_model_scale(model, x, y)
    (part,) = batches(model, len(x), x.device, seed=seed, noise=noise, y=y)
    eps = part.noise.prior(x.shape, x.device)
    alpha, sigma = float(model.sde.alpha(t)), float(model.sde.sigma(t))
    return (alpha * z.to(torch.float64) + sigma * eps).to(x.dtype)


def edit(
    model: ScoreModel,
    x: Tensor,
    strength: float,
    sampler: Sampler | None = None,
    *,
    nfe: int | None = None,
    seed: int | None = None,
    y: Condition | None = None,
    batch: int | None = None,
) -> Samples:
    """SDEdit: noise up to the time t = strength, and sampling from there.

        x_t = α(t) x + σ(t) ε,   then the sampler from t down to the data

    Details of x that are smaller than σ/α are drawn anew, and the rest is kept. For the exact
    reverse SDE the result has the density ∫ p(x_0 | x_t) p(x_t | x) dx_t. The input may be any
    picture, such as coloured strokes; it need not look like the data. To make several results of
    one x, give it several times.

    Strength 0 gives x itself, without any evaluation. Strength 1 is an ordinary sample, but for the
    part α(1) of x. If α(1) = 0, and the sampler or the model is not regular there, it is the last
    time at which they are. Result i depends on (seed, i) and x alone.

    The times are those of a whole generation below t, so that a smaller strength costs fewer
    evaluations. Meng et al. 2021, arXiv:2108.01073, algorithm 1, whose t_0 is the strength.

    Args:
        model: Score model.
        x: Data in units, shape (B, *D), float32 or float64.
        strength: Time in [0, 1]. What it means depends on the SDE: at 0.5 σ/α is 3.4 under VP, 1
            under `Linear` and 0.7 under VE, with their usual parameters.
        sampler: The sampler; None for the recommended one. A stochastic one does not keep ε.
        nfe: Evaluations of a whole generation, from t = 1; None for 20.
        seed: Integer in [0, 2^64); None for 0.
        y: The condition of the result, which a conditional model needs.
        batch: Samples at a time; None = all at once.

    Returns:
        The results, whose `x_init` are the states x_t.

    Raises:
        TypeError: As for `sample`, or if x is neither float32 nor float64.
        ValueError: As for `sample`; if x is not finite or has another shape than the model's data;
            if the strength is out of range, or above 0 and not above the last time of the grid.
        RuntimeError: As for `sample`.
    """
    check_type("model", model, ScoreModel)
    _check_points(model, x)
    chosen = edit_choice(model, strength, sampler, nfe, tuple(x.shape[1:]))
    seed = DEFAULT_SEED if seed is None else seed
    if chosen is None:
        return _unchanged(model, x, sampler, nfe, seed, y)
    start = noised(model, x, float(chosen.ts[0]), seed=seed, y=y)
    return sample(
        model,
        chosen.sampler,
        chosen.ts,
        denoise=chosen.denoise,
        x_init=start,
        seed=seed,
        y=y,
        batch=batch,
        dtype=x.dtype,
    )


def edit_choice(
    model: ScoreModel,
    strength: float,
    sampler: Sampler | None = None,
    nfe: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> Choice | None:
    """Sampler and times of `edit`: those of `sample` that are below t = strength, after t itself.

    The first time below t is left out if it is nearer to t than half a step.

    Args:
        model: The score model, or any object that says the same about itself.
        strength: Time in [0, 1].
        sampler: As for `edit`.
        nfe: As for `edit`.
        shape: Shape of one sample; None for that of the model's data.

    Returns:
        The choice; None for strength 0.

    Raises:
        TypeError: As for `edit`.
        ValueError: As for `edit`.
    """
    strength = float(check_number("strength", strength, at_least=0, at_most=1))
    chosen = choose(model, sampler, None, nfe, True, shape)
    if strength == 0:
        return None
    ts, t = chosen.ts, min(strength, start_time(model, chosen.sampler))
    if t <= float(ts[-1]):
        raise ValueError(
            f"strength must be 0 or above {float(ts[-1]):.4g}, the last time of the grid, got "
            f"{strength:g}; more evaluations end at a smaller time"
        )
    t = float(snapped(model.sde, ts.new_tensor([t, ts[-1]]))[0]) if model.snapped else t
    k = int((ts < t).nonzero()[0])
    if 0 < k < len(ts) - 1 and t - ts[k] < 0.5 * (ts[k - 1] - ts[k]):
        k += 1
    check_start(model, chosen.sampler, t)
    return Choice(chosen.sampler, torch.cat([ts.new_tensor([t]), ts[k:]]), True, chosen.grid)


def _unchanged(
    model: ScoreModel,
    x: Tensor,
    sampler: Sampler | None,
    nfe: int | None,
    seed: int,
    y: Condition | None,
) -> Samples:
    """The result of strength 0: x itself."""
    chosen = choose(model, sampler, None, nfe, True, tuple(x.shape[1:]))
    z, _ = to_model_scale(model, x, y)
    bound = model.labelled(y, len(x), x.device)
    return Samples(
        x=x,
        scaled=z,
        x_init=z,
        nfe=0,
        ts=chosen.ts.new_zeros(1),
        seed=seed,
        sampler=chosen.sampler,
        grid=None,
        denoise=False,
        y=bound.y,
        condition=model.condition,
    )


@dataclass(frozen=True)
class Translation(Coded):
    """Data, codes and data again, the result of `translate`.

    Attributes:
        translated: The codes, decoded under the other condition or model, like x.
    """

    translated: Tensor


def translate(
    model: ScoreModel,
    x: Tensor,
    method: Ode | str = Ode(),
    *,
    y: Condition | None = None,
    to: Condition | None = None,
    target: ScoreModel | None = None,
    batch: int | None = None,
) -> Translation:
    """Encode data under one condition or model, and decode the codes under another one.

        x → x(1) by the flow of p(x | y);   x(1) → x' by that of p(x | to)

    The code keeps what both have in common, such as the slant of a digit. It is random only in x,
    and translating back gives x, within the solver's tolerance. With one condition for both it is
    the round trip. Su et al. 2022, arXiv:2203.08382, section 3, for two models.

    Args:
        model: The model that encodes.
        x: Data in units, shape (B, *D), float32 or float64.
        method: Solver, tolerances and t_min, or its text; trace and control are not used.
        y: Condition of the data, which a conditional model needs.
        to: Condition of the result, which a conditional target needs.
        target: The model that decodes, such as a guided one; None for `model`.
        batch: Samples at a time; None = all at once.

    Returns:
        Data, codes and results, with the evaluations of both solves.

    Raises:
        TypeError: As for `encode`.
        ValueError: As for `encode`, or if the codes of the target have another scale or shape.
        RuntimeError: As for `encode`.
    """
    check_type("model", model, ScoreModel)
    target = model if target is None else target
    check_type("target", target, ScoreModel)
    _check_target(model, target)
    target.labelled(to, len(x), x.device)  # refused before the first solve
    there = encode(model, x, method, y=y, batch=batch)
    back = decode(target, there.latent, method, y=to, batch=batch)
    return Translation(
        x=x,
        latent=there.latent,
        nfe=there.nfe + back.nfe,
        t_min=max(there.t_min, back.t_min),
        method=there.method,
        translated=back.x,
    )


def _check_target(model: ScoreModel, target: ScoreModel) -> None:
    """Raise unless codes of one model are codes of the other."""
    stds = [float(each.sde.start_std(each.t_most)) for each in (model, target)]
    if abs(stds[1] - stds[0]) > _SAME_STD * stds[0]:
        raise ValueError(
            f"target must have codes of standard deviation {stds[0]:g}, as the model, got "
            f"{stds[1]:g}"
        )
    shapes = [data_shape(each) for each in (model, target)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise ValueError(f"target must be of data of shape {shapes[0]}, got {shapes[1]}")


def _check_points(model: ScoreModel, x: Tensor) -> None:
    """Raise unless x holds finite floating numbers of the shape of the model's data."""
    check_data(x)
    shape = data_shape(model)
    if shape is not None and tuple(x.shape[1:]) != shape:
        wanted = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
