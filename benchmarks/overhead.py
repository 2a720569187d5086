"""What a sampler costs beside the network: sampler time − time inside the model, over the latter.

python benchmarks/overhead.py --checkpoint digits-vp --n 64
"""

from __future__ import annotations

import argparse
import platform
import sys
import time

import torch
from torch import Tensor

import scoresde
from scoresde.noise import SampleNoise
from scoresde.registry import parse_sampler
from scoresde.score import ScoreModel, Time

SAMPLERS = ("ddim", "dpmpp-2m", "heun", "ancestral", "euler-maruyama", "pc", "rk4")


class Timed(ScoreModel):
    """A model that adds up the seconds spent inside another one."""

    def __init__(self, model: ScoreModel) -> None:
        super().__init__(model.sde)
        self.inner = model
        self.seconds = 0.0

    def _timed(self, name: str, x: Tensor, t: Time) -> Tensor:
        began = time.perf_counter()
        out = getattr(self.inner, name)(x, t)
        self.seconds += time.perf_counter() - began
        return out

    def eps(self, x: Tensor, t: Time) -> Tensor:
        """The model's ε."""
        return self._timed("eps", x, t)

    def x0(self, x: Tensor, t: Time) -> Tensor:
        """The model's x0."""
        return self._timed("x0", x, t)


def run(model: ScoreModel, text: str, shape: tuple[int, ...], steps: int) -> tuple[float, float]:
    """Seconds of the whole run and inside the model, the best of three."""
    ts = scoresde.grid.log_snr(model.sde, steps)
    nodes = model.sde.nodes(ts[:1])
    best = (float("inf"), 0.0)
    with torch.no_grad():
        for _ in range(3):
            timed, noise = Timed(model), SampleNoise(0, range(shape[0]))
            x = noise.prior(shape).float() * nodes[0].sigma
            began = time.perf_counter()
            parse_sampler(text).sampler.run(timed, x, ts, noise)
            best = min(best, (time.perf_counter() - began, timed.seconds))
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="digits-vp")
    parser.add_argument("--n", type=int, default=64, help="batch size")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = scoresde.load(options.checkpoint)
    shape = (options.n, *checkpoint.data.shape)
    free = scoresde.FunctionScore(checkpoint.model.sde, lambda x, t: x)
    print("command:", "python", *sys.argv)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, CPU, 1 thread, seed 0")
    print(f"{options.checkpoint}, batch {shape}, {options.steps} steps, best of 3 runs")
    print(f"{'sampler':18s} {'overhead':>9s}   {'µs/step beside a free network':>30s}")
    for text in SAMPLERS:
        whole, inside = run(checkpoint.model, text, shape, options.steps)
        free_whole, free_inside = run(free, text, shape, options.steps)
        step = 1e6 * (free_whole - free_inside) / options.steps
        print(f"{text:18s} {(whole - inside) / inside:9.2%}   {step:30.1f}")


if __name__ == "__main__":
    main()
