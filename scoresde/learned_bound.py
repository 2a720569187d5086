"""The term of DDPM's bound that trains a learned variance of the reverse steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._tensor import expand
from .sde import SDE
from .sde.reverse import gaussian_kl, learned_std

__all__ = ["bound_term"]


def bound_term(sde: SDE, t: Tensor, levels: int, squares: Tensor, share: Tensor) -> Tensor:
    """L_{t−1} of DDPM's bound with a learned variance v, or L_0 at the last time of the ladder.

        L_{t−1} = KL(N(μ̃, β̃) ‖ N(μ, v)),  (μ̃ − μ)² = κ² (ε̂ − ε)²,  κ = β/(a σ_t),  a = α_t/α_s
        L_0     = −log N(x_0; x̂_0, v_1),   x̂_0 − x_0 = (σ/α)(ε − ε̂)

    v_1 is learned between β_1 and β̃_2, because β̃_1 = 0. See `likelihood.vlb.chain.ReverseChain`.

    Args:
        sde: The forward process.
        t: Times of the ladder, shape (B,), float64.
        levels: Number of times of the ladder.
        squares: (ε̂ − ε)² of each element, shape (B, *D).
        share: w of the learned variance, like `squares`.

    Returns:
        Nats per dimension, shape (B,).
    """
    last = t < 1.5 / levels
    upper = torch.where(last, 2 / levels, t)
    high, low = sde.at(upper, squares), sde.at(upper - 1 / levels, squares)
    beta = high.sigma**2 * -torch.expm1(2 * (high.lam - low.lam))
    posterior = beta * (low.sigma / high.sigma) ** 2
    last = expand(last, squares)
    largest = torch.where(last, low.sigma**2, beta)
    step_gain = beta * low.alpha / (high.alpha * high.sigma)
    gain = torch.where(last, low.sigma / low.alpha, step_gain)
    ratio = (posterior / largest).sqrt()
    variance = learned_std(largest.sqrt().to(share), ratio.to(share), share).square()
    apart = gain.square().to(squares) * squares
    step = gaussian_kl(apart, posterior.to(squares), variance)
    decoder = 0.5 * (apart / variance + torch.log(2 * math.pi * variance))
    return torch.where(last, decoder, step).flatten(1).mean(1)
