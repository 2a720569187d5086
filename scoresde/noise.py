"""Sources of random numbers. The global generators are never used.

Every draw has a *purpose*, so that a change of one part of a computation does not change the draws
of another: `prior` for x_T, `increment` for Brownian increments of a solver, `probe` for the probes
of a trace estimator, `uniform` for dequantization, `times` for random times, and `fresh` for
all else that is no increment (correctors, churn).

The k-th draw of a purpose for a sample is a function of seed, sample index, purpose and k. It does
not depend on the other draws or on their sizes. `_philox` defines the numbers.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._philox import normals, uniforms
from ._tensor import check_integer

__all__ = ["NOISE_VERSION", "BatchNoise", "BrownianNoise", "Noise", "SampleNoise", "check_seed"]

NOISE_VERSION = 2
"""Number of the definition of all draws, of sampling and of training.

1: ziggurat normals of one stream per sample, uniforms made of normals.
2: every draw has an address, Box–Muller normals, uniforms of their own (`_philox`).
"""

_UNIFORM = ("uniform", "times")
_CPU = torch.device("cpu")

# Most blocks of four numbers that a source computes ahead of time.
_AHEAD = 16384


class Noise(ABC):
    """A source of random draws for one batch of samples.

    Draws are made in float64 and then cast. So a float32 run on any device has the rounded noise of
    the float64 run. Every call gives new numbers; to repeat them, make a new source from the seed.
    """

    @abstractmethod
    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """The next draw of a purpose: U[0, 1) for `uniform` and `times`, else N(0, 1).

        Args:
            shape: (B, *D).
            purpose: One of `prior`, `increment`, `fresh`, `probe`, `uniform`, `times`.
            dtype: Wanted dtype, float64 for uniform draws. Normal draws are cast to it if they
                have another.
            device: Wanted device.
        """

    def prior(self, shape: Sequence[int]) -> Tensor:
        """N(0, I) of `shape` (B, *D), float64 on the CPU, from which x_T is scaled."""
        return self._draw(shape, "prior", torch.float64, _CPU)

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s) for a step from t to s < t: N(0, I) like `x`."""
        return self._draw(x.shape, "increment", x.dtype, x.device).to(x)

    def fresh(self, x: Tensor) -> Tensor:
        """N(0, I) like `x` that is no Brownian increment."""
        return self._draw(x.shape, "fresh", x.dtype, x.device).to(x)

    def probe(self, x: Tensor) -> Tensor:
        """N(0, I) like `x` for a trace estimator, independent of the dequantization of x.

        If both had one purpose, then with one seed a probe would be a function of the point x, and
        the mean of the estimate would not be the trace.
        """
        return self._draw(x.shape, "probe", x.dtype, x.device).to(x)

    def uniform(self, x: Tensor) -> Tensor:
        """U[0, 1) of the shape of `x`, on its device, float64: for dequantization and choices."""
        return self._draw(x.shape, "uniform", torch.float64, x.device)

    def times(self, x: Tensor) -> Tensor:
        """U[0, 1) for each sample of `x`, shape (B,), on its device, float64.

        An estimator makes its random times from it. It is independent of all other purposes, and so
        of the dequantization of x.
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
        self.indices = _check_indices(indices)
        self._index = np.array(self.indices, dtype=np.uint64)
        self._asked: dict[str, int] = {}
        self._ahead: dict[tuple, dict[int, Tensor]] = {}

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        _check_rows(self.indices, shape)
        n = math.prod(shape[1:])
        k = self._asked.get(purpose, 0)
        self._asked[purpose] = k + 1
        kind = purpose, n, dtype, device
        draw = self._ahead.get(kind, {}).pop(k, None)
        if draw is None:
            # As many as were drawn before, so that at most half of them are never used.
            blocks = max(1, len(self.indices)) * max(1, -(-n // 4))
            numbers = np.arange(k, k + max(1, min(k, _AHEAD // blocks)), dtype=np.uint64)
            draw, *others = self._make(numbers, *kind)
            self._ahead[kind] = dict(enumerate(others, k + 1))
        return draw.reshape(tuple(shape))

    def _make(
        self, numbers: np.ndarray, purpose: str, n: int, dtype: torch.dtype, device: torch.device
    ) -> Sequence[Tensor]:
        """The draws of these numbers, each of shape (B, n)."""
        address = {"draw": numbers[:, None], "device": device}
        if purpose in _UNIFORM:
            draws = uniforms(self.seed, self._index, purpose, n, **address)
        else:
            draws = normals(self.seed, self._index, purpose, n, **address, dtype=dtype)
        # Each draw has its own memory, so that keeping one does not keep them all.
        return [draw.clone() for draw in draws] if len(draws) > 1 else draws


class BatchNoise(Noise):
    """The draws of one sample split over a batch: faster for samples of a few numbers.

    For 1,000 samples of one number a draw takes about a tenth of the time of `SampleNoise`. A
    sample's draws depend on its place in the batch and on the size of the batch.

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


class BrownianNoise(Noise):
    """One Brownian path W on [0, 1] per sample, the same for every grid and every solver.

    `increment(x, t, s)` is (W_t − W_s)/√(t − s), a function of t and s. Calls in any order, between
    any times and by any sampler give increments of the same path. All other draws are those of
    `SampleNoise` with the same seed, so that x_T is the same as well.

    W is computed by midpoint displacement on a binary tree of intervals of [0, 1],

        W_{(a + b)/2} = (W_a + W_b)/2 + √(b − a)/2 z,   z ~ N(0, I) of the interval's own address

    and is linear on the 2^depth cells at the bottom. For two times in different cells the law is exact except for the variance, which is between t − s − 2^−depth/2 and t − s.
    At depth 40 the relative error of the variance of a step of 1e-6 is 5e-7.

    A call draws the normals of at most `depth` nodes, without those of the call before: about
    depth − log₂ N in each of N steps. On a grid of 100 steps an increment takes about 40 times as
    long as with `SampleNoise`, for 64 samples of 2 numbers and of 784 (`benchmarks/noise.py`). The
    source keeps `depth` states in memory, and twice as many during a call.

    Args:
        seed: Integer in [0, 2^64).
        indices: Index of each sample of the batch, shape (B,), which with the seed gives the path.
            None: the path of one sample is split over the batch as in `BatchNoise`. This is faster
            for many small samples, but a sample's path depends on the batch size.
        depth: Levels of the tree, 1 to 52. Paths of two depths agree at multiples of the longer cell.

    Raises:
        TypeError: If the seed or the depth is not an integer.
        ValueError: If one of them is out of range; `increment` raises it unless
            0 ≤ s < t ≤ 1, and if the shape of x changes.
    """

    def __init__(self, seed: int, indices: Sequence[int] | None = None, depth: int = 40) -> None:
        self.seed = check_seed(seed)
        # In a deeper tree the ends of the cells would be no float64 numbers.
        self.depth = check_integer("depth", depth, minimum=1, maximum=52)
        self.indices = None if indices is None else _check_indices(indices)
        self._others = BatchNoise(seed) if indices is None else SampleNoise(seed, self.indices)
        self._path: _BrownianTree | None = None
        self._shape: tuple[int, ...] = ()

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s) for 0 ≤ s < t ≤ 1, like `x`."""
        if not 0 <= s < t <= 1:
            raise ValueError(f"an increment needs 0 ≤ s < t ≤ 1, got t={t!r} and s={s!r}")
        path = self._of(x)
        return ((path.at(t) - path.at(s)) / math.sqrt(t - s)).reshape(x.shape).to(x)

    def _of(self, x: Tensor) -> _BrownianTree:
        """The paths for a batch of the shape of x, made at the first call."""
        shape = tuple(x.shape)
        if self._path is None:
            if self.indices is not None:
                _check_rows(self.indices, shape)
            rows = [0] if self.indices is None else self.indices
            width = math.prod(shape) if self.indices is None else math.prod(shape[1:])
            self._path = _BrownianTree(self.seed, rows, width, self.depth, x.device)
            self._shape = shape
        if shape != self._shape:
            raise ValueError(f"this Brownian path has shape {self._shape}, got x of shape {shape}")
        return self._path

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        return self._others._draw(shape, purpose, dtype, device)


class _BrownianTree:
    """W at any time in [0, 1], one row per index, each of `width` independent numbers.

    Node 2^l + i of the tree is the interval [i, i + 1]/2^l; address 0 is W_1 − W_0.
    """

    def __init__(
        self, seed: int, indices: Sequence[int], width: int, depth: int, device: torch.device
    ) -> None:
        self._seed, self._width, self._device = seed, width, device
        self._index = np.array(indices, dtype=np.uint64)
        (self._end,) = self._normals([0])
        self._start = torch.zeros_like(self._end)
        # For each level the node visited last, and W in its middle. A run down a grid visits the
        # same nodes of the upper levels many times.
        self._visited: list[tuple[int, Tensor]] = [(0, self._end)] * depth

    def at(self, t: float) -> Tensor:
        """W_t, shape (rows, width), float64; not to be changed."""
        if t == 1:
            return self._end
        nodes = self._nodes(t)
        new = [level for level, node in enumerate(nodes) if self._visited[level][0] != node]
        draws = dict(zip(new, self._normals([nodes[level] for level in new]), strict=True))
        low, high = self._start, self._end
        for level, node in enumerate(nodes):
            if level in draws:
                z = draws[level] * (0.5 * 2 ** (-0.5 * level))
                self._visited[level] = node, z.add_(0.5 * (low + high))
            middle = self._visited[level][1]
            low, high = (middle, high) if int(t * 2 ** (level + 1)) % 2 else (low, middle)
        fraction = t * 2 ** len(nodes) % 1
        return low + fraction * (high - low)

    def _nodes(self, t: float) -> list[int]:
        """The nodes that contain t in their interior, one for each level, from the root down."""
        levels = (level for level in range(len(self._visited)) if t * 2**level % 1)
        return [2**level + int(t * 2**level) for level in levels]

    def _normals(self, addresses: list[int]) -> Tensor:
        """The normals of nodes, shape (nodes, rows, width)."""
        address = np.array(addresses, dtype=np.uint64)[:, None]
        return normals(
            self._seed, self._index, "path", self._width, address=address, device=self._device
        )


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


def _check_indices(indices: Sequence[int]) -> list[int]:
    return [_check_word("each of indices", index) for index in indices]


def _check_rows(indices: Sequence[int], shape: Sequence[int]) -> None:
    if len(indices) != shape[0]:
        raise ValueError(f"this noise serves {len(indices)} samples, got a batch of {shape[0]}")
