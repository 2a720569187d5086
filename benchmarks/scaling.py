"""How much faster several processes draw samples than one, with one thread each.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --processes 4 --n 2048

torchrun starts the processes on this machine, on the CPU. The time runs from the moment when all
processes are there and have evaluated the network once, to the moment when the results are written:
start-up is excluded, and reading the checkpoint, joining the batches and writing are included. The
number of processes changes from run to run, and the table holds the least time of several runs. At
the end it says whether all runs wrote the same bytes.
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
from script import print_header

import scoresde
from scoresde.distributed import processes
from scoresde.fingerprint import file_fingerprint
from scoresde.output.shared_work import Share
from scoresde.tasks.sample_request import SampleRequest
from scoresde.tasks.sampling import draw_samples


def timed(request: SampleRequest, out: Path) -> None:
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


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", default="digits-vp", show_default=True)
@click.option("--processes", "most", type=click.IntRange(2), default=2, show_default=True)
@click.option("--n", type=click.IntRange(1), default=512, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--nfe", type=click.IntRange(2), default=30, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True, help="Of one run.")
def main(
    checkpoint: str, most: int, n: int, batch: int, nfe: int, repeats: int, out: Path | None
) -> None:
    """Print the least seconds of 1 and of several processes, and their ratio."""
    request = SampleRequest(checkpoint, n=n, batch=batch, sampler="ddim", nfe=nfe)
    if out is not None:
        timed(request, out)
        return
    print_header()
    words = [f"--checkpoint={checkpoint}", f"--n={n}", f"--batch={batch}", f"--nfe={nfe}"]
    sizes, contents = (1, most), set()
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(repeats):
            for size in sizes:
                place = Path(folder) / f"{size}-{i}"
                seconds[size].append(run(size, words, place))
                contents.add(file_fingerprint(place / "samples.npz"))
    least = {size: min(times) for size, times in seconds.items()}
    print(f"{checkpoint}, ddim, {nfe} evaluations, {n} samples in batches of {batch}")
    print("processes   least seconds   all runs                  times as fast")
    for size in sizes:
        runs = " ".join(f"{value:.2f}" for value in seconds[size])
        print(f"{size:9d}   {least[size]:13.2f}   {runs:24s}  {least[1] / least[size]:13.2f}")
    print("the bytes of all runs are " + ("equal" if len(contents) == 1 else "DIFFERENT"))


if __name__ == "__main__":
    main()
