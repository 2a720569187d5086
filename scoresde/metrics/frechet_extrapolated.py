"""The Fréchet distance without its bias in 1/n."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .estimate import Estimate
from .frechet import GaussianStats, frechet_distance

__all__ = ["frechet_extrapolated"]


def frechet_extrapolated(
    x: Tensor, reference: Tensor | GaussianStats, *, space: str = "raw"
) -> Estimate:
    """Fréchet distance extrapolated to infinitely many samples, without the bias in 1/n.

        FD∞ = 2 FD(n) − ½ (FD(even rows) + FD(odd rows))

    The bias is linear in 1/n (Chong and Forsyth 2020, arXiv:1911.07023). They fit a line
    to distances of random subsets and take its value at 1/n = 0; here two halves take the place of
    the subsets. This is the same line through two sizes, uses every row once at each size, and has
    no random part. The reference is halved with the samples, so that its bias is removed as well;
    given statistics count as exact.

    Args:
        x: Features, shape (n, *D), n ≥ 4.
        reference: Features of the reference, shape (m, *D), m ≥ 4, or their statistics.
        space: Label of the feature space of the tensors.

    Returns:
        Estimate, which may be negative for near equal distributions. Its error is larger than that
        of the Fréchet distance: for equal distributions by √2. Its note says if a half has no more
        rows than dimensions; the bias is then not linear, and remains.

    Raises:
        TypeError: If a sample is neither a tensor nor statistics.
        ValueError: If a sample is too small or not finite, or the feature spaces or dimensions
            differ.
    """
    whole = frechet_distance(x, reference, space=space)
    halves = []
    for start in (0, 1):
        known = isinstance(reference, GaussianStats)
        part = reference if known else reference[start::2]
        halves.append(frechet_distance(x[start::2], part, space=space))
    value = 2 * whole.value - (halves[0].value + halves[1].value) / 2
    # |Z|² becomes the product of the noise of both halves, whose variance is twice that of |Z|².
    # The covariances of halves have a relative error of d/n, which the product contains as well.
    blurred = 1 + x[0].numel() * sum(1 / len(move) for move in whole.influence if len(move))
    law = replace(whole.law, zero=0.0, null=2 * blurred * whole.law.null)
    error = law.std_error(value)
    note = halves[0].note.replace("n = ", "half of the rows: n = ")
    return Estimate(value, error, whole.n, f"{whole.name}_extrapolated", note, whole.influence, law)
