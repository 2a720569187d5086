"""The order in which data are seen, and which of them are held out: functions of the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from .._philox import generator, integers
from .settings import TrainSettings

__all__ = ["Order", "Split"]

# Up to this number of data an order is NumPy's permutation, which needs 8 bytes for each.
_LISTED = 1 << 24

_ROUNDS = 8  # even, so that the pair ends as it began: L below a, R below b


@dataclass(frozen=True)
class Order:
    """A random order of the numbers 0 … n − 1; `order[places]` are the numbers at these places.

    It is a function of (seed, index, purpose). Up to 2^24 numbers it is NumPy's permutation. Larger
    orders are not held in memory: each number is computed from its place by the generalized Feistel
    cipher with cycle walking of Black and Rogaway 2002, "Ciphers with arbitrary finite domains"
    (IACR ePrint 2001/012). The keyed function of its round j at R is integer 0 of (seed, index,
    purpose, draw R, address j).

    Args:
        n: Number of numbers, at least 1.
        seed: Integer in [0, 2^64).
        index: Number of the order, for instance of the epoch.
        purpose: "shuffle" or "held out".
    """

    n: int
    seed: int
    index: int
    purpose: str

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at some places, int64; places in 0 … n − 1, any shape (m,)."""
        if self.n <= _LISTED:
            return _listed(self.n, self.seed, self.index, self.purpose)[places]
        numbers = self._enciphered(np.asarray(places, dtype=np.uint64))
        while (outside := numbers >= self.n).any():
            numbers[outside] = self._enciphered(numbers[outside])
        return numbers.astype(np.int64)

    def _enciphered(self, m: np.ndarray) -> np.ndarray:
        """A permutation of 0 … a b − 1, where a = ⌈√n⌉ and b = ⌈n/a⌉; m = a R + L."""
        a = math.isqrt(self.n - 1) + 1
        sizes = np.uint64(a), np.uint64(-(-self.n // a))
        left, right = m % sizes[0], m // sizes[0]
        for j in range(_ROUNDS):
            size = sizes[j % 2]
            key = integers(self.seed, self.index, self.purpose, 1, draw=right, address=j + 1)
            left, right = right, (left + key[:, 0] % size) % size
        return sizes[0] * right + left


@lru_cache(maxsize=3)  # the split, and two epochs when a batch runs across their border
def _listed(n: int, seed: int, index: int, purpose: str) -> np.ndarray:
    numbers = generator(seed, index, purpose).permutation(n)
    numbers.flags.writeable = False
    return numbers


@dataclass(frozen=True)
class Split:
    """Which of n data are held out, and which are trained on.

    Args:
        n: Number of data.
        held: Number of data that are held out.
        seed: The seed that chooses them.
    """

    n: int
    held: int
    seed: int

    @classmethod
    def of(cls, n: int, settings: TrainSettings) -> Split:
        """The split of n data that the settings ask for.

        Raises:
            ValueError: If fewer than 2 data are held out, of which no standard error could be
                computed, or fewer than a batch are left.
        """
        share, batch = settings.share, settings.batch
        held = round(share * n)
        if share and held < 2:
            raise ValueError(
                f"validation must hold out at least 2 of the {n} data, got {share}, which is {held}"
            )
        if n - held < batch:
            left = f", {held} of which are held out" if held else ""
            raise ValueError(f"batch must be at most the {n - held} data{left}, got {batch}")
        return cls(n, held, settings.seed)

    @property
    def order(self) -> Order:
        """All data in random order; the first `held` of them are held out."""
        return Order(self.n, self.seed, 0, "held out")

    @property
    def trained(self) -> int:
        """Number of data that are trained on."""
        return self.n - self.held

    def held_rows(self, most: int | None = None) -> Tensor:
        """Rows of the data that are held out, in random order, int64; at most `most` of them."""
        count = self.held if most is None else min(self.held, most)
        return torch.from_numpy(self.order[np.arange(count)].copy())

    def some_rows(self, count: int) -> Tensor:
        """Rows of `count` of the data that are trained on, at random; repeated if there are fewer.

        Returns:
            Shape (count,), int64.
        """
        return torch.from_numpy(self.order[self.held + np.arange(count) % self.trained].copy())

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Rows of the data that are trained on, in a fixed order.

        Up to 2^24 data the order is ascending.

        Args:
            places: Places in this order, int64, in 0 … `trained` − 1.
        """
        if not self.held:
            return places
        if self.n > _LISTED:
            return self.order[self.held + places]
        return self._ascending[places]

    @cached_property
    def _ascending(self) -> np.ndarray:
        return np.sort(self.order[np.arange(self.held, self.n)])
