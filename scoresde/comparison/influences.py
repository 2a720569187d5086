"""The influences of estimates as arrays of a file, so that stored cells can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ..metrics import Estimate

__all__ = ["influence_arrays", "with_influences"]

PREFIX = "influence"


def influence_arrays(metrics: Mapping[str, Estimate]) -> dict[str, np.ndarray]:
    """Influences as float32 arrays, named `influence.METRIC.NUMBER` with the number of the sample.

    Seven digits are enough: they enter standard errors alone.
    """
    return {
        f"{PREFIX}.{name}.{i}": row.to(torch.float32).numpy()
        for name, estimate in metrics.items()
        for i, row in enumerate(estimate.influence)
    }


def with_influences(
    metrics: Mapping[str, Estimate], arrays: Mapping[str, np.ndarray], where: str
) -> dict[str, Estimate]:
    """Estimates with their influences from stored arrays; without arrays they remain as they are.

    Args:
        metrics: Estimates by name.
        arrays: Arrays of `influence_arrays`, and possibly others.
        where: The file, for messages.

    Raises:
        ValueError: If an array has another length than its sample.
    """
    found = {}
    for name, estimate in metrics.items():
        keys = [f"{PREFIX}.{name}.{i}" for i in range(len(estimate.n))]
        rows = tuple(torch.from_numpy(arrays[key]).double() for key in keys if key in arrays)
        if len(rows) == len(estimate.n):
            sizes = tuple(map(len, rows))
            if not all(k in (0, n) for k, n in zip(sizes, estimate.n, strict=True)):
                raise ValueError(
                    f"{where}: influences of {name} must have the lengths {estimate.n}, got {sizes}"
                )
            estimate = replace(estimate, influence=rows)
        found[name] = estimate
    return found
