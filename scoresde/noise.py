"""Where randomness comes from: explicit sources, never the global generators.

A source is asked by *purpose*, so that changing one part of a computation leaves the draws of
the others alone: `prior` for x_T, `increment` for Brownian increments of a solver, `probe` for
the probes of a trace estimator, `fresh` for everything else that is not an increment
(correctors, churn, dequantization).

Generator: Philox4x64, keyed by (seed, sample index), its counter by the purpose. Torch's CPU
generator keeps only 32 bits of a seed, so among 50,000 samples seeded one by one a collision
(two identical "random" images) has probability 0.25; a 128-bit key has none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._tensor import check_integer

__all__ = ["BatchNoise", "BrownianNoise", "Noise", "SampleNoise", "check_seed", "uniform"]

PURPOSES = {"prior": 0, "increment": 1, "fresh": 2, "probe": 3}
_PATH = 4  # in the place of a purpose: the nodes of Brownian paths


class Noise(ABC):
    """A source of standard normal draws for one batch of samples.

    Draws are made in float64 on the CPU and then cast and moved, so a float32 run on any device
    sees the rounded noise of the float64 run. A source is consumed by use: for the same noise
    again, make it again from the same seed.
    """

    @abstractmethod
    def _normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        """Standard normal float64 draws of `shape` (B, *D) for one of `PURPOSES`."""

    def prior(self, shape: Sequence[int]) -> Tensor:
        """N(0, I) of `shape` (B, *D), float64 on the CPU: what x_T is scaled from."""
        return self._normal(shape, "prior")

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s) for a step from t to s < t: N(0, I) like `x`."""
        return self._normal(x.shape, "increment").to(x)

    def fresh(self, x: Tensor, t: float, k: int = 0) -> Tensor:
        """N(0, I) like `x` that is no Brownian increment: the k-th draw wanted at time t."""
        return self._normal(x.shape, "fresh").to(x)

    def probe(self, x: Tensor) -> Tensor:
        """N(0, I) like `x` for a trace estimator, independent of the dequantization of x.

        Were both taken from `fresh` with one seed, a probe would be a function of the point it
        probes at, and its mean no longer the trace.
        """
        return self._normal(x.shape, "probe").to(x)


class SampleNoise(Noise):
    """One stream per sample: sample i is the same alone, in any batch, on any machine.

    Args:
        seed: Integer in [0, 2^64).
        indices: Index of each sample of the batch, shape (B,); together with the seed it keys
            the sample's stream.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self.seed = check_seed(seed)
        self.indices = list(indices)
        self._streams: dict[str, list[np.random.Generator]] = {}

    def _normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        _check_rows(self.indices, shape)
        if purpose not in self._streams:
            self._streams[purpose] = [_stream(self.seed, i, purpose) for i in self.indices]
        out = np.empty((len(self.indices), int(np.prod(shape[1:]))))
        for row, stream in zip(out, self._streams[purpose], strict=True):
            stream.standard_normal(out=row)
        return torch.from_numpy(out).reshape(tuple(shape))


class BatchNoise(Noise):
    """One stream for the whole batch: faster, but a sample's draws depend on the batch size.

    Args:
        seed: Integer in [0, 2^64).
    """

    def __init__(self, seed: int) -> None:
        self.seed = check_seed(seed)
        self._streams = {p: _stream(self.seed, 0, p) for p in PURPOSES}

    def _normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        return torch.from_numpy(self._streams[purpose].standard_normal(tuple(shape)))


class BrownianNoise(Noise):
    """One Brownian path W on [0, 1] per sample: every grid and every solver sees the same W.

    `increment(x, t, s)` is (W_t − W_s)/√(t − s), a function of t and s: asked again, in another
    order, between other times or by another sampler, it belongs to the same path. `prior`, `fresh`
    and `probe` are those of `SampleNoise` with the same seed, so x_T is the same as well.

    W is made by midpoint displacement on a binary tree of intervals of [0, 1],

        W_{(a + b)/2} = (W_a + W_b)/2 + √(b − a)/2 z,   z ~ N(0, I) of the interval's own address

    and is linear on the 2^depth cells at the bottom. For two times in different cells the law is
    exact but for the variance, which lies between t − s − 2^−depth/2 and t − s: at depth 40 a
    step of 1e-6 has its variance to 5e-7.

    A query costs at most `depth` draws, less those it shares with the one before: about
    depth − log₂ N for one of N steps. On a grid of 100 steps a step takes 37 times as long as with
    `SampleNoise` for 64 samples of 784 numbers (26 ms against 0.7), 60 times for 64 of 2, and
    memory holds `depth` states.

    Args:
        seed: Integer in [0, 2^64).
        indices: Index of each sample of the batch, shape (B,): it and the seed decide the path.
            None: one stream for the whole batch as in `BatchNoise`, faster for many small
            samples, but a sample's path depends on the batch size.
        depth: Levels of the tree, 1 to 52; another depth is, below its cells, another path.

    Raises:
        TypeError: If the seed or the depth is not an integer.
        ValueError: If one of them is out of range; `increment` raises it unless
            0 ≤ s < t ≤ 1, and if the shape of x changes.
    """

    def __init__(self, seed: int, indices: Sequence[int] | None = None, depth: int = 40) -> None:
        self.seed = check_seed(seed)
        self.depth = check_integer("depth", depth, minimum=1)
        if depth > 52:  # the cells' ends would not be float64 numbers
            raise ValueError(f"depth must be at most 52, got {depth}")
        self.indices = None if indices is None else list(indices)
        self._others = BatchNoise(seed) if indices is None else SampleNoise(seed, self.indices)
        self._path: _Path | None = None
        self._shape: tuple[int, ...] = ()

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s) for 0 ≤ s < t ≤ 1, like `x`."""
        if not 0 <= s < t <= 1:
            raise ValueError(f"an increment needs 0 ≤ s < t ≤ 1, got t={t!r} and s={s!r}")
        path = self._of(tuple(x.shape))
        out = (path.at(t) - path.at(s)) / math.sqrt(t - s)
        return torch.from_numpy(out).reshape(x.shape).to(x)

    def _of(self, shape: tuple[int, ...]) -> _Path:
        """The paths of a batch of this shape, made at the first call."""
        if self._path is None:
            if self.indices is not None:
                _check_rows(self.indices, shape)
            rows = [0] if self.indices is None else self.indices
            width = math.prod(shape) if self.indices is None else math.prod(shape[1:])
            self._path, self._shape = _Path(self.seed, rows, width, self.depth), shape
        if shape != self._shape:
            raise ValueError(f"this Brownian path has shape {self._shape}, got x of shape {shape}")
        return self._path

    def _normal(self, shape: Sequence[int], purpose: str) -> Tensor:
        return self._others._normal(shape, purpose)


class _Path:
    """W at any time in [0, 1], one row per index, each of `width` independent numbers."""

    def __init__(self, seed: int, indices: Sequence[int], width: int, depth: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64))
        self._normals = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._indices, self._width = indices, width
        self._start = np.zeros((len(indices), width))
        self._end = self._draw(0)
        # Of each level the node visited last: a sweep down a grid stays within the upper ones.
        self._visited: list[tuple[int, np.ndarray]] = [(0, self._end)] * depth

    def at(self, t: float) -> np.ndarray:
        """W_t, shape (rows, width); not to be changed."""
        low, high, w_low, w_high, node = 0.0, 1.0, self._start, self._end, 1
        if t == high:
            return w_high
        for level in range(len(self._visited)):
            if t == low:
                return w_low
            middle = 0.5 * (low + high)
            w_middle = self._middle(level, node, w_low, w_high)
            if t < middle:
                high, w_high, node = middle, w_middle, 2 * node
            else:
                low, w_low, node = middle, w_middle, 2 * node + 1
        return w_low + (t - low) / (high - low) * (w_high - w_low)

    def _middle(self, level: int, node: int, w_low: np.ndarray, w_high: np.ndarray) -> np.ndarray:
        """W in the middle of a node, an interval of length 2^−level."""
        visited, w = self._visited[level]
        if visited != node:
            w = self._draw(node)
            w *= 0.5 * 2 ** (-0.5 * level)
            w += 0.5 * (w_low + w_high)
            self._visited[level] = node, w
        return w

    def _draw(self, address: int) -> np.ndarray:
        """The normals of a node, or of W_1 (address 0): of each row a stream of its own."""
        out = np.empty((len(self._indices), self._width))
        counter, key = self._state["state"]["counter"], self._state["state"]["key"]
        counter[:] = 0, address, 0, _PATH
        for row, index in zip(out, self._indices, strict=True):
            key[1] = index
            # four times as fast as a new generator
            self._bits.state = self._state
            self._normals.standard_normal(out=row)
        return out


def uniform(z: Tensor) -> Tensor:
    """U(0, 1) from N(0, 1) draws by the probability transform Φ(z); same shape, float64."""
    return torch.special.ndtr(z.to(torch.float64))


def check_seed(seed: int) -> int:
    """Return `seed`, or raise.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is outside [0, 2^64).
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be at least 0 and less than 2**64, got {seed}")
    return seed


def _check_rows(indices: Sequence[int], shape: Sequence[int]) -> None:
    if len(indices) != shape[0]:
        raise ValueError(f"this noise serves {len(indices)} samples, got a batch of {shape[0]}")


def _stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, index], dtype=np.uint64),
            counter=np.array([0, 0, 0, PURPOSES[purpose]], dtype=np.uint64),
        )
    )
