"""One estimate from several independent samples of one sampler, such as those of several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .compare import first_order_error
from .estimate import Estimate, SquareLaw

__all__ = ["pooled"]


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of the estimates of S independent samples of one size, against the same reference.

    The variance that comes from the samples falls as 1/S. That of the reference, which all of them
    share, remains. With the influences ψ of the samples and φ of the reference it is

        Σ_s Var ψ_s/(S² n) + Var(mean_s φ_s)/m

    For squared distances the noise is Z = X_s + Y, with covariances in the ratio 1/n to 1/m. With
    f = (1/n)/(1/n + 1/m) the slope of their law is f/S + (1 − f) times, and the variance at
    equality (f² + 2 f (1 − f))/S + (1 − f)² times the mean over the samples.

    The bias is that of n samples, not of S n. The values of the samples, their spread included, are
    in the note.

    Args:
        estimates: At least two, of one metric, one n and one reference. Each sample has its own
            x_T and noise.

    Returns:
        Estimate with n = (S n, m), whose name says how many samples it is the mean of.

    Raises:
        ValueError: If there are fewer than two, or they differ in metric, features or sizes, or
            the influences of one are not known.
    """
    if len(estimates) < 2:
        raise ValueError(f"estimates must be at least 2, got {len(estimates)}")
    first, count = estimates[0], len(estimates)
    for other in estimates[1:]:
        if (other.name, other.n) != (first.name, first.n):
            raise ValueError(
                f"estimates must be of the same metric and n, got {first.name} with n = {first.n} "
                f"and {other.name} with n = {other.n}"
            )
    if not all(each.influence for each in estimates):
        raise ValueError("estimates must have influences, got one without")
    values = [each.value for each in estimates]
    moves = _moves(estimates)
    law = _law(estimates, len(moves) < 2 or not len(moves[1]))
    value, error = sum(values) / count, first_order_error(moves)
    spread = f"values from {min(values):.4g} to {max(values):.4g}"
    return Estimate(
        value,
        error if law is None else law.std_error(value),
        (count * first.n[0], *first.n[1:]),
        f"{first.name}, mean of {count} samples",
        "; ".join(filter(None, [spread, first.note])),
        moves,
        law,
    )


def _moves(estimates: Sequence[Estimate]) -> tuple[Tensor, ...]:
    """The influences of all samples one after another, and the mean ones of the reference.

    An estimate whose error is not that of its influences has them scaled to it.
    """
    scales = []
    for each in estimates:
        plain = first_order_error(each.influence)
        scales.append(each.std_error / plain if plain > 0 and each.law is None else 1.0)
    own, *shared = zip(
        *(
            [scale * move for move in each.influence]
            for scale, each in zip(scales, estimates, strict=True)
        ),
        strict=True,
    )
    return torch.cat(own), *(torch.stack(rows).mean(0) for rows in shared)


def _law(estimates: Sequence[Estimate], known: bool) -> SquareLaw | None:
    """The law of the mean; `known` says that the reference has no noise."""
    laws, count = [each.law for each in estimates], len(estimates)
    if any(law is None for law in laws):
        return None
    n, *rest = estimates[0].n
    share = 1.0 if known else (1 / n) / (1 / n + 1 / rest[0])
    null, slope, zero = (
        sum(getattr(law, name) for law in laws) / count for name in ("null", "slope", "zero")
    )
    left = (share**2 + 2 * share * (1 - share)) / count + (1 - share) ** 2
    return replace(laws[0], zero=zero, null=left * null, slope=(share / count + 1 - share) * slope)
