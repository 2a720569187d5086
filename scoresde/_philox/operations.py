"""The numbers by operations of torch, on any device that has int64 and float64.

A 64-bit word is two halves of 32 bits, each an int64 number, so that no product and no sum
overflows: torch has no arithmetic of unsigned words. No operation waits for the device.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .constants import KEY_STEPS, MULTIPLIERS, ROUNDS

__all__ = ["philox", "values"]

_LOW = 2**32 - 1

# Blocks of four numbers that are made at a time. One needs less than 1 kB of memory meanwhile.
_BLOCKS = 2**18


def values(kind: str, names: Tensor, purpose: int, n: int, dtype: torch.dtype) -> Tensor:
    """The numbers of some names.

    Args:
        kind: `integers`, `uniforms` or `normals`.
        names: Words (seed, index, draw, address) of each row, int64, shape (4, rows). An int64
            number stands for the word with the same bits.
        purpose: Number of the purpose.
        n: Number of values in each row, at least 1.
        dtype: A floating dtype for normals, float64 for uniforms, int64 for integers.

    Returns:
        Shape (rows, n).
    """
    per_row = -(-n // 4)
    total = names.shape[1] * per_row
    out = torch.empty((total, 4), dtype=dtype, device=names.device)
    for first in range(0, total, _BLOCKS):
        place = torch.arange(first, min(first + _BLOCKS, total), device=names.device)
        seed, index, draw, address = names[:, place // per_row]
        block = place % per_row + 1
        counter = torch.stack([block, draw, address, torch.full_like(block, purpose)])
        halves = philox(_halves(counter), _halves(torch.stack([seed, index])))
        out[first : first + _BLOCKS] = _of_kind(kind, *halves)
    return out.view(names.shape[1], 4 * per_row)[:, :n].contiguous()


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x64-10.

    Args:
        counter: Lower and upper halves of the four words, int64, shape (2, 4, blocks).
        key: Lower and upper halves of the two words, int64, shape (2, 2, blocks).

    Returns:
        Lower and upper halves of the four integers of each block, shape (2, 4, blocks).
    """
    pieces, steps = _constants(key.device)
    low = key[0] + steps[:, 0]
    keys = torch.stack([low & _LOW, (key[1] + steps[:, 1] + (low >> 32)) & _LOW], dim=1)
    even, odd = counter[:, 0::2], counter[:, 1::2]
    for key_of_round in keys:
        product_low, product_high = _products(even, pieces)
        even = product_high.flip(1) ^ odd ^ key_of_round
        odd = product_low.flip(1)
    return torch.stack([even, odd], dim=2).flatten(1, 2)


def _halves(words: Tensor) -> Tensor:
    """Lower and upper 32 bits of words, shape (2, *words.shape)."""
    return torch.stack([words & _LOW, (words >> 32) & _LOW])


@functools.lru_cache(maxsize=64)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The multipliers in pieces of 16 bits, (4, 2, 1), and the steps of the key in halves.

    The steps before each round have shape (rounds, 2 halves, 2 words, 1).
    """
    pieces = [[[word >> 16 * j & 0xFFFF] for word in MULTIPLIERS] for j in range(4)]
    steps = [
        [[[(r * word >> 32 * half) & _LOW] for word in KEY_STEPS] for half in range(2)]
        for r in range(ROUNDS)
    ]
    return tuple(torch.tensor(c).to(device, non_blocking=True) for c in (pieces, steps))


def _products(words: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper words of multiplier · word, each in halves like `words`, (2, 2, blocks).

    Half i times piece j is less than 2^48 and counts 2^(32 i + 16 j). Numbers that count the same
    are added. The sums at 2^(16 k), k = 0, ..., 5, then give halves, with a carry from one to the
    next. No number is larger than 2^51.
    """
    low, high = words[:, None] * pieces
    low[2:] += high[:2]
    sums = torch.cat([low, high[2:]])
    even, odd = sums[0::2], sums[1::2]
    within = torch.add(even, odd & 0xFFFF, alpha=2**16)
    beyond = odd >> 16
    halves, carry = [], 0
    for k in range(3):
        total = within[k] + carry
        halves.append(total & _LOW)
        carry = (total >> 32) + beyond[k]
    return torch.stack(halves[:2]), torch.stack([halves[2], carry])


def _of_kind(kind: str, low: Tensor, high: Tensor) -> Tensor:
    """The four numbers of each block, shape (blocks, 4), from halves of shape (4, blocks)."""
    if kind == "integers":
        return ((high << 32) | low).T
    whole = (high * 2**21 + (low >> 11)).double()  # ⌊r / 2^11⌋, below 2^53
    if kind == "uniforms":
        return whole.T * 2.0**-53
    radius = torch.sqrt(torch.log((whole[0::2] + 1.0) * 2.0**-53) * -2.0)
    angle = whole[1::2] * (2 * math.pi * 2.0**-53)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1).flatten(0, 1).T
