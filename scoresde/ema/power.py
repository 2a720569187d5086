"""Power-function averages of a network's weights, whose length grows with training.

    w̄_γ(t) = ∫₀ᵗ p(τ) w(τ) dτ,   p(τ) = (γ + 1) τ^γ / t^(γ + 1)

p is the profile of the average at time t. Its standard deviation is σ_rel t with the relative width
σ_rel, which says more than γ: an average of σ_rel = 0.1 spans about a tenth of the training so far.
Karras et al. 2024, arXiv:2312.02696, section 3.1 and appendix C.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from .._tensor import check_number
from .average import WeightAverage

__all__ = ["LARGEST_SIGMA_REL", "PowerEMA", "power_exponent"]

LARGEST_SIGMA_REL = 12**-0.5  # of γ = 0, the plain mean of all weights


def power_exponent(sigma_rel: float) -> float:
    """γ of a profile of relative width σ_rel:  σ_rel² = (γ + 1) / ((γ + 2)² (γ + 3)).

    With u = γ + 2 and s = σ_rel⁻² this is the cubic u³ + u² − s u + s = 0, of which γ is given by
    the largest root.

    Args:
        sigma_rel: Standard deviation of the profile as a share of the training so far, above 0 and
            at most `LARGEST_SIGMA_REL` ≈ 0.2887.

    Returns:
        γ ≥ 0.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of range.
    """
    check_number("sigma_rel", sigma_rel, above=0, at_most=LARGEST_SIGMA_REL)
    s = float(sigma_rel) ** -2
    return max(0.0, float(np.roots([1.0, 1.0, -s, s]).real.max()) - 2)


class PowerEMA(WeightAverage):
    """Power-function average of a network's weights.

        w̄ ← β_n w̄ + (1 − β_n) w,   β_n = (1 − 1/n)^(γ + 1),   n = 1, 2, ...

    with n the number of updates, this one included. After n updates the weights w_k of update k
    have the share (k^(γ + 1) − (k − 1)^(γ + 1)) / n^(γ + 1). This is the integral of the profile
    from k − 1 to k, so that the recursion is the exact average of weights that are constant between
    updates. The weights before the first update have no share.

    Attributes:
        sigma_rel: Relative width of the profile.
        gamma: γ.
    """

    def __init__(self, net: nn.Module, sigma_rel: float) -> None:
        """Make an average that the first update sets to the network's weights.

        Args:
            net: The bare network, not a DistributedDataParallel wrapper.
            sigma_rel: Relative width, as for `power_exponent`.

        Raises:
            ValueError: If `sigma_rel` is out of range.
        """
        self.sigma_rel, self.gamma = float(sigma_rel), power_exponent(sigma_rel)
        super().__init__(net)

    def decay_after(self, n: int | Tensor) -> float | Tensor:
        """β_{n+1} of the update after n others."""
        return (1 - 1 / (n + 1)) ** (self.gamma + 1)
