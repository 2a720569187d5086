"""How much faster several processes draw samples or train than one, with one thread each.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --processes 4 --n 2048
    python benchmarks/scaling.py --work train

torchrun starts the processes on this machine, on the CPU. The time runs from the moment when all
processes are there and have evaluated the network once, to the moment when the results are written:
start-up is excluded, and reading the checkpoint, joining the batches and writing are included. The
number of processes changes from run to run, and the table holds the least time of several runs. At
the end it says whether all runs wrote the same bytes.

With `--work train` the processes train one U-Net of 3×32×32 with dropout for n / batch steps (at
least one), after one step that is computed and forgotten. Gloo adds up their gradients. At the end
stands the largest difference of a weight between two runs, which is 0 up to rounding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from script import print_header
from training import SPEC, images

import scoresde
from scoresde.data import Dataset
from scoresde.distributed import Ranks, processes
from scoresde.evaluation import seeded
from scoresde.fingerprint import file_fingerprint
from scoresde.loss import Objective
from scoresde.nets import UNet
from scoresde.output.shared_work import Share
from scoresde.score import NetworkScore
from scoresde.sde import VP
from scoresde.tasks.sample_request import SampleRequest
from scoresde.tasks.sampling import draw_samples
from scoresde.train import Training, TrainSettings, make_optimizer


def timed_training(steps: int, batch: int, out: Path) -> None:
    """Train as one of several processes; rank 0 prints the seconds and writes the weights."""
    with processes() as ranks:
        training = _training(steps, batch, ranks)
        optimizer = make_optimizer(training.model.net)
        training.warm_up(optimizer, 0)
        ranks.gather()
        began = time.perf_counter()
        for _ in training.steps(optimizer):
            pass
        ranks.gather()
        if ranks.writes:
            print(json.dumps(time.perf_counter() - began))
            out.mkdir()
            weights = [p.detach().flatten() for p in training.model.net.parameters()]
            np.save(out / "weights.npy", torch.cat(weights).numpy())


def _training(steps: int, batch: int, ranks: Ranks) -> Training:
    """The training of a small network on random images, the same in all processes."""
    with seeded(0):
        model = NetworkScore(UNet(SPEC.shape, 32, (1, 2, 2), 1, dropout=0.1), VP())
    settings = TrainSettings(steps=steps, batch=batch, warmup=0, validation=0)
    data = Dataset("noise", images(), None, SPEC)
    return Training(model, data, Objective(), settings, ranks=ranks)


def timed_sampling(request: SampleRequest, out: Path) -> None:
    """Draw samples as one of several processes; rank 0 prints the seconds."""
    with processes() as ranks:
        scoresde.sample(scoresde.load(request.checkpoint).model, n=request.batch, nfe=2)
        ranks.gather()
        began = time.perf_counter()
        draw_samples(request, out, share=Share(ranks))
        ranks.gather()
        if ranks.writes:
            print(json.dumps(time.perf_counter() - began))


def run(size: int, words: list[str], out: Path) -> float:
    """The seconds of one run with `size` processes."""
    launch = [sys.executable, *("-m", "torch.distributed.run", "--standalone")]
    command = [*launch, f"--nproc-per-node={size}", "--", __file__, *words, f"--out={out}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def agreement(work: str, places: list[Path]) -> str:
    """In words how near the results of all runs are."""
    if work == "train":
        first, *others = (np.load(place / "weights.npy") for place in places)
        apart = max(float(np.abs(other - first).max()) for other in others)
        return f"the largest difference of a weight between two runs is {apart:.1e}"
    contents = {file_fingerprint(place / "samples.npz") for place in places}
    return "the bytes of all runs are " + ("equal" if len(contents) == 1 else "DIFFERENT")


def print_table(seconds: dict[int, list[float]]) -> None:
    """The least seconds for each number of processes, and their ratio to those of one."""
    print("processes   least seconds   all runs                  times as fast")
    for size, times in seconds.items():
        runs = " ".join(f"{value:.2f}" for value in times)
        ratio = min(seconds[1]) / min(times)
        print(f"{size:9d}   {min(times):13.2f}   {runs:24s}  {ratio:13.2f}")


@click.command(help=__doc__.partition("\n")[0])
@click.option("--work", type=click.Choice(["sample", "train"]), default="sample", show_default=True)
@click.option("--checkpoint", default="digits-vp", show_default=True, help="For sampling.")
@click.option("--processes", "most", type=click.IntRange(2), default=2, show_default=True)
@click.option("--n", type=click.IntRange(1), default=512, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--nfe", type=click.IntRange(2), default=30, show_default=True, help="For sampling.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True, help="Of one run.")
def main(
    work: str,
    checkpoint: str,
    most: int,
    n: int,
    batch: int,
    nfe: int,
    repeats: int,
    out: Path | None,
) -> None:
    """Print the least seconds of 1 and of several processes, and their ratio."""
    if out is not None and work == "train":
        timed_training(max(n // batch, 1), batch, out)
        return
    if out is not None:
        request = SampleRequest(checkpoint, n=n, batch=batch, sampler="ddim", nfe=nfe)
        timed_sampling(request, out)
        return
    print_header()
    options = {"work": work, "checkpoint": checkpoint, "n": n, "batch": batch, "nfe": nfe}
    words = [f"--{name}={value}" for name, value in options.items()]
    seconds: dict[int, list[float]] = {1: [], most: []}
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for i in range(repeats):
            for size, times in seconds.items():
                places.append(Path(folder) / f"{size}-{i}")
                times.append(run(size, words, places[-1]))
        verdict = agreement(work, places)
    what = f"{n // batch} training steps" if work == "train" else f"{checkpoint}, ddim, {nfe} NFE"
    print(f"{what}, {n} images in batches of {batch}")
    print_table(seconds)
    print(verdict)


if __name__ == "__main__":
    main()
