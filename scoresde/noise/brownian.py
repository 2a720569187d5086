"""BrownianNoise: increments of one Brownian path per sample, for any grid and any solver."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .._philox import normals, words
from .._tensor import check_integer
from .base import BatchNoise, Noise, SampleNoise, check_indices, check_rows, check_seed

__all__ = ["BrownianNoise"]


class BrownianNoise(Noise):
    """One Brownian path W on [0, 1] per sample, the same for every grid and every solver.

    `increment(x, t, s)` is (W_t − W_s)/√(t − s), a function of t and s. Calls in any order, between
    any times and by any sampler give increments of the same path. All other draws are those of
    `SampleNoise` with the same seed, so that x_T is the same as well.

    W is computed by midpoint displacement on a binary tree of intervals of [0, 1],

        W_{(a + b)/2} = (W_a + W_b)/2 + √(b − a)/2 z,   z ~ N(0, I) of the interval's own address

    and is linear on the 2^depth cells at the bottom. For two times in different cells the law is
    exact except for the variance, which is between t − s − 2^−depth/2 and t − s. At depth 40 the
    relative error of the variance of a step of 1e-6 is 5e-7.

    A call draws the normals of at most `depth` nodes and reuses those of the call before; for N
    steps it draws about depth − log₂ N per step. On a grid of 100 steps an increment takes about 40
    times as long as with `SampleNoise`, for 64 samples of 2 numbers and of 784
    (`benchmarks/noise.py`). The source keeps `depth` states in memory, twice as many during a call.

    Args:
        seed: Integer in [0, 2^64).
        indices: Index of each sample of the batch, shape (B,). Seed and index determine the path.
            None: the path of one sample is split over the batch as in `BatchNoise`. This is faster
            for many small samples, but a sample's path depends on the batch size.
        depth: Levels of the tree, 1 to 52. Paths of two depths agree at the ends of the
            longer cells.

    Raises:
        TypeError: If the seed or the depth is not an integer.
        ValueError: If one of them is out of range; `increment` raises it unless
            0 ≤ s < t ≤ 1, and if the shape of x changes.
    """

    def __init__(self, seed: int, indices: Sequence[int] | None = None, depth: int = 40) -> None:
        self.seed = check_seed(seed)
        # In a deeper tree the ends of the cells would not be float64 numbers.
        self.depth = check_integer("depth", depth, minimum=1, maximum=52)
        self.indices = None if indices is None else check_indices(indices)
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
                check_rows(self.indices, shape)
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
        self._index = words(indices, device)
        self._end = self._normals([0])[0]
        self._start = torch.zeros_like(self._end)
        # The standard deviation of W in the middle of a node, given its ends.
        scale = [0.5 * 2 ** (-0.5 * level) for level in range(depth)]
        scale = torch.tensor(scale, dtype=torch.float64)[:, None, None]
        self._scale = scale.to(device, non_blocking=True)
        # For each level, the node visited last, and W in its middle. A run along a grid visits the
        # same nodes of the upper levels many times.
        self._visited: list[tuple[int, Tensor]] = [(0, self._end)] * depth

    def at(self, t: float) -> Tensor:
        """W_t, shape (rows, width), float64; not to be changed."""
        if t == 1:
            return self._end
        nodes = self._nodes(t)
        new = [level for level, node in enumerate(nodes) if self._visited[level][0] != node]
        draws = dict(zip(new, self._displacements(nodes, new), strict=True))
        low, high = self._start, self._end
        for level, node in enumerate(nodes):
            if level in draws:
                middle = (low + high).mul_(0.5).add_(draws[level])
                self._visited[level] = node, middle
            middle = self._visited[level][1]
            low, high = (middle, high) if int(t * 2 ** (level + 1)) % 2 else (low, middle)
        fraction = t * 2 ** len(nodes) % 1
        return low + fraction * (high - low)

    def _nodes(self, t: float) -> list[int]:
        """The nodes that contain t in their interior, one for each level, from the root down."""
        levels = (level for level in range(len(self._visited)) if t * 2**level % 1)
        return [2**level + int(t * 2**level) for level in levels]

    def _displacements(self, nodes: list[int], levels: list[int]) -> Sequence[Tensor]:
        """The random part of W in the middle of the nodes of some levels; one call for all."""
        if not levels:
            return []
        scale = torch.stack([self._scale[level] for level in levels])
        return self._normals([nodes[level] for level in levels]) * scale

    def _normals(self, addresses: list[int]) -> Tensor:
        """The normals of nodes, shape (nodes, rows, width)."""
        address = words(addresses, self._device)[:, None]
        return normals(
            self._seed, self._index, "path", self._width, address=address, device=self._device
        )
