"""Discrete labels under solvers that go through all times: what each treatment of labels costs.

    python benchmarks/labels.py --checkpoint runs/labels/checkpoint.safetensors

The checkpoint was trained at the discrete times of its SDE, with preconditioning.label = "index".
Three treatments are compared with the solution of the probability-flow ODE with interpolated
labels, from the same x_T (dopri8 at 1e-6). The error is the root mean square over pixels:

- interpolated: the network gets the label N t − 1, also between the integers that it knows
- ladder: the grid is moved to the discrete times, as by `--grid log_snr:ladder=true`
- rounded: the grid stays, and the label is rounded, so that it does not fit the state's noise

The last line says what interpolation costs the network itself: the denoising error at times between
two discrete ones, over the mean of the errors at these two, for the same data and noise.
"""

from __future__ import annotations

import copy

import click
import torch
from script import print_header
from torch import Tensor, nn

import scoresde
from scoresde.data import load_dataset
from scoresde.grid import GRIDS, LadderError, snapped, uniform
from scoresde.metrics import Estimate, paired_rmse
from scoresde.names.samplers import parse_sampler
from scoresde.samplers import ProbabilityFlowODE, sample
from scoresde.score import NetworkScore, ScoreModel

PAIRS = 24  # pairs of neighbouring discrete times for the denoising error


class RoundedLabels(nn.Module):
    """A network that rounds its label."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.condition = net, net.condition

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The network's output at the nearest integer label."""
        return self.net(x, label.round())


def rounding(model: NetworkScore) -> NetworkScore:
    """The model with rounded labels at any time, which `label = "rounded_index"` would refuse."""
    return NetworkScore(RoundedLabels(copy.deepcopy(model.net)), model.sde, model.preconditioning)


def between(model: ScoreModel, data: Tensor) -> Estimate:
    """Mean ratio of denoising errors: between two discrete times over at these two."""
    levels = model.sde.levels
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    first = torch.linspace(1, levels - 1, PAIRS).round().unique()

    def error(t: Tensor) -> float:
        x_t = model.sde.perturb(data, t, noise)
        return float((model.eps(x_t, t) - noise).square().mean())

    at = [[error((k + shift).double() / levels) for shift in (0, 0.5, 1)] for k in first]
    ratios = torch.tensor([middle / (0.5 * (low + high)) for low, middle, high in at])
    spread = float(ratios.std()) / len(ratios) ** 0.5
    return Estimate(float(ratios.mean()), spread, (len(ratios),), "ratio")


@click.command(help=__doc__.partition("\n")[0])
@click.option("--checkpoint", required=True, help="A checkpoint whose label is an index.")
@click.option("--sampler", "samplers", multiple=True, default=("ddim", "dpmpp-2m", "heun"))
@click.option("--grid", type=click.Choice(sorted(GRIDS)), default="log_snr", show_default=True)
@click.option("--steps", type=int, multiple=True, default=(5, 10, 20, 40), help="Steps.")
@click.option("--n", default=64, show_default=True, help="Samples.")
@torch.no_grad()
def main(
    checkpoint: str, samplers: tuple[str, ...], grid: str, steps: tuple[int, ...], n: int
) -> None:
    """Print the error of each treatment."""
    print_header()
    loaded = scoresde.load(checkpoint)
    model = loaded.model
    t_min = model.t_least
    options = {"shape": (n, *loaded.data.shape), "seed": 0}
    ode = ProbabilityFlowODE("dopri8", 1e-6, 1e-6)
    exact = sample(model, ode, uniform(model.sde, 1, t_min), dtype=torch.float64, **options).x
    print("| sampler | steps | interpolated | ladder | rounded |\n| --- | --- | --- | --- | --- |")
    for name in samplers:
        for count in steps:
            ts = GRIDS[grid](model.sde, count, t_min)
            try:
                ladder = snapped(model.sde, ts)
            except LadderError:
                ladder = None
            cells = []
            for used, times in ((model, ts), (model, ladder), (rounding(model), ts)):
                if times is None:
                    cells.append("more steps than levels")
                    continue
                x = sample(used, parse_sampler(name), times, **options).x
                cells.append(str(paired_rmse(x.double(), exact)))
            print("| " + " | ".join([f"`{name}`", str(count), *cells]) + " |", flush=True)
    data = loaded.data.encode(load_dataset(loaded.data.name, "test").x[:n])
    print(f"denoising error between discrete times over at them: {between(model, data)}")


if __name__ == "__main__":
    main()
