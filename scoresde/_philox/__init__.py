"""Random numbers with an address: the integers of Philox4x64-10, uniforms and normals.

A draw is named by (seed, index, purpose, draw, address) and has as many values as are wanted.
Value j of a draw is a function of that name and of j alone. It does not depend on earlier draws,
and a longer draw begins with the shorter one. A name sets the generator by

    key = (seed, index),   counter = (b + 1, draw, address, purpose)

and block b = 0, 1, ... gives the 64-bit integers r_{4b}, ..., r_{4b+3}. Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3". These are the integers of NumPy's generator
`Philox(key, counter).random_raw` with the first counter word 0: NumPy adds 1 to the counter before
each block, hence b + 1. From these integers come, in float64,

    uniforms   u_j = ⌊r_j / 2^11⌋ 2^−53 in [0, 1)
    normals    z_{2i} = ρ cos φ,  z_{2i+1} = ρ sin φ   (Box and Muller 1958),
               ρ = √(−2 log((⌊r_{2i} / 2^11⌋ + 1) 2^−53)),   φ = 2π ⌊r_{2i+1} / 2^11⌋ 2^−53

    pieces     16 bits each, four of every r_j, the lowest first, as signed integers

and |z| is at most 8.6. Integers and uniforms are equal on all machines and devices, to the bit.
Normals are equal up to the rounding of log, cos and sin, about 1e-15.

NumPy makes the draws of a CPU (`host`), where operations of torch take 6 to 20 times as long. A GPU
makes its own draws, by one kernel (`kernel`), or by operations of torch (`operations`) where Triton
does not work.

Keys have 128 bits because 64 or 32 are too few: torch's CPU generator keeps 32 bits of a seed, so
that among 50,000 samples seeded one by one, two are equal with probability 0.25.
"""

from .constants import PURPOSES, Words
from .device import words
from .draws import normals, pieces, uniforms
from .host import generator, integers

__all__ = ["PURPOSES", "Words", "generator", "integers", "normals", "pieces", "uniforms", "words"]
