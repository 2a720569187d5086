"""Diagonal Gaussians: log-density, entropy, and divergence from N(0, I), all in float64."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["entropy", "kl_to_normal", "log_normal"]

_LOG_2PI = math.log(2 * math.pi)


def log_normal(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, diag std²) = −½ Σ [((x − mean)/std)² + 2 log std + log 2π], nats, (B,).

    Args:
        x: Points, shape (B, *D).
        mean: Means, shape (B, *D).
        log_std: Logarithms of the standard deviations, shape (B, *D).
    """
    gap, log_std = x.double() - mean.double(), log_std.double()
    terms = (gap * (-log_std).exp()).square() + 2 * log_std + _LOG_2PI
    return -0.5 * terms.flatten(1).sum(1)


def entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian, Σ [log std + ½ (1 + log 2π)], nats, shape (B,)."""
    return (log_std.double() + 0.5 * (1 + _LOG_2PI)).flatten(1).sum(1)


def kl_to_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, diag std²) ‖ N(0, I)) = ½ Σ [mean² + std² − 1 − 2 log std], nats, shape (B,).

    Kingma and Welling 2014, arXiv:1312.6114, appendix B, with the opposite sign.

    Args:
        mean: Means, shape (B, *D).
        log_std: Logarithms of the standard deviations, shape (B, *D).
    """
    mean, log_std = mean.double(), log_std.double()
    terms = mean.square() + (2 * log_std).exp() - 1 - 2 * log_std
    return 0.5 * terms.flatten(1).sum(1)
