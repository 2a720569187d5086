"""The base class of sources, `Noise`, with `SampleNoise` and `BatchNoise`."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .._philox import Words, normals, uniforms, words

__all__ = [
    "NOISE_VERSION",
    "BatchNoise",
    "Noise",
    "SampleNoise",
    "check_indices",
    "check_rows",
    "check_seed",
]

NOISE_VERSION = 2
"""Version of the definition of all random draws, in sampling and in training.

1: ziggurat normals of one stream per sample, uniforms made of normals.
2: every draw has an address, Box–Muller normals, separate uniforms (`_philox`).
"""

_UNIFORM = ("uniform", "times")
_CPU = torch.device("cpu")

# Largest number of values that a source makes at once, draws ahead of time included, unless one
# draw has more. On a GPU so many take about as long as the calls that start a draw.
_AHEAD = {"cpu": 2**16, "cuda": 2**20}


class Noise(ABC):
    """A source of random draws for one batch of samples.

    Draws are made in float64 and then cast. So a float32 run on any device has the noise of the
    float64 run, rounded. Every call gives new numbers; to repeat them, make a new source from the
    seed.
    """

    @abstractmethod
    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """The next draw of a purpose: U[0, 1) for `uniform` and `times`, else N(0, 1).

        Args:
            shape: (B, *D).
            purpose: One of `prior`, `increment`, `fresh`, `probe`, `uniform`, `times`.
            dtype: Wanted dtype, float64 for uniform draws. Normal draws are cast to it.
            device: Wanted device.
        """

    def prior(self, shape: Sequence[int], device: torch.device = _CPU) -> Tensor:
        """N(0, I) of `shape` (B, *D) on a device, float64; scaled by the caller it is x_T."""
        return self._draw(shape, "prior", torch.float64, device)

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s) for a step from t to s < t: N(0, I) like `x`."""
        return self._draw(x.shape, "increment", x.dtype, x.device).to(x)

    def fresh(self, x: Tensor) -> Tensor:
        """N(0, I) like `x` for draws that are not Brownian increments."""
        return self._draw(x.shape, "fresh", x.dtype, x.device).to(x)

    def probe(self, x: Tensor) -> Tensor:
        """N(0, I) like `x` for a trace estimator, independent of the dequantization of x.

        If both shared a purpose, a probe would be a function of the point x for the same seed, and
        the mean of the estimate would not be the trace.
        """
        return self._draw(x.shape, "probe", x.dtype, x.device).to(x)

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1) of the shape of `x`, on its device, float64: for dequantization and choices."""
        return self._draw(x.shape, "uniform", torch.float64, x.device)

    def times(self, x: Tensor) -> Tensor:
        """U[0, 1) for each sample of `x`, shape (B,), on its device, float64.

        Estimators make random times from these numbers. They are independent of all other purposes,
        in particular of the dequantization of x.
        """
        return self._draw(x.shape[:1], "times", torch.float64, x.device)


class SampleNoise(Noise):
    """Draws for each sample by its index: sample i is the same alone and in any batch.

    Several draws of few numbers are computed at once, ahead of time, which is faster.

    Args:
        seed: Integer in [0, 2^64).
        indices: Index of each sample of the batch, integers in [0, 2^64), shape (B,).

    Raises:
        TypeError: If the seed or an index is not an integer.
        ValueError: If one of them is out of range.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self.seed = check_seed(seed)
        self.indices = check_indices(indices)
        self._index: dict[torch.device, Words] = {}
        self._asked: dict[str, int] = {}
        self._ahead: dict[tuple, dict[int, Tensor]] = {}

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        check_rows(self.indices, shape)
        n = math.prod(shape[1:])
        k = self._asked.get(purpose, 0)
        self._asked[purpose] = k + 1
        kind = purpose, n, dtype, device
        draw = self._ahead.get(kind, {}).pop(k, None)
        if draw is None:
            # As many as were drawn so far, so that at most half of all are never used.
            size = max(1, len(self.indices)) * max(4, n)
            ahead = _AHEAD.get(device.type, _AHEAD["cpu"]) // size
            draw, *others = self._make(range(k, k + max(1, min(k, ahead))), *kind)
            self._ahead[kind] = dict(enumerate(others, k + 1))
        return draw.reshape(tuple(shape))

    def _make(
        self, numbers: range, purpose: str, n: int, dtype: torch.dtype, device: torch.device
    ) -> Sequence[Tensor]:
        """The draws of these numbers, each of shape (B, n)."""
        if device not in self._index:
            self._index[device] = words(self.indices, device)
        address = {"draw": words(numbers, device)[:, None], "device": device}
        if purpose in _UNIFORM:
            draws = uniforms(self.seed, self._index[device], purpose, n, **address)
        else:
            draws = normals(self.seed, self._index[device], purpose, n, **address, dtype=dtype)
        # Each draw has its own memory, so that keeping one does not keep them all.
        return [draw.clone() for draw in draws] if len(draws) > 1 else draws


class BatchNoise(Noise):
    """The draws of one sample split over a batch: faster for samples of a few numbers.

    For 1,000 samples of one number a draw takes about a tenth of the time of `SampleNoise`. The
    draws of a sample depend on its position in the batch and on the size of the batch.

    Args:
        seed: Integer in [0, 2^64).

    Raises:
        TypeError: If the seed is not an integer.
        ValueError: If it is out of range.
    """

    def __init__(self, seed: int) -> None:
        self._whole = SampleNoise(seed, [0])

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        draw = self._whole._draw((1, math.prod(shape)), purpose, dtype, device)
        return draw.reshape(tuple(shape))


def check_seed(seed: int) -> int:
    """Return `seed` as an int, or raise.

    Args:
        seed: An integer of Python, NumPy or torch.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is outside [0, 2^64).
    """
    return _check_word("seed", seed)


def _check_word(name: str, value: int) -> int:
    """Return `value` as an int if it is an integer in [0, 2^64)."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be at least 0 and less than 2**64, got {number}")
    return number


def check_indices(indices: Sequence[int]) -> list[int]:
    """Return sample indices as Python integers, or raise unless each is in [0, 2^64)."""
    return [_check_word("each of indices", index) for index in indices]


def check_rows(indices: Sequence[int], shape: Sequence[int]) -> None:
    """Raise ValueError unless the shape (B, *D) has as many samples as there are indices."""
    if len(indices) != shape[0]:
        raise ValueError(f"this noise serves {len(indices)} samples, got a batch of {shape[0]}")
