"""Memory and time of the commands on a data file larger than memory.

    python benchmarks/large_data.py --gigabytes 5

It writes two `.npy` files of 8-bit images of 3×32×32, a small one (5 MB) and a large one, and runs
each command on both. `--place` is where the files are; they are removed at the end.

While a command runs, /proc/PID/smaps of all its processes is read ten times a second, so that the
script runs on Linux only. `anonymous` is the largest sum of memory that is no file's; what several
processes share counts once. `pages` is the largest sum of the data file's pages that they have
mapped; the system takes such pages back when it needs memory. `needs` is what the large file adds
to both. `computed` is the processor time of all processes, which other programs hardly change, and
`seconds` is what a user waits. The large file was written just before, so that it may still be in
the system's cache when it is read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from script import print_header

SHAPE = (3, 32, 32)
BLOCK = 16_384  # different images; the file repeats them
SMALL = 5e6
CONFIG = """
[data]
name = "{data}"
workers = {workers}
[sde]
kind = "vp"
[net]
kind = "unet"
channels = 16
multipliers = [1, 2]
attention = []
[preconditioning]
target = "edm"
sigma_data = 0.5
[train]
steps = 8
batch = 32
warmup = 1
cooldown = 4
learning_rate = 1e-3
"""
COMMANDS = {
    "train": ("train", "--config", "{config}", "--out", "{out}"),
    "train, 2 workers": ("train", "--config", "{config2}", "--out", "{out}"),
    "likelihood": ("likelihood", "--n", "64", "--steps", "2", "--nodes", "1"),
    "bench": ("bench", "--samplers", "ddim", "--nfe", "4", "--n", "64", "--seeds", "0"),
}
ON_A_CHECKPOINT = ("--checkpoint", "{checkpoint}", "--data", "{data}", "--out", "{out}")


class Cost(NamedTuple):
    """Seconds, processor seconds, and megabytes at the peak."""

    seconds: float
    computed: float
    anonymous: float
    pages: float


def write_images(path: Path, size: float) -> None:
    """A file of about `size` bytes of random 8-bit images."""
    n = max(BLOCK // 16, round(size / np.prod(SHAPE)))
    block = np.random.default_rng(0).integers(0, 256, (min(n, BLOCK), *SHAPE), dtype=np.uint8)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, *SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, n, len(block)):
            file.write(memoryview(block[: n - first]))
        file.flush()
        os.fsync(file.fileno())


def measured(command: list[str], data: Path) -> Cost:
    """Run a command, and sample the memory of its processes until it ends."""
    began, peaks = time.perf_counter(), np.zeros(2)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peaks = np.maximum(peaks, _memory(process.pid, str(data)))
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise click.ClickException(f"{' '.join(command)}\n{said.read()}")
    return Cost(seconds, used.ru_utime + used.ru_stime, *peaks)


def _memory(pid: int, data: str) -> np.ndarray:
    """Megabytes of a process and its children: anonymous, and pages of the data file."""
    anonymous, pages, ours = 0, 0, False
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss_Anon:"):
                anonymous = int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
            if not line.split(maxsplit=1)[0].endswith(":"):  # a mapping: addresses … its file
                ours = line.endswith(data)
            elif ours and line.startswith("Rss:"):
                pages += int(line.split()[1])
    except OSError:  # the process has just ended
        return np.zeros(2)
    own = np.array([anonymous, pages]) * 1024 / 1e6
    return own + sum((_memory(int(child), data) for child in children), np.zeros(2))


def run(name: str, folder: Path, data: Path, checkpoint: Path) -> Cost:
    """One command on one file, in a folder that is removed."""
    words, out = COMMANDS[name], folder / "out"
    if words[0] != "train":
        words = (*words, *ON_A_CHECKPOINT)
    texts = {"data": data, "out": out, "checkpoint": checkpoint}
    for key, workers in (("config", 0), ("config2", 2)):
        texts[key] = folder / f"{key}.toml"
        texts[key].write_text(CONFIG.format(data=data, workers=workers), encoding="utf-8")
    program = [sys.executable, "-c", "from scoresde_cli.main import main; main()"]
    cost = measured([*program, *(word.format(**texts) for word in words)], data)
    if words[0] == "train":
        shutil.copy(out / "checkpoint.safetensors", checkpoint)
    shutil.rmtree(out)
    return cost


@click.command(help=__doc__.partition("\n")[0])
@click.option("--gigabytes", type=click.FloatRange(0.6), default=5, show_default=True)
@click.option("--place", type=click.Path(path_type=Path), help="Default: the system's.")
def main(gigabytes: float, place: Path | None) -> None:
    """Print the table."""
    print_header("numpy")
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        files = {"small": SMALL, "large": gigabytes * 1e9}
        for file, size in files.items():
            write_images(folder / f"{file}.npy", size)
        print(f"{gigabytes:g} GB beside {SMALL / 1e6:g} MB; seconds, and megabytes at the peak\n")
        heads = f"{'command':18s} {'file':6s} {'seconds':>8s} {'computed':>9s} "
        print(heads + f"{'anonymous':>10s} {'pages':>6s}  needs")
        for command in COMMANDS:
            costs = []
            for file in files:
                data, checkpoint = folder / f"{file}.npy", folder / "checkpoint.safetensors"
                costs.append(cost := run(command, folder, data, checkpoint))
                both = cost.anonymous + cost.pages - costs[0].anonymous - costs[0].pages
                times = f"{cost.seconds:8.1f} {cost.computed:9.1f}"
                row = f"{command:18s} {file:6s} {times} {cost.anonymous:10.0f} {cost.pages:6.0f}"
                print(f"{row} {both:6.0f}" if len(costs) > 1 else row, flush=True)


if __name__ == "__main__":
    main()
