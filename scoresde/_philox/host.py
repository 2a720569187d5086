"""The numbers on the CPU, by NumPy."""

from __future__ import annotations

import math

import numpy as np
import torch

from .constants import KEY_STEPS, MULTIPLIERS, PURPOSES, ROUNDS, Words

__all__ = ["box_muller", "generator", "integers"]

_LOW = np.uint64(2**32 - 1)
_HALF_WORD = np.uint64(32)
_MULTIPLIERS = np.array(MULTIPLIERS, dtype=np.uint64).reshape(2, 1, 1)
_MULTIPLIERS_LOW, _MULTIPLIERS_HIGH = _MULTIPLIERS & _LOW, _MULTIPLIERS >> _HALF_WORD
_KEY_STEPS = np.array(KEY_STEPS, dtype=np.uint64).reshape(2, 1, 1)

# Blocks that `_all_at_once` computes at a time, and values that `_box_muller` computes at a time:
# arrays of this size stay in the cache.
_BLOCKS_AT_ONCE = 16384
_VALUES = 32768


def integers(
    seed: int, index: Words, purpose: str, n: int, *, draw: Words = 0, address: Words = 0
) -> np.ndarray:
    """The integers r_0, ..., r_{n−1} of each draw, uint64; args and shape as for `normals`.

    They are made on the CPU, and words that are tensors must be there.
    """
    words = [np.asarray(word, dtype=np.uint64) for word in (index, draw, address)]
    shape = np.broadcast_shapes(*(word.shape for word in words))
    names = np.empty((3, *shape), dtype=np.uint64)
    for i, word in enumerate(words):
        names[i] = word
    names = names.reshape(3, -1)
    make = _all_at_once if _pays_at_once(names.shape[1], -(-n // 4)) else _row_by_row
    rows = make(seed, names, PURPOSES[purpose], n)
    return np.ascontiguousarray(rows).reshape(*shape, n)


def box_muller(integers: np.ndarray) -> np.ndarray:
    """The normals of pairs of integers, shape (..., n) with n even; the integers are lost."""
    values = integers.view(np.float64)
    flat = integers.reshape(-1), values.reshape(-1)
    for first in range(0, integers.size, _VALUES):
        _box_muller(*(part[first : first + _VALUES] for part in flat))
    return values


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """NumPy's generator on the integers of (seed, index, purpose), draw and address 0."""
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, index], dtype=np.uint64),
            counter=np.array([0, 0, 0, PURPOSES[purpose]], dtype=np.uint64),
        )
    )


def _pays_at_once(rows: int, blocks: int) -> bool:
    """Whether `_all_at_once` is faster than `_row_by_row`; the times are measured, in µs."""
    return 150 + 0.08 * rows * blocks < rows * (1.25 + 0.015 * blocks)


def _row_by_row(seed: int, names: np.ndarray, purpose: int, n: int) -> np.ndarray:
    """The integers of rows named by (index, draw, address), shape (3, rows), by NumPy's Philox."""
    bits = np.random.Philox(key=0)
    # Setting the state is ten times as fast as a new generator, and twice as fast from Python
    # integers as from an array.
    counter, key = [0, 0, 0, purpose], [seed, 0]
    state = {**bits.state, "state": {"counter": counter, "key": key}, "buffer": [0] * 4}
    rows = [np.empty(0, dtype=np.uint64)]
    for key[1], counter[1], counter[2] in names.T.tolist():
        bits.state = state
        rows.append(bits.random_raw(n))
    return np.concatenate(rows)


def _all_at_once(seed: int, names: np.ndarray, purpose: int, n: int) -> np.ndarray:
    """The integers of `_row_by_row` by array arithmetic over all rows; faster for short rows."""
    blocks = -(-n // 4)
    out = np.empty((names.shape[1], blocks, 4), dtype=np.uint64)
    step = max(1, _BLOCKS_AT_ONCE // max(1, blocks))
    for first in range(0, len(out), step):
        part = out[first : first + step]
        index, draw, address = names[:, first : first + step]
        even = np.empty((2, blocks, len(part)), dtype=np.uint64)
        odd, key = np.empty((2, 2, 1, len(part)), dtype=np.uint64)
        even[0].T[:], even[1] = np.arange(1, blocks + 1), address
        odd[0], odd[1] = draw, purpose
        key[0], key[1] = seed, index
        part.T[0::2], part.T[1::2] = _philox(even, odd, key)
    return out.reshape(len(out), 4 * blocks)[:, :n]


def _philox(even: np.ndarray, odd: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Philox4x64-10 with words 0 and 2 of the counters in `even`, 1 and 3 in `odd`.

    Shapes (2, blocks, rows), and those of `odd` and `key` may be (2, 1, rows).
    """
    for _ in range(ROUNDS):
        high = _high_word(even)[::-1]
        high ^= odd
        high ^= key
        even, odd = high, (_MULTIPLIERS * even)[::-1]
        key = key + _KEY_STEPS
    return even, odd


def _high_word(x: np.ndarray) -> np.ndarray:
    """⌊multiplier · x / 2^64⌋ from the products of 32-bit halves, none of which overflows."""
    low, high = x & _LOW, x >> _HALF_WORD
    carry = _MULTIPLIERS_LOW * low
    carry >>= _HALF_WORD
    middle = _MULTIPLIERS_HIGH * low
    middle += carry
    np.multiply(_MULTIPLIERS_LOW, high, out=carry)
    carry += np.bitwise_and(middle, _LOW, out=low)
    carry >>= _HALF_WORD
    middle >>= _HALF_WORD
    high *= _MULTIPLIERS_HIGH
    high += middle
    high += carry
    return high


def _box_muller(pairs: np.ndarray, out: np.ndarray) -> None:
    """Write the normals of pairs of integers to `out`, which may be the same memory."""
    pairs >>= np.uint64(11)
    radius = pairs[0::2].astype(np.float64)
    angle = torch.from_numpy(pairs[1::2] * (2 * math.pi * 2.0**-53))
    radius += 1.0
    radius *= 2.0**-53
    # torch's log, cos and sin are vectorised on more processors than NumPy's, and their result for
    # a value does not depend on its position in the array.
    torch.from_numpy(radius).log_()
    radius *= -2.0
    np.sqrt(radius, out=radius)
    np.multiply(radius, torch.cos(angle).numpy(), out=out[0::2])
    np.multiply(radius, angle.sin_().numpy(), out=out[1::2])
