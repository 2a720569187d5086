"""`PresentNoise`: another source of randomness, with zeros where padded sets have no points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import _CPU, Noise

__all__ = ["PresentNoise"]


class PresentNoise(Noise):
    """The draws of another source, 0 at the padding of sets.

    A sampler that starts from its `prior` and adds its draws so keeps a state that is 0 there. The
    probes of a trace are not changed: a trace takes the rows and columns of the points alone, and
    some rules need all entries of a probe to have the same distribution.

    Args:
        source: The other source.
        present: Which points of each sample (N, F) exist, bool, shape (B, N).
    """

    def __init__(self, source: Noise, present: Tensor) -> None:
        self.source, self.present = source, present

    def prior(self, shape: Sequence[int], device: torch.device = _CPU) -> Tensor:
        """N(0, I), 0 at the padding; see `Noise.prior`."""
        return self._only(self.source.prior(shape, device))

    def increment(self, x: Tensor, t: float, s: float) -> Tensor:
        """(W_t − W_s)/√(t − s), 0 at the padding; see `Noise.increment`."""
        return self._only(self.source.increment(x, t, s))

    def fresh(self, x: Tensor) -> Tensor:
        """N(0, I), 0 at the padding; see `Noise.fresh`."""
        return self._only(self.source.fresh(x))

    def probe(self, x: Tensor) -> Tensor:
        """The draws of the source; see `Noise.probe`."""
        return self.source.probe(x)

    def uniform(self, x: Tensor) -> Tensor:
        """The draws of the source; see `Noise.uniform`."""
        return self.source.uniform(x)

    def times(self, x: Tensor) -> Tensor:
        """The draws of the source; see `Noise.times`."""
        return self.source.times(x)

    def _only(self, draw: Tensor) -> Tensor:
        rows = self.present.to(draw.device)
        return draw * rows.reshape(*rows.shape, *[1] * (draw.ndim - 2))

    def _draw(
        self, shape: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        return self.source._draw(shape, purpose, dtype, device)
