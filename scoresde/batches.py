"""How a call over n samples is split into batches: the checks of seed, condition, batch.

Every function that runs samples one batch at a time (`sample`, `log_likelihood`, `encode` ...)
begins here, so that conditions, random streams and errors are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ._condition import Condition, present
from ._tensor import check_integer
from .noise import Noise, PresentNoise, SampleNoise, check_seed
from .score import ScoreModel
from .score.sets import sizes_of

__all__ = ["Batch", "batches"]


class Batch(NamedTuple):
    """One batch of a call.

    Attributes:
        rows: Which samples of the call the batch holds.
        model: The model with the condition of these samples bound.
        noise: The source of randomness of these samples; None if neither seed nor noise was given.
    """

    rows: slice
    model: ScoreModel
    noise: Noise | None

    @property
    def n(self) -> int:
        """Number of samples in the batch."""
        return self.rows.stop - self.rows.start

    @property
    def names(self) -> Sequence[int]:
        """The numbers that messages use for the samples: their indices, or their rows."""
        noise = self.noise.source if isinstance(self.noise, PresentNoise) else self.noise
        if isinstance(noise, SampleNoise):
            return noise.indices
        return range(self.rows.start, self.rows.stop)


def batches(
    model: ScoreModel,
    n: int,
    device: torch.device | str,
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
    batch: int | None = None,
    random: bool = True,
) -> list[Batch]:
    """Check the arguments of a call over n samples, and split it into batches.

    Sample i of the call has the stream (seed, i), for every size of the batches. For a model of
    sets the noise is 0 at their padding; see `score.sets`.

    Args:
        model: Score model.
        n: Number of samples, at least 0.
        device: Where the samples are.
        seed: Integer in [0, 2^64).
        noise: A source of randomness instead of `seed`; then `batch` must be None.
        y: Condition of the samples, as `ScoreModel.labelled` takes it; a conditional model needs
            one.
        batch: Samples at a time, at least 1; None = all at once.
        random: Whether randomness is needed, so that one of `seed` and `noise` must be given.

    Returns:
        The batches in order. There is at least one; for n = 0 it is empty.

    Raises:
        TypeError: If seed or batch are not integers, or the condition has a wrong dtype.
        ValueError: If not exactly one of seed and noise is given (at most one, unless `random`),
            if batch is given with noise, on a number out of range, or if the condition does not
            suit the model.
    """
    if (seed is not None and noise is not None) or (random and seed is None and noise is None):
        raise ValueError(
            f"{'exactly' if random else 'at most'} one of seed and noise must be given"
        )
    if noise is not None and batch is not None:
        raise ValueError("batch needs a seed: a noise source serves only the batch it was made for")
    if seed is not None:
        seed = check_seed(seed)
    size = max(n, 1) if batch is None else check_integer("batch", batch, minimum=1)
    model = model.labelled(y, n, device)
    sizes = sizes_of(model, n)
    parts = []
    for begin in range(0, max(n, 1), size):
        rows = slice(begin, min(begin + size, n))
        own = noise if seed is None else SampleNoise(seed, range(rows.start, rows.stop))
        if sizes is not None and own is not None:
            own = PresentNoise(own, present(sizes[rows], model.condition.sizes[1]))
        parts.append(Batch(rows, model.take(rows), own))
    return parts
