"""The constants of Philox4x64-10 (Salmon et al. 2011), the purposes of draws, and their words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

__all__ = ["KEY_STEPS", "MULTIPLIERS", "PURPOSES", "ROUNDS", "Words"]

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
ROUNDS = 10

# Purposes of draws. Draws of different purposes share no block of integers.
PURPOSES = {
    "prior": 0,
    "increment": 1,
    "fresh": 2,
    "probe": 3,
    "path": 4,
    "uniform": 5,
    "times": 6,
    "training noise": 7,
    "training uniform": 8,
    "training times": 9,
    "shuffle": 10,
    "dropout": 11,
    "label dropout": 12,
    "held out": 13,
    "validation": 14,
    "flip": 15,
    "mask": 16,
    "set size": 17,
}

Words = int | Sequence[int] | np.ndarray | Tensor
"""Integers in [0, 2^64), one or an array of them; a tensor is int64 and has the same bits."""
