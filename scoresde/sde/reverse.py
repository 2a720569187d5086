"""The variance of a reverse step from t to s: DDPM's two fixed ones, and one that a network learns.

    β = σ²_{t|s}        β̃ = β σ_s²/σ_t²        v = β^w β̃^{1−w}

w is what the network says for every element of x at time t. It says nothing of s, so that it serves
the steps of any ladder.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor

__all__ = ["UNLEARNED", "FixedVariance", "ReverseVariance", "gaussian_kl", "learned_std"]

FixedVariance = Literal["beta", "beta_tilde"]
ReverseVariance = Literal["beta", "beta_tilde", "learned"]

# Why a model cannot take the learned variance.
UNLEARNED = (
    "the variance 'learned' needs a network with 2C output channels that was trained for it: "
    "learned_variance = true in [net], or in wrap"
)

Number = TypeVar("Number", float, Tensor)


def learned_std(std: Number, ratio: Number, share: Number) -> Number:
    """√v = √β (σ_s/σ_t)^{1−w}, the standard deviation of a reverse step with a learned variance.

    It is √β at w = 1 and √β̃ at w = 0; w may also lie outside. Nichol & Dhariwal 2021, "Improved
    Denoising Diffusion Probabilistic Models", arXiv:2102.09672, eq. (15): log v = w log β +
    (1 − w) log β̃.

    Args:
        std: √β = σ_{t|s}.
        ratio: √(β̃/β) = σ_s/σ_t.
        share: w.
    """
    return std * ratio ** (1 - share)


def gaussian_kl(square: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """KL(N(m, first) ‖ N(m', second)) of each element, in nats.

        ½ ((m − m')²/second + r − 1 − log r),   r = first/second

    Args:
        square: (m − m')².
        first: Variance of the first normal distribution.
        second: Variance of the second one.
    """
    log_ratio = torch.log(first / second)
    return 0.5 * (square / second + torch.expm1(log_ratio) - log_ratio)
