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

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["BatchNoise", "Noise", "SampleNoise", "check_seed", "uniform"]

PURPOSES = {"prior": 0, "increment": 1, "fresh": 2, "probe": 3}


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
        if len(self.indices) != shape[0]:
            raise ValueError(
                f"this noise serves {len(self.indices)} samples, got a batch of {shape[0]}"
            )
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


def _stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, index], dtype=np.uint64),
            counter=np.array([0, 0, 0, PURPOSES[purpose]], dtype=np.uint64),
        )
    )
