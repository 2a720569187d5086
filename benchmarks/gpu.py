"""How fast a GPU trains, samples and computes likelihoods, and whether it agrees with the CPU.

    python benchmarks/gpu.py --device cuda --json out/gpu.json
    python benchmarks/gpu.py --device cpu --small

It takes at most four minutes, and needs no network and nobody to watch it. Each table has a budget
of time. Each row is printed and written to the JSON file at once, so that a killed run keeps its
rows. A row that fails holds its error, and the others go on; the exit status is then 1.

1. agreement: the largest difference between the device and the CPU, for every sampler (values of
   samples) and likelihood method (log p in nats) on `digits-vp`, in float64 and float32.
2. training step: `scoresde train` beside the bare loop of `training.py`, 6.46 M weights, 3×32×32,
   256 images.
3. sampling large: the wall time of a sampler over that of as many forward passes of the bare
   network, 17.2 M weights, 3×32×32, 256 images; the same for the loop of diffusers, if it is
   installed. The bare network and diffusers' loop get a stored label, which costs them nothing.
4. sampling small: the same for `fashion-mnist-vp`, 64 images. Adaptive samplers evaluate fewer
   images towards their end, and the number of evaluations is the largest of any image.
5. likelihood: images per second of the default method, the large network, 128 images. The first
   call, with the compilation, is timed apart.

Networks compute under bfloat16 autocast on a GPU. All are timed eager and then compiled. `--small`
runs all of it in tiny sizes, to try the script on a CPU: without a compiler, which takes minutes
there, unless `--compile` asks for it.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click
import torch
from gpu_agreement import agreement
from gpu_rows import Rows
from gpu_speed import FULL, SMALL, likelihoods, sampling_large, sampling_small, training_step
from script import print_header

# Seconds of each table, and its function; what a table leaves over is added to the next.
TABLES = {
    "agreement": (35, agreement),
    "training step": (60, training_step),
    "sampling large": (60, sampling_large),
    "sampling small": (30, sampling_small),
    "likelihood": (50, likelihoods),
}


@click.command(help=__doc__.partition("\n")[0])
@click.option("--device", default="cuda", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--small", is_flag=True, help="Tiny sizes without a compiler, for a CPU.")
@click.option("--compile", "compiled", is_flag=True, help="Compile with --small, too.")
def main(device: str, path: Path | None, small: bool, compiled: bool) -> None:
    """Print all tables."""
    about = print_header("diffusers", "triton")
    place = torch.device(device)
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise click.BadParameter("this machine has no CUDA device", param_hint="--device")
        about["device"] = torch.cuda.get_device_name(place)
        print(f"{about['device']}, CUDA {torch.version.cuda}")
    warnings.simplefilter("ignore")
    rows, sizes = Rows(path, about), SMALL if small else FULL
    eager = small and not compiled
    with torch.compiler.set_stance("force_eager") if eager else nullcontext():
        for name, (seconds, measure) in TABLES.items():
            torch.compiler.reset()  # so that no table is compiled for the sizes of another, too
            budget = seconds * (20 if small else 1)
            rows.table(name, budget, partial(measure, rows, place, sizes))
    if rows.failed:
        print(f"\nwithout a result: {', '.join(rows.failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
