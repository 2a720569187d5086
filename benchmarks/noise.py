"""What noise costs on the CPU.

    python benchmarks/noise.py

Two tables, each entry the least of some runs in this process, on one thread:

1. Microseconds per draw of N(0, I): `SampleNoise`, and the generator of NumPy with the same
   integers and ziggurat normals, one per sample, made before the clock starts. A draw is the mean
   over a sampling run of 64 draws that begins with a new source.
2. Milliseconds per increment on a uniform grid of 100 steps: `SampleNoise` and `BrownianNoise`.
"""

from __future__ import annotations

import itertools
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable

import click
import numpy as np
import torch

from scoresde.grid import uniform
from scoresde.noise import BrownianNoise, Noise, SampleNoise
from scoresde.sde import VP

SHAPES = ((64, 2), (10_000, 2), (256, 1, 8, 8), (64, 1, 28, 28), (64, 3, 32, 32))
PATHS = ((64, 2), (64, 1, 28, 28))
DRAWS = 64
STEPS = 100


def ours(shape: tuple[int, ...]) -> Callable[[], object]:
    """A sampling run's draws."""

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


def least(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Seconds of each run, the least of some, taken in turn."""
    best = [math.inf] * len(runs)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            began = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - began)
    return best


@click.command(help=__doc__.partition("\n")[0])
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
def main(repeats: int) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print("command:", shlex.join(["python", *sys.argv]))
    print(f"torch {torch.__version__}, NumPy {np.__version__}, Python {platform.python_version()},")
    print(f"CPU, 1 thread, seed 0\n\n{'µs per draw':18s} {'ours':>9s} {'ziggurat':>9s}  ratio")
    for shape in SHAPES:
        mine, other = (1e6 * s / DRAWS for s in least([ours(shape), ziggurat(shape)], repeats))
        print(f"{shape!s:18s} {mine:9.1f} {other:9.1f} {mine / other:6.2f}", flush=True)
    print(f"\n{'ms per increment':18s} {'plain':>9s} {'path':>9s}  ratio")
    for shape in PATHS:
        rows = range(shape[0])
        runs = [
            sweep(lambda rows=rows, kind=kind: kind(0, rows), shape)
            for kind in (SampleNoise, BrownianNoise)
        ]
        plain, path = (1e3 * s / STEPS for s in least(runs, repeats))
        print(f"{shape!s:18s} {plain:9.3f} {path:9.3f} {path / plain:6.1f}", flush=True)


if __name__ == "__main__":
    main()
