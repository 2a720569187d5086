"""Steps of the probability-flow ODE that students learn from, with one time per sample.

With x̄ = x/α and σ̂ = σ/α the ODE of every SDE is dx̄/dσ̂ = (x̄ − x0(x, t))/σ̂, so that

    DDIM   x̄_s = x̄_t + (σ̂_s − σ̂_t) (x̄_t − x0)/σ̂_t

is Euler's method. All steps are written with the weight k = 1 − σ̂_s/σ̂_t of x0, which is between 0
and 1 also where α_t = 0 and σ̂_t is infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..score import ScoreModel
from ..score.combining import cast
from ..sde import Node

__all__ = ["ddim_step", "heun_step", "noised", "two_step_target"]


def noised(x0: Tensor, eps: Tensor, t: Node) -> Tensor:
    """x_t = α x_0 + σ ε."""
    return cast(t.alpha, x0) * x0 + cast(t.sigma, x0) * eps


def ddim_step(x: Tensor, x0: Tensor, t: Node, s: Node) -> Tensor:
    """x_s = (σ_s/σ_t) x_t + α_s k x0,   k = 1 − e^{λ_t − λ_s}.

    Args:
        x: States x_t, shape (B, *D).
        x0: Predictions of the data, like x.
        t: The times of the states, entries of shape (B, 1, ...).
        s: The next times, at most t; where s = t the step is exactly x.
    """
    return cast(s.sigma / t.sigma, x) * x + cast(s.alpha * _weight(t, s), x) * x0


def heun_step(model: ScoreModel, x: Tensor, t: Node, s: Node) -> Tensor:
    """Heun's step in σ̂, order 2, 2 NFE: the mean of the slopes at both ends.

        x̄_s = x̄_t + (σ̂_s − σ̂_t)/2 · (d_t + d_s),   d = (x̄ − x0)/σ̂

    Karras et al. 2022, arXiv:2206.00364, algorithm 1.

    Args:
        model: The teacher.
        x: States x_t, shape (B, *D).
        t: The times of the states, with α > 0.
        s: The next times, at most t.
    """
    first = model.x0(x, t)
    ahead = ddim_step(x, first, t, s)
    slope = (x / cast(t.alpha, x) - first) / cast(t.sigma / t.alpha, x)
    slope = slope + (ahead / cast(s.alpha, x) - model.x0(ahead, s)) / cast(s.sigma / s.alpha, x)
    change = cast(0.5 * (s.sigma / s.alpha - t.sigma / t.alpha), x)
    return cast(s.alpha, x) * (x / cast(t.alpha, x) + change * slope)


def two_step_target(model: ScoreModel, x: Tensor, t: Node, m: Node, s: Node) -> Tensor:
    """The x̃ with which one DDIM step from t to s ends where two steps t → m → s of a teacher end.

    Salimans and Ho 2022, arXiv:2202.00512, algorithm 2, have

        x̃ = (x_s − (σ_s/σ_t) x_t)/(α_s − (σ_s/σ_t) α_t)

    With x_s from the two steps this is a mean of the teacher's two predictions,

        x̃ = w x0(x_t, t) + (1 − w) x0(x_m, m),   w = (σ̂_s/σ̂_m) (σ̂_t − σ̂_m)/(σ̂_t − σ̂_s)

    which is computed here: no small number is divided by a small number.

    Args:
        model: The teacher.
        x: States x_t, shape (B, *D).
        t: The times of the states.
        m: The times after one step.
        s: The times after two steps.
    """
    first = model.x0(x, t)
    second = model.x0(ddim_step(x, first, t, m), m)
    w = torch.exp(m.lam - s.lam) * _weight(t, m) / _weight(t, s)
    return second + cast(w, x) * (first - second)


def _weight(t: Node, s: Node) -> Tensor:
    """k = 1 − σ̂_s/σ̂_t, free of cancellation for short steps."""
    return -torch.expm1(t.lam - s.lam)
