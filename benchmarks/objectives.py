"""Training objectives compared at equal steps, data, noise and initial weights.

    python benchmarks/objectives.py --data digits --objective simple --seed 0 --seed 1
    python benchmarks/objectives.py --data mixture

Each row of the table trains one small network per seed and prints means over the seeds with their
standard errors.

digits: a U-Net of 16 channels on the 8×8 digits. The columns are the variational bound in
bits/dim of the 297 test images (`vlb-continuous`, the same times and noise for every row) and MMD²
with KID's kernel between 512 samples and the training images, in features of digits.

mixture: an MLP on a random mixture of 8 Gaussians in 8 dimensions. The exact ε* is known. The
columns are the gap of the variational bound, ∫ E|ε̂ − ε*|² dλ in nats, MMD² with a Gaussian kernel
between 2,000 samples and 2,000 fresh data, and the root mean square distance between these samples
and those of the exact score from the same x_T.

Samples are those of the default sampler with 20 evaluations, with the averaged weights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import click
import torch
from objective_candidates import P2, FirstMoment, Uncertainty
from script import print_header
from torch import Tensor

import scoresde
from scoresde.data import Dataset, DataSpec, load_dataset
from scoresde.ema import EMA
from scoresde.exact import GaussianMixture
from scoresde.likelihood.vlb.bound import ContinuousVLB
from scoresde.loss import Objective
from scoresde.metrics import GaussianKernel, load_features, mmd2
from scoresde.names.config import Config
from scoresde.score import ScoreModel
from scoresde.sde import VP
from scoresde.train import Training, make_optimizer

T_MIN = 1e-3
COLUMNS = {
    "digits": ("bound, bits/dim", "1000 MMD²"),
    "mixture": ("gap, nats", "1000 MMD²", "distance"),
}
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "simple": lambda **k: Objective("simple", "uniform", **k),
    "simple, log_snr": lambda **k: Objective("simple", "log_snr", **k),
    "likelihood": lambda **k: Objective("likelihood", "log_snr", **k),
    "min_snr": lambda **k: Objective("min_snr", "uniform", **k),
    "edm": lambda **k: Objective("edm", "log_normal", **k),
    "v": lambda **k: Objective("edm", "uniform", **k | {"sigma_data": 1.0}),
    "p2 0.5": lambda **k: P2(power=0.5, **k),
    "p2 1": lambda **k: P2(power=1.0, **k),
    "uncertainty": lambda **k: Uncertainty(**k),
    "uncertainty, log_normal": lambda **k: Uncertainty("simple", "log_normal", **k),
    "simple, second_moment": lambda **k: Objective("simple", "second_moment", **k),
    "likelihood, second_moment": lambda **k: Objective("likelihood", "second_moment", **k),
    "edm, second_moment": lambda **k: Objective("edm", "second_moment", **k),
    "simple, first moment": lambda **k: FirstMoment("simple", "second_moment", **k),
    "likelihood, first moment": lambda **k: FirstMoment("likelihood", "second_moment", **k),
}

NETS = {
    "digits": {"kind": "unet", "channels": 16, "multipliers": [1, 2], "blocks": 1}
    | {"attention": [4], "dropout": 0.1},
    "mixture": {"kind": "mlp", "width": 64, "depth": 2},
}
SETTINGS = {
    "digits": {"steps": 800, "batch": 128, "learning_rate": 2e-3, "warmup": 100, "cooldown": 400},
    "mixture": {"steps": 1500, "batch": 128, "learning_rate": 2e-3, "warmup": 100}
    | {"cooldown": 800, "ema_decay": 0.995},
}
SIGMA_DATA = {"digits": 0.8, "mixture": 1.0}


def mixture() -> GaussianMixture:
    """8 Gaussians in 8 dimensions; every coordinate has a variance of about 1."""
    generator = torch.Generator().manual_seed(0)
    means = 0.9 * torch.randn(8, 8, generator=generator, dtype=torch.float64)
    variances = 0.3 * torch.rand(8, 8, generator=generator, dtype=torch.float64).square()
    return GaussianMixture(VP(), [1 / 8] * 8, means, variances)


def training_data(name: str) -> Dataset:
    """The data without labels."""
    if name == "digits":
        data = load_dataset("digits")
        return replace(data, labels=None, spec=replace(data.spec, classes=None, class_names=None))
    x = mixture().sample(10_000, seed=1).float()
    return Dataset("mixture", x, None, DataSpec((8,), float(x.min()), float(x.max())))


def settings_of(name: str, steps: int | None) -> dict[str, int | float]:
    """The settings of a training, whose parts keep their shares if it is shorter."""
    settings = SETTINGS[name]
    if steps is None:
        return settings
    parts = ("warmup", "cooldown")
    return settings | {
        "steps": steps,
        **{part: settings[part] * steps // settings["steps"] for part in parts},
    }


def trained(
    data: Dataset, name: str, objective: Objective, seed: int, steps: int | None = None
) -> ScoreModel:
    """The model with its averaged weights."""
    values = {
        "data": {"name": "digits"},
        "sde": {"kind": "vp"},
        "net": NETS[name],
        "preconditioning": {"target": "edm", "sigma_data": SIGMA_DATA[name]},
        "train": {**settings_of(name, steps), "seed": seed},
    }
    config = Config.from_dict(values)
    model = config.build_model(data.spec)
    ema = EMA(model.net, config.train.ema_decay)
    for _ in Training(model, data, objective, config.train).steps(make_optimizer(model.net)):
        ema.update(model.net)
    model.net.load_state_dict(ema.averages)
    return model


def digits_quality(model: ScoreModel) -> tuple[float, ...]:
    """Bound in bits/dim of the test images, and 1000 MMD² of samples to the training images."""
    data, test = training_data("digits"), load_dataset("digits", split="test")
    method = ContinuousVLB(data.spec, strata=32)
    bound = scoresde.log_likelihood(model, test.x, method, seed=0)
    samples = scoresde.sample(model, shape=(512, *data.spec.shape), nfe=20, seed=0).x
    features = load_features("digits")
    rows = (data.spec.encode(data.spec.to_levels(samples)), data.spec.encode(data.x))
    distance = mmd2(*(features(x.float()) for x in rows))
    return float(bound.bits_per_dim(data.spec).mean()), 1000 * distance.value


def mixture_quality(model: ScoreModel) -> tuple[float, ...]:
    """∫ E|ε̂ − ε*|² dλ in nats down to t = 1e-3, 1000 MMD² to fresh data, distance of samples."""
    exact, n = mixture(), 10_000
    sde, x0 = exact.sde, exact.sample(n, seed=2)
    first, last = (node.lam for node in sde.nodes([1.0, T_MIN]))
    lam = first + (torch.arange(n, dtype=torch.float64) + 0.5) / n * (last - first)
    t = sde.t_of_lam(lam).clamp(max=1.0)
    generator = torch.Generator().manual_seed(3)
    x_t = sde.perturb(x0, t, torch.randn(x0.shape, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        error = (model.eps(x_t, t) - exact.eps(x_t, t)).square().sum(1).mean()
    samples = scoresde.sample(model, shape=(2000, 8), nfe=20, seed=0).x
    fresh: Tensor = exact.sample(2000, seed=4)
    distance = mmd2(samples.double(), fresh, GaussianKernel.median(fresh))
    same_noise = scoresde.sample(exact, shape=(2000, 8), nfe=20, seed=0).x
    apart = (samples - same_noise).square().mean().sqrt()
    return float(error) * (last - first), 1000 * distance.value, float(apart)


def with_error(values: Sequence[float]) -> str:
    """Mean ± standard error over seeds."""
    mean = statistics.mean(values)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean:9.4f} ± {error:.4f}"


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", "name", type=click.Choice(list(NETS)), default="mixture", show_default=True)
@click.option(
    "--objective", "names", multiple=True, type=click.Choice(list(OBJECTIVES)), help="Default: all."
)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Fewer training steps, for a trial.")
def main(name: str, names: tuple[str, ...], seeds: tuple[int, ...], steps: int | None) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print_header()
    print(f"seeds {', '.join(map(str, seeds))}; the values of single seeds follow each row\n")
    print(f"{'objective':26}" + "".join(f"{title:>19}" for title in COLUMNS[name]))
    data = training_data(name)
    measure = {"digits": digits_quality, "mixture": mixture_quality}[name]
    for row in names or OBJECTIVES:
        found = []
        for seed in seeds:
            objective = OBJECTIVES[row](t_min=T_MIN, sigma_data=SIGMA_DATA[name])
            found.append(measure(trained(data, name, objective, seed, steps)))
        means = "".join(f"{with_error(column):>19}" for column in zip(*found, strict=True))
        single = "   ".join(" ".join(f"{value:.4f}" for value in values) for values in found)
        print(f"{row:26}{means}   | {single}", flush=True)


if __name__ == "__main__":
    main()
