"""The drift of the reverse process."""

from __future__ import annotations

from torch import Tensor

from .base import ScoreModel, Time
from .combining import combine

__all__ = ["reverse_drift"]


def reverse_drift(model: ScoreModel, x: Tensor, t: Time, eta: float = 1.0) -> Tensor:
    """Drift of the reverse process: f x − (1 + η²)/2 g² score(x, t).

    η = 1 is the reverse SDE, η = 0 the probability-flow ODE (Song et al. 2021,
    arXiv:2011.13456, eq. (6) and (13)); the noise of the process is η g dw̄.

    Args:
        model: The score model.
        x: State, shape (B, *D).
        t: Time.
        eta: Stochasticity, at least 0.

    Returns:
        The drift dx/dt, like x (sampling integrates it with dt < 0).
    """
    node = model.sde.at(t, x)
    if eta == 0 and model.sde.ends_in_noise:  # f and g are infinite at t = 1
        return model.velocity(x, node)
    # −g² score = (g²/σ) ε
    weight = 0.5 * (1 + eta**2) * node.g**2 / node.sigma
    return combine(node.f, x, weight, model.eps(x, node))
