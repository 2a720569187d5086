"""The influences of estimates as arrays of a file, so that stored cells can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ..metrics import Estimate

__all__ = ["INFLUENCES", "influence_arrays", "with_influences"]

ROWS, SIZES = "influence", "influence_sizes"
INFLUENCES = (ROWS, SIZES)
UNKNOWN = -1


def influence_arrays(metrics: Mapping[str, Estimate]) -> dict[str, np.ndarray]:
    """The influences of all estimates as one float32 array, and the length of each vector.

    The vectors follow one another in the order of the metrics and of their samples. A length of
    −1 says that an influence is not known. Seven digits are enough: they enter errors alone.
    """
    sizes: list[int] = []
    rows = [torch.zeros(0)]
    for estimate in metrics.values():
        known = estimate.influence or [None] * len(estimate.n)
        sizes += [UNKNOWN if row is None else len(row) for row in known]
        rows += [row.to(torch.float32) for row in known if row is not None]
    return {ROWS: torch.cat(rows).numpy(), SIZES: np.array(sizes, dtype=np.int64)}


def with_influences(
    metrics: Mapping[str, Estimate], arrays: Mapping[str, np.ndarray], where: str
) -> dict[str, Estimate]:
    """Estimates with their influences from stored arrays; without arrays they remain as they are.

    Args:
        metrics: Estimates by name.
        arrays: Arrays of `influence_arrays`, and possibly others.
        where: The file, for messages.

    Raises:
        ValueError: If the arrays do not have the sizes of the samples.
    """
    if not {ROWS, SIZES} <= arrays.keys():
        return dict(metrics)
    asked = [n for estimate in metrics.values() for n in estimate.n]
    sizes = arrays[SIZES].tolist()
    fits = len(sizes) == len(asked) and all(
        size in (UNKNOWN, 0, n) for size, n in zip(sizes, asked, strict=True)
    )
    if not fits or sum(max(size, 0) for size in sizes) != len(arrays[ROWS]):
        raise ValueError(f"{where}: influences have the sizes {sizes}, the samples {asked}")
    rows = iter(torch.from_numpy(arrays[ROWS]).double().split([max(size, 0) for size in sizes]))
    lengths, found = iter(sizes), {}
    for name, estimate in metrics.items():
        own = [(next(lengths), next(rows)) for _ in estimate.n]
        known = all(size != UNKNOWN for size, _ in own)
        influence = tuple(row for _, row in own) if known else ()
        found[name] = replace(estimate, influence=influence)
    return found
