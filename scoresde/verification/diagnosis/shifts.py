"""Labels that are shifted by one: a small difference, whose size is known in advance.

A label that is wrong by one of 1,000 changes the prediction little, most of all near the data. Let
A be the present reading and B the shifted one, with predictions ε̂_A and ε̂_B of the same z, and

    d = |ε̂_A − ε|² − |ε̂_B − ε|²,   δ = |ε̂_A − ε̂_B|²

If ε̂_B = E[ε | z], its residual ε − ε̂_B is orthogonal to every function of z, so that E d = E δ.
If ε̂_A is the optimum, E d = −E δ. So the ratio

    r = Σ_l w_l d_l / Σ_l w_l δ_l,   w_l = δ_l / var(d_l)

over the noise levels l is 1 for the shifted label and −1 for the present one. These weights give
the smallest error of r. The error shows whether the data can tell the two apart at all. A network
that is far from the optimum can give any r. So a shift is named only if r is near 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._tensor import float64
from .alternatives import levels_of_label
from .measure import CAP, Comparison, Measured
from .reading import Reading

__all__ = ["compare_shift"]

PLACES = (0, 1, 2, 4, 8, 16, 32, 64, 128)  # labels at which it is measured
FIRST_DRAW = 1000  # of the noise; the draws below are those of the noise levels
DRAWS = 8  # of the noise for each datum, at most
NUMBERS = 2**19  # of the data and draws in one comparison and level, at most, roughly


def compare_shift(
    measured: Measured, base: Reading, other: Reading, limit: float
) -> Comparison | None:
    """Compare a reading with that of a label shifted by one.

    Noise is drawn again for each datum until the two are told apart, at most `DRAWS` times.

    Args:
        measured: Model, data and noise.
        base: The present reading.
        other: The shifted one.
        limit: Standard errors beyond which there is no doubt.

    Returns:
        The comparison, whose gain is r; None if a reading cannot be evaluated.
    """
    kappas = _levels(measured, base, other)
    if len(kappas) < 2:
        return None
    n, dims = len(measured.points.x), measured.points.x[0].numel()
    draws = max(1, min(DRAWS, NUMBERS // (n * dims)))
    gains, sizes, found = [], [], None
    for draw in range(draws):
        try:
            d, delta = _once(measured, base, other, kappas, draw)
        except Exception:  # code of the user, or a label that the network refuses
            return None
        gains.append(d)
        sizes.append(delta)
        # draws of one datum are averaged: the data are independent, the draws are not
        found = _ratio(torch.stack(gains).mean(0), torch.stack(sizes).mean(0))
        if found.same or abs(found.z) > 1.5 * limit:
            break
    return found


def _levels(measured: Measured, base: Reading, other: Reading) -> list[float]:
    """Noise levels of the labels of `PLACES` that both readings have."""
    ends = [measured.subject.kappas(reading) for reading in (base, other)]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    levels, scale = levels_of_label(base), abs(base.data.scale) * base.noise
    times = float64([(1 + i) / levels for i in PLACES if i + 1 < levels])
    kappas = (torch.exp(-base.sde.lam(times)) / scale).tolist()
    return [kappa for kappa in kappas if low <= kappa <= high]


def _once(
    measured: Measured, base: Reading, other: Reading, kappas: list[float], draw: int
) -> tuple[Tensor, Tensor]:
    """d and δ per dimension of one draw of the noise at all levels, each of shape (n, L)."""
    points, parts = measured.points, []
    for start in range(0, len(points.x), points.batch):
        rows = slice(start, start + points.batch)
        columns = []
        for level, kappa in enumerate(kappas):
            number = FIRST_DRAW + draw * len(PLACES) + level
            eps = points.noise(rows, number)
            a, b = (measured.predicted(reading, rows, number, kappa) for reading in (base, other))
            squares = ((v.double().square().flatten(1).mean(1)) for v in (a - eps, b - eps, a - b))
            first, second, size = (v.clamp(max=CAP).cpu() for v in squares)
            columns.append(torch.stack([first - second, size]))
        parts.append(torch.stack(columns, dim=2))
    d, delta = torch.cat(parts, dim=1)
    return d, delta


def _ratio(d: Tensor, delta: Tensor) -> Comparison:
    """r with its standard error."""
    n = len(d)
    size = delta.mean(0)
    if float(size.max()) < 1e-10:
        return Comparison(0.0, 0.0, 1.0, n, same=True, ratio=True)
    weights = size / d.var(0).clamp(min=1e-20)
    expected = float(weights @ size)
    per_datum = d @ weights / expected
    error = float(per_datum.std() / math.sqrt(n))
    return Comparison(float(per_datum.mean()), error, 1.0, n, ratio=True)
