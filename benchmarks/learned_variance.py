"""DDPM's fixed variances and a learned one, by bound and by samples, at full and at few steps.

    python benchmarks/learned_variance.py --seed 0 --seed 1

Two small DDPMs are trained on the 8×8 digits for each seed, at equal steps, data and noise, with
the linear table of 1,000 β: `simple` with L_simple, and `hybrid` with L_hybrid and 2C outputs
(Nichol & Dhariwal 2021, arXiv:2102.09672). Both are evaluated on the whole table and on ladders
of 50 and 25 of its times at equal distances, with the averaged weights.

bits/dim is the bound `DDPMVLB` of 128 test images, which are dequantized as in the training and
taken as continuous data: with 17 levels, the first time of the table is far below the width of a
cell, and the bound of the levels themselves would measure nothing but this. Noise and times are the
same in every row. The variance "fitted" is the best number for each step, from 128 training images;
no sampler takes it. MMD² is that of KID's kernel between 400 samples of the ancestral sampler and
the training images, in features of digits. An error after ± is that over the seeds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import click
import torch
from script import print_header
from torch import Tensor

import scoresde
from scoresde import grid
from scoresde._philox import uniforms
from scoresde.data import Dataset, load_dataset
from scoresde.ema import EMA
from scoresde.likelihood import DDPMVLB, optimal_variances
from scoresde.metrics import load_features, mmd2
from scoresde.names.config import Config
from scoresde.score import ScoreModel
from scoresde.train import Training, make_optimizer

NET = {"kind": "ddpm_unet", "channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
TRAIN = {"batch": 64, "learning_rate": 1e-3, "warmup": 100, "ema_decay": 0.998}
LADDERS = (1000, 50, 25)
DRAWN = (50, 25)


def trained(data: Dataset, learned: bool, steps: int, seed: int) -> ScoreModel:
    """The model with its averaged weights."""
    values = {
        "data": {"name": "digits"},
        "sde": {"kind": "tabulated", "betas": "linear:steps=1000"},
        "net": {**NET, "learned_variance": learned},
        "preconditioning": {"target": "eps", "label": "index", "scale_input": False},
        "objective": {"times": "ladder"},
        "train": {**TRAIN, "steps": steps, "cooldown": steps // 2, "seed": seed},
    }
    config = Config.from_dict(values)
    model = config.build_model(data.spec)
    ema = EMA(model.net, config.train.ema_decay)
    training = Training(model, data, config.objective, config.train)
    for _ in training.steps(make_optimizer(model.net)):
        ema.update(model.net)
    model.net.load_state_dict(ema.averages)
    return model


def dequantized(data: Dataset) -> Tensor:
    """Images at the model's scale, uniform in their cells, always the same."""
    u = uniforms(0, range(len(data)), "training uniform", math.prod(data.spec.shape))
    return data.spec.dequantize(data.x, u.reshape(data.x.shape)).float()


def times(model: ScoreModel, n: int) -> Tensor:
    """n times of the model's ladder at equal distances, the first and the last one included."""
    return grid.snapped(model.sde, grid.uniform(model.sde, n - 1, model.t_least))


def bound(model: ScoreModel, variance: str, n: int, train: Dataset, test: Dataset) -> float:
    """Bits/dim of the test images under the chain of n steps."""
    ts = times(model, n)
    x, whole = dequantized(test)[:128], n > 50
    if variance == "fitted":
        if whole:
            return math.nan  # at many steps it takes many evaluations, and gains little
        fitting = DDPMVLB(ts, draws=1)
        variance = optimal_variances(model, dequantized(train)[:128], fitting, seed=1)
    method = DDPMVLB(ts, variance=variance, strata=50 if whole else None, draws=1)
    found = scoresde.log_likelihood(model, x, method, seed=0)
    nats = -float(found.log_prob.mean()) / math.prod(test.spec.shape)
    return nats / math.log(2) + test.spec.bits_offset


def distance(model: ScoreModel, variance: str, n: int, train: Dataset) -> float:
    """1000 MMD² of samples with n evaluations to the training images."""
    if variance == "fitted":
        return math.nan
    sampler, spec = scoresde.Ancestral(variance), train.spec
    shape = (400, *spec.shape)
    samples = scoresde.sample(model, sampler, times(model, n), shape=shape, seed=0).x
    features = load_features("digits")
    rows = (spec.encode(spec.to_levels(samples)), spec.encode(train.x))
    return 1000 * mmd2(*(features(x.float()) for x in rows)).value


def with_error(values: Sequence[float]) -> str:
    """Mean ± standard error over the seeds."""
    if math.isnan(values[0]):
        return f"{'–':>18}"
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):9.3f} ± {error:.3f}".rjust(18)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--steps", type=int, default=2000, show_default=True, help="Steps of a training.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1), show_default=True)
def main(steps: int, seeds: tuple[int, ...]) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print_header()
    data, test = load_dataset("digits"), load_dataset("digits", split="test")
    data = replace(data, labels=None, spec=replace(data.spec, classes=None, class_names=None))
    titles = [f"bits/dim, {n}" for n in LADDERS] + [f"1000 MMD², {n}" for n in DRAWN]
    print(f"{steps} steps of training, seeds {', '.join(map(str, seeds))}\n")
    print(f"{'training':10}{'variance':12}" + "".join(f"{title:>18}" for title in titles))
    for name, learned in (("simple", False), ("hybrid", True)):
        began = time.perf_counter()
        models = [trained(data, learned, steps, seed) for seed in seeds]
        seconds = (time.perf_counter() - began) / len(seeds)
        for variance in ("beta", "beta_tilde", "fitted", *["learned"] * learned):
            bits = ([bound(model, variance, n, data, test) for model in models] for n in LADDERS)
            far = ([distance(model, variance, n, data) for model in models] for n in DRAWN)
            cells = "".join(with_error(values) for values in (*bits, *far))
            print(f"{name:10}{variance:12}{cells}", flush=True)
        print(f"{'':10}{seconds:.0f} s for a training", flush=True)


if __name__ == "__main__":
    main()
