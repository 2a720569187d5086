"""The errors of readings on the same data and noise, and the comparison of two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..._text import reason_of
from .points import HELD, Points
from .reading import Reading, Subject

__all__ = ["Comparison", "Measured", "compare"]

CAP = 10.0  # largest error |ε̂ − ε|²/D that counts; predicting ε̂ = 0 has the error 1
LEAST_SHARE = 0.5  # of the noise levels at which two readings must both exist
IDENTICAL = 1e-4  # relative difference of errors below which two readings are the same function


@dataclass(frozen=True)
class Comparison:
    """How much smaller the error of a reading is than that of another one, on paired data.

    Attributes:
        gain: Mean over data and noise levels of (error of the base − error of the other), in units
            of the smaller of both mean errors at the level. Above 0 the other one is better.
        std_error: Standard error of the gain over the data.
        factor: Geometric mean over the levels of (mean error of the base/of the other).
        n: Number of data.
        same: Whether both are the same function, up to rounding.
        ratio: Whether the gain is divided by the gain that is expected if the other one is right:
            it is then 1 if the other one is right and −1 if the base is.
    """

    gain: float
    std_error: float
    factor: float
    n: int
    same: bool = False
    ratio: bool = False

    @property
    def z(self) -> float:
        """The gain in standard errors; 0 for the same function."""
        if self.same:
            return 0.0
        return self.gain / self.std_error if self.std_error > 0 else math.inf * self.gain

    def needed(self, limit: float) -> int | None:
        """Number of data at which a difference of this size would reach the limit.

        For a `ratio` the size is 1, which is known. None if no number of data would do.
        """
        z = 1 / max(self.std_error, 1e-30) if self.ratio else self.z
        return None if self.same or z == 0 else math.ceil(self.n * max(1.0, (limit / z) ** 2))


def compare(base: Tensor, other: Tensor, of: int = 1) -> Comparison | None:
    """Compare two readings by their errors.

    Args:
        base: Errors of n data at L noise levels, shape (n, L), NaN where a level does not exist.
        other: Those of the other reading, of the same data.
        of: Only each `of`-th level was measured.

    Returns:
        The comparison; None if both exist together at too few levels.
    """
    n = min(len(base), len(other))
    base, other = base[:n], other[:n]
    valid = ~(base.isnan().any(0) | other.isnan().any(0))
    if valid.sum() < max(2, LEAST_SHARE * base.shape[1] / of):
        return None
    base, other = base[:, valid].clamp(max=CAP), other[:, valid].clamp(max=CAP)
    means = base.mean(0), other.mean(0)
    gains = ((base - other) / torch.minimum(*means).clamp(min=1e-12)).mean(1)
    factor = float((means[0] / means[1]).log().mean().exp())
    same = bool(((base - other).abs() <= IDENTICAL * base).all())
    return Comparison(float(gains.mean()), float(gains.std() / math.sqrt(n)), factor, n, same)


@dataclass
class Measured:
    """Errors of readings, each computed once.

    Attributes:
        subject: The model.
        points: Data, noise and noise levels.
        errors: Reading and level -> errors of the first data, shape (m,), float64 on the CPU; NaN
            where the reading has no such noise level.
        failures: Reading -> why it cannot be evaluated.
        calls: Data, draw, noise level and call of the network -> its output. Many readings differ
            only in what the output means, and share it.
    """

    subject: Subject
    points: Points
    errors: dict[tuple[Reading, int], Tensor] = field(default_factory=dict)
    failures: dict[Reading, str] = field(default_factory=dict)
    calls: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def of(self, reading: Reading, n: int, every: int = 1) -> Tensor:
        """Errors of the first n data, shape (n, L), float64.

        Args:
            reading: The reading.
            n: Number of data.
            every: Only each `every`-th noise level is measured; the others are NaN.
        """
        columns = []
        for level in range(len(self.points.kappas)):
            known = self.errors.get((reading, level), torch.zeros(0, dtype=torch.float64))
            if (level - 1) % every == 0 and len(known) < n:
                starts = range(len(known), n, self.points.batch)
                rows = [slice(start, min(start + self.points.batch, n)) for start in starts]
                known = torch.cat([known, *(self._at(reading, part, level) for part in rows)])
                self.errors[reading, level] = known
            columns.append(known[:n] if len(known) >= n else torch.full((n,), math.nan))
        return torch.stack(columns, dim=1)

    def _at(self, reading: Reading, rows: slice, level: int) -> Tensor:
        """|ε̂ − ε|²/D of some data at one level."""
        try:
            error = self.predicted(reading, rows, level) - self.points.noise(rows, level)
        except Exception as failure:  # code of the user, or a label that the network refuses
            self.failures[reading] = reason_of(failure)
            return torch.full((rows.stop - rows.start,), math.nan, dtype=torch.float64)
        return error.double().square().flatten(1).mean(1).nan_to_num(CAP, CAP).cpu()

    def predicted(
        self, reading: Reading, rows: slice, draw: int, kappa: float | None = None
    ) -> Tensor:
        """ε̂ = (z − D(z; κ))/κ of some data, like these data.

        Args:
            reading: The reading.
            rows: Which data.
            draw: Number of the draw of the noise; for κ = None the number of the noise level.
            kappa: The noise level.
        """
        points = self.points
        kappa = points.kappas[draw] if kappa is None else kappa
        z = points.x[rows] + kappa * points.noise(rows, draw)
        node = self.subject.node(reading, kappa)
        call = (rows.start, rows.stop, draw, kappa, *self.subject.call(reading, node))
        if call not in self.calls:
            if len(self.calls) * z.numel() > HELD:
                self.calls.clear()
            y = points.condition(rows)
            self.calls[call] = self.subject.native(reading, node, z, y)
        return (z - self.subject.denoised(reading, node, z, self.calls[call])) / kappa
