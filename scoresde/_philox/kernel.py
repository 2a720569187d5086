"""The numbers in one Triton kernel, for GPUs that Triton knows.

Importing this module needs the package `triton`, which torch brings along on Linux.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .constants import KEY_STEPS, MULTIPLIERS, ROUNDS

__all__ = ["values"]

_M0, _M1 = (tl.constexpr(word) for word in MULTIPLIERS)
_W0, _W1 = (tl.constexpr(word) for word in KEY_STEPS)
_R = tl.constexpr(ROUNDS)
_UNIT = tl.constexpr(2.0**-53)
_ANGLE = tl.constexpr(2 * math.pi * 2.0**-53)

# Blocks of four numbers that one program of the kernel makes: one for each thread of four warps.
_BLOCKS = 128


def values(kind: str, names: Tensor, purpose: int, n: int, dtype: torch.dtype) -> Tensor:
    """The numbers of a GPU's names; see `operations.values`, whose bits these are.

    Args:
        kind: `integers`, `uniforms` or `normals`.
        names: Words (seed, index, draw, address) of each row, int64, shape (4, rows), contiguous.
        purpose: Number of the purpose.
        n: Number of values in each row, at least 1.
        dtype: float32 or float64 for normals, float64 for uniforms, int64 for integers.

    Returns:
        Shape (rows, n).
    """
    rows = names.shape[1]
    out = torch.empty((rows, n), dtype=dtype, device=names.device)
    programs = triton.cdiv(rows * triton.cdiv(n, 4), _BLOCKS)
    with torch.cuda.device(names.device):
        _philox[(programs,)](out, names, purpose, rows, n, KIND=kind, BLOCKS=_BLOCKS)
    return out


@triton.jit(do_not_specialize=["purpose", "rows", "n"])
def _philox(
    out: tl.tensor,
    names: tl.tensor,
    purpose: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    KIND: tl.constexpr,  # noqa: N803 (Triton's spelling of what is known at compile time)
    BLOCKS: tl.constexpr,  # noqa: N803
) -> None:
    """Write the numbers of some blocks to `out`, shape (rows, n)."""
    place = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    per_row = (n.to(tl.int64) + 3) // 4
    row = place // per_row
    block = place - row * per_row
    inside = row < rows
    count = rows.to(tl.int64)
    k0 = tl.load(names + row, inside, 0).to(tl.uint64, bitcast=True)
    k1 = tl.load(names + count + row, inside, 0).to(tl.uint64, bitcast=True)
    c0 = (block + 1).to(tl.uint64)
    c1 = tl.load(names + 2 * count + row, inside, 0).to(tl.uint64, bitcast=True)
    c2 = tl.load(names + 3 * count + row, inside, 0).to(tl.uint64, bitcast=True)
    c3 = tl.full((BLOCKS,), 0, tl.uint64) + purpose.to(tl.uint64)
    m0 = tl.full((BLOCKS,), _M0, tl.uint64)
    m1 = tl.full((BLOCKS,), _M1, tl.uint64)
    for _ in tl.static_range(_R):
        high0 = tl.umulhi(m0, c0)
        high1 = tl.umulhi(m1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, m1 * c2, high0 ^ c3 ^ k1, m0 * c0
        k0 += _W0
        k1 += _W1
    if KIND != "integers":
        c0, c1 = (c0 >> 11).to(tl.float64), (c1 >> 11).to(tl.float64)
        c2, c3 = (c2 >> 11).to(tl.float64), (c3 >> 11).to(tl.float64)
    if KIND == "uniforms":
        c0, c1, c2, c3 = c0 * _UNIT, c1 * _UNIT, c2 * _UNIT, c3 * _UNIT
    if KIND == "normals":  # Box and Muller
        radius0 = tl.sqrt(-2.0 * tl.log((c0 + 1.0) * _UNIT))
        radius1 = tl.sqrt(-2.0 * tl.log((c2 + 1.0) * _UNIT))
        angle0, angle1 = c1 * _ANGLE, c3 * _ANGLE
        c0, c1 = radius0 * tl.cos(angle0), radius0 * tl.sin(angle0)
        c2, c3 = radius1 * tl.cos(angle1), radius1 * tl.sin(angle1)
    four = tl.join(tl.join(c0, c2), tl.join(c1, c3))  # number 2i + j is at (block, i, j)
    j = tl.arange(0, 4)[None, :]
    place = (4 * block)[:, None] + j
    written = tl.reshape(four, (BLOCKS, 4)).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * n + place, written, inside[:, None] & (place < n))
