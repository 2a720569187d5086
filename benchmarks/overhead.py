"""The time of a sampler outside the network.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --checkpoint digits-vp --n 16

It prints two tables. Each entry is the least time of several runs in this process, on one thread:

1. Overhead on a trained network: (seconds of `sample` − seconds inside the network's forward)
   over seconds inside it. Preconditioning, checks, nodes and the draw of x_T count as overhead.
2. Microseconds per evaluation of a network that returns a stored tensor: for the sampler's loop of
   50 steps with its set-up, and for the loop of diffusers' scheduler for the same method, if it is
   installed. Our loop checks every output for NaN and counts it; diffusers' loop does not.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click
import torch
from script import least_seconds, print_header
from torch import Tensor, nn

import scoresde
from scoresde.grid import log_snr
from scoresde.names.samplers import parse_sampler
from scoresde.noise import SampleNoise
from scoresde.samplers import Sampler, sample
from scoresde.score import FunctionScore, NetworkScore, ScoreModel, count_nfe
from scoresde.sde import VP

SAMPLERS = (
    *("ddim", "dpmpp-2m", "dpmpp-3m", "unipc", "deis", "ipndm", "angular", "sa-solver:eta=0"),
    *("dpm-2", "heun", "ancestral", "euler-maruyama", "pc"),
)

# Ours, and the scheduler of diffusers for the same method.
PAIRS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ddim", "DDIM", {"clip_sample": False}),
    ("dpmpp-2m", "DPMSolverMultistep", {}),
    ("unipc:order=2", "UniPCMultistep", {}),
    # its DEIS interpolates ε in log(σ/α)
    ("exp-ab:order=2", "DEISMultistep", {}),
    ("heun", "HeunDiscrete", {}),
    ("dpm-2", "KDPM2Discrete", {}),
)
LOOP = 50
SHAPES = ((1, 4), (64, 1, 28, 28))
BETAS = {"beta_start": 1e-4, "beta_end": 0.02}


class Timed(nn.Module):
    """A network that adds up the seconds spent inside it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seconds = 0.0

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None) -> Tensor:
        """The network's output."""
        began = time.perf_counter()
        out = self.net(x, label, y)
        self.seconds += time.perf_counter() - began
        return out


def overhead(model: NetworkScore, text: str, shape: tuple[int, ...], steps: int) -> float:
    """Seconds outside over seconds inside the network, the least of three runs."""
    timed = Timed(model.net)
    wrapped = NetworkScore(timed, model.sde, model.preconditioning)
    sampler, ratios = parse_sampler(text), []
    for _ in range(3):
        timed.seconds = 0.0
        began = time.perf_counter()
        sample(wrapped, sampler, log_snr(model.sde, steps), shape, seed=0, denoise=False)
        ratios.append((time.perf_counter() - began) / timed.seconds - 1)
    return min(ratios)


@torch.no_grad()
def ours(model: ScoreModel, sampler: Sampler, stored: Tensor) -> int:
    """Run the loop of one of our samplers on a new grid; return its evaluations."""
    ts = log_snr(model.sde, LOOP)
    with count_nfe(model) as counted:
        sampler.run(model, stored, ts, SampleNoise(0, range(len(stored))))
    return counted.forward


@torch.no_grad()
def theirs(scheduler: Any, stored: Tensor) -> int:
    """Run a scheduler of diffusers on the stored output; return its evaluations."""
    scheduler.set_timesteps(LOOP)
    x = stored
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        x = scheduler.step(stored, t, x).prev_sample
    return len(scheduler.timesteps)


def microseconds(runs: Sequence[Callable[[], int]], repeats: int) -> list[float]:
    """Microseconds per evaluation of each run, the least of some repeats."""
    calls = [run() for run in runs]
    return [1e6 * s / n for s, n in zip(least_seconds(runs, repeats), calls, strict=True)]


def compare(pair: tuple[str, str, dict[str, Any]], shape: tuple[int, ...]) -> str:
    """A row of the second table."""
    text, family, options = pair
    stored = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = FunctionScore(VP(), lambda x, t: stored)
    sampler = parse_sampler(text)
    runs = [lambda: ours(model, sampler, stored)]
    if importlib.util.find_spec("diffusers"):
        import diffusers

        scheduler = getattr(diffusers, f"{family}Scheduler")(**BETAS, **options)
        runs.append(lambda: theirs(scheduler, stored))
    cost, *peer = microseconds(runs, 30)
    row = f"{text:18s} {shape!s:16s} {cost:9.1f}"
    return f"{row} {peer[0]:9.1f} {cost / peer[0]:6.2f}   {family}" if peer else row


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", default="fashion-mnist-vp", show_default=True)
@click.option("--n", type=click.IntRange(1), default=64, show_default=True, help="Batch size.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Of table 1.")
def main(checkpoint: str, n: int, steps: int) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    loaded = scoresde.load(checkpoint)
    shape = (n, *loaded.data.shape)
    print_header("diffusers")
    print(f"\n{checkpoint}, batch {shape}, {steps} steps")
    print(f"{'sampler':18s} overhead")
    for text in SAMPLERS:
        print(f"{text:18s} {overhead(loaded.model, text, shape, steps):8.2%}", flush=True)
    print(f"\nfree network, {LOOP} steps")
    print(f"{'sampler':18s} {'shape':16s} {'µs/NFE':>9s} {'theirs':>9s}  ratio")
    for shape in SHAPES:
        for pair in PAIRS:
            print(compare(pair, shape))


if __name__ == "__main__":
    main()
