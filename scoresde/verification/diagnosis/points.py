"""The data, noise and noise levels on which the doctor compares readings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._condition import Condition, take_rows
from ..._philox import normals
from ..._tensor import equally_spaced

__all__ = ["HELD", "Points"]

HELD = 2**24  # numbers that are kept for the next reading, roughly


@dataclass(frozen=True)
class Points:
    """Data at the scale that the model claims, with noise that is a function of the seed.

    Attributes:
        x: Shape (n, *D).
        y: The conditions, n rows, or None.
        kappas: Noise levels κ of z = x + κ ε, increasing.
        low: Lower end of the range of the data.
        high: Upper end.
        seed: Seed of the noise.
        batch: Number of data evaluated at a time.
    """

    x: Tensor
    y: Condition | None
    kappas: tuple[float, ...]
    low: float
    high: float
    seed: int = 0
    batch: int = 64
    _noise: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    @property
    def image(self) -> bool:
        """Whether the data are images of one or three channels."""
        return self.x.ndim == 4 and self.x.shape[1] in (1, 3)

    @property
    def mean(self) -> float:
        """Mean over data and dimensions."""
        return float(self.x.double().mean())

    @property
    def std(self) -> float:
        """Standard deviation over data and dimensions."""
        return float(self.x.double().std())

    @property
    def variance(self) -> float:
        """Mean over the dimensions of the variances over the data."""
        return float(self.x.double().var(0).mean())

    def noise(self, rows: slice, draw: int) -> Tensor:
        """ε of some data, like these data; the draw is the number of a level, or a further one."""
        key, x = (rows.start, rows.stop, draw), self.x[rows]
        if key not in self._noise:
            if len(self._noise) * x.numel() > HELD:
                self._noise.clear()
            names = range(rows.start, rows.start + len(x))
            size = math.prod(x.shape[1:])
            found = normals(self.seed, names, "fresh", size, draw=draw, dtype=torch.float32)
            self._noise[key] = found.reshape(x.shape).to(x)
        return self._noise[key]

    def condition(self, rows: slice) -> Condition | None:
        """The conditions of some data."""
        return None if self.y is None else take_rows(self.y, rows)

    def baseline(self) -> Tensor:
        """The error of the best linear denoiser of one variance, v/(v + κ²) at each level.

        v is `variance`, and the mean of each dimension is known.
        """
        v = self.variance
        kappas = torch.tensor(self.kappas, dtype=torch.float64)
        return v / (v + kappas.square())


def spaced(low: float, high: float, n: int) -> list[float]:
    """n noise levels with equal ratios from low to high."""
    return equally_spaced(math.log(low), math.log(high), n).exp().tolist()
