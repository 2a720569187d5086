"""The time to draw noise on the CPU.

    python benchmarks/noise.py

It prints two tables. Each entry is the least time of several runs in this process, on one thread:

1. Microseconds per draw of N(0, I): `SampleNoise`, and NumPy's generator of the same integers with
   ziggurat normals. Each sample has such a generator, made before the clock starts. The time is
   the mean over a sampling run of 64 draws that begins with a new source.
2. Milliseconds per increment on a uniform grid of 100 steps: `SampleNoise` and `BrownianNoise`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import click
import numpy as np
import torch
from script import least_seconds, print_header

from scoresde.grid import uniform
from scoresde.noise import BrownianNoise, Noise, SampleNoise
from scoresde.sde import VP

SHAPES = ((64, 2), (10_000, 2), (256, 1, 8, 8), (64, 1, 28, 28), (64, 3, 32, 32))
PATHS = ((64, 2), (64, 1, 28, 28))
DRAWS = 64
STEPS = 100


def ours(shape: tuple[int, ...]) -> Callable[[], object]:
    """The draws of a sampling run."""

    def run() -> None:
        noise = SampleNoise(0, range(shape[0]))
        for _ in range(DRAWS):
            noise.prior(shape)

    return run


def ziggurat(shape: tuple[int, ...]) -> Callable[[], object]:
    """The same number of draws from one generator of NumPy for each sample."""
    generators = [np.random.Generator(np.random.Philox(key=i)) for i in range(shape[0])]

    def run() -> None:
        for _ in range(DRAWS):
            out = np.empty((shape[0], math.prod(shape[1:])))
            for row, generator in zip(out, generators, strict=True):
                generator.standard_normal(out=row)

    return run


def sweep(noise: Callable[[], Noise], shape: tuple[int, ...]) -> Callable[[], object]:
    """The increments of a new source on a grid."""
    times = list(itertools.pairwise(uniform(VP(), STEPS).tolist()))
    x = torch.zeros(shape)

    def run() -> None:
        source = noise()
        for t, s in times:
            source.increment(x, t, s)

    return run


@click.command(help=__doc__.partition("\n")[0])
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
def main(repeats: int) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print_header("numpy")
    print(f"\n{'µs per draw':18s} {'ours':>9s} {'ziggurat':>9s}  ratio")
    for shape in SHAPES:
        mine, other = (
            1e6 * s / DRAWS for s in least_seconds([ours(shape), ziggurat(shape)], repeats)
        )
        print(f"{shape!s:18s} {mine:9.1f} {other:9.1f} {mine / other:6.2f}", flush=True)
    print(f"\n{'ms per increment':18s} {'plain':>9s} {'path':>9s}  ratio")
    for shape in PATHS:
        rows = range(shape[0])
        runs = [
            sweep(lambda rows=rows, kind=kind: kind(0, rows), shape)
            for kind in (SampleNoise, BrownianNoise)
        ]
        plain, path = (1e3 * s / STEPS for s in least_seconds(runs, repeats))
        print(f"{shape!s:18s} {plain:9.3f} {path:9.3f} {path / plain:6.1f}", flush=True)


if __name__ == "__main__":
    main()
