"""The time to draw noise, on the CPU or on a GPU.

    python benchmarks/noise.py
    python benchmarks/noise.py --device cuda

On the CPU it prints three tables. Each entry is the least time of several runs in this process, on
one thread:

1. Microseconds per draw of N(0, I): `SampleNoise`, and NumPy's generator of the same integers with
   ziggurat normals. Each sample has such a generator, made before the clock starts. The time is
   the mean over a sampling run of 64 draws that begins with a new source.
2. Milliseconds per increment on a uniform grid of 100 steps: `SampleNoise` and `BrownianNoise`.
3. Milliseconds per draw: NumPy's form of the generator and torch's operations, which a GPU without
   Triton uses.

On a GPU it prints microseconds per draw of float32 normals: `torch.randn`, `SampleNoise` in a run
of 64 draws that begins with a new source, the part of it for which the host is busy, and the same
run with torch's operations in place of the kernel; then the second table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from unittest import mock

import click
import numpy as np
import torch
from script import least_seconds, print_header

from scoresde._philox import PURPOSES, normals, operations
from scoresde._philox import device as made
from scoresde.grid import uniform
from scoresde.noise import BrownianNoise, Noise, SampleNoise
from scoresde.sde import VP

SHAPES = ((64, 2), (10_000, 2), (256, 1, 8, 8), (64, 1, 28, 28), (64, 3, 32, 32))
PATHS = ((64, 2), (64, 1, 28, 28))
ON_GPU = ((64, 1, 28, 28), (256, 3, 32, 32), (256, 3, 64, 64))
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


def sweep(noise: Callable[[], Noise], shape: tuple[int, ...], device: str) -> Callable[[], object]:
    """The increments of a new source on a grid."""
    times = list(itertools.pairwise(uniform(VP(), STEPS).tolist()))
    x = torch.zeros(shape, device=device)

    def run() -> None:
        source = noise()
        for t, s in times:
            source.increment(x, t, s)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run


def on_cpu(repeats: int) -> None:
    """Print the tables of the CPU."""
    print(f"\n{'µs per draw':18s} {'ours':>9s} {'ziggurat':>9s}  ratio")
    for shape in SHAPES:
        mine, other = (
            1e6 * s / DRAWS for s in least_seconds([ours(shape), ziggurat(shape)], repeats)
        )
        print(f"{shape!s:18s} {mine:9.1f} {other:9.1f} {mine / other:6.2f}", flush=True)
    paths("cpu", repeats)
    print(f"\n{'ms per draw':18s} {'NumPy':>9s} {'torch':>9s}  ratio")
    for shape in PATHS:
        n = math.prod(shape[1:])
        names = torch.stack(torch.meshgrid(*map(torch.arange, (1, shape[0], 1, 1)), indexing="ij"))
        runs = [
            lambda shape=shape, n=n: normals(0, range(shape[0]), "prior", n),
            lambda names=names, n=n: operations.values(
                "normals", names.flatten(1), PURPOSES["prior"], n, torch.float64
            ),
        ]
        numpys, torchs = (1e3 * s for s in least_seconds(runs, repeats))
        print(f"{shape!s:18s} {numpys:9.3f} {torchs:9.3f} {torchs / numpys:6.1f}", flush=True)


def paths(device: str, repeats: int) -> None:
    """Print the table of Brownian paths."""
    print(f"\n{'ms per increment':18s} {'plain':>9s} {'path':>9s}  ratio")
    for shape in PATHS:
        rows = range(shape[0])
        runs = [
            sweep(lambda rows=rows, kind=kind: kind(0, rows), shape, device)
            for kind in (SampleNoise, BrownianNoise)
        ]
        plain, path = (1e3 * s / STEPS for s in least_seconds(runs, repeats))
        print(f"{shape!s:18s} {plain:9.3f} {path:9.3f} {path / plain:6.1f}", flush=True)


def on_gpu(name: str, repeats: int) -> None:
    """Print the tables of a GPU."""
    print(f"{torch.cuda.get_device_name(name)}, CUDA {torch.version.cuda}")
    head = ("randn", "ours", "ratio", "host", "operations")
    print(f"\n{'µs per draw':18s} " + " ".join(f"{word:>10s}" for word in head))
    for shape in ON_GPU:
        x = torch.zeros(shape, device=name)
        runs = [gpu_draws(x, lambda x: torch.randn_like(x)), gpu_draws(x)]
        randn, mine = (1e6 * s / DRAWS for s in least_seconds(runs, repeats))
        host = 1e6 / DRAWS * least_seconds_of_host(gpu_draws(x, wait=False), repeats)
        with mock.patch.object(made, "_maker", return_value=operations.values):
            (slow,) = (1e6 * s / DRAWS for s in least_seconds([gpu_draws(x)], 2))
        values = f"{randn:10.1f} {mine:10.1f} {mine / randn:10.2f} {host:10.1f} {slow:10.1f}"
        print(f"{shape!s:18s} {values}", flush=True)
    paths(name, repeats)


def gpu_draws(
    x: torch.Tensor, draw: Callable[[torch.Tensor], object] | None = None, *, wait: bool = True
) -> Callable[[], object]:
    """A run of draws like `x`, of a new source if no `draw` is given."""

    def run() -> None:
        source = SampleNoise(0, range(len(x)))
        for _ in range(DRAWS):
            source.fresh(x) if draw is None else draw(x)
        if wait:
            torch.cuda.synchronize(x.device)

    return run


def least_seconds_of_host(run: Callable[[], object], repeats: int) -> float:
    """The least time in which the host issues a run; the GPU is idle before each."""
    least = math.inf
    for _ in range(repeats):
        torch.cuda.synchronize()
        least = min(least, *least_seconds([run], 1))
    return least


@click.command(help=__doc__.partition("\n")[0])
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(repeats: int, device: str) -> None:
    """Print the tables of one device."""
    torch.set_num_threads(1)
    print_header("numpy", "triton")
    if torch.device(device).type == "cuda":
        on_gpu(device, repeats)
    else:
        on_cpu(repeats)


if __name__ == "__main__":
    main()
