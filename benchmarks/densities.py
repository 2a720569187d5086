"""Test log-likelihood of score models in nats, beside exact entropies and classical estimators.

    python benchmarks/densities.py

Three kinds of rows: tables of scikit-learn, in units of each column's standard deviation over the
whole table; patches of 8×8 pixels of scikit-image's pictures, in units of the grey scale [0, 1], a
stand-in for BSDS300; and the sets in the plane, whose exact log-density is known.

Score models are the MLP of the config rows_vp, wider for patches, without dropout where rows are
many. The tables are small, so that networks overfit: of 10 moments of the training, the averaged
weights with the best log p on a validation split are kept. The same split chooses the mixture's
number of Gaussians and the bandwidth of the kernels. The tables are divided into five folds, of
which three train, one validates and one tests, in turn.

The 95 % interval holds the finite test set, the probes, the solver and rounding. It does not hold
that other train rows would give another model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import click
import numpy as np
import torch
from density_data import TABLES, Part, folds, patches, table
from density_fits import Mean, fit_network, gaussian, kernels, mixture, network_mean
from script import print_header

from scoresde.data import DENSITIES
from scoresde.names.config import Config, load_config

PATCHES = "patches"
STEPS = {"table": 800, PATCHES: 2000, "plane": 6000}
COMPONENTS = {"table": (1, 2, 3, 5), PATCHES: (30,), "plane": (8, 48)}
RIDGES = {"table": (1e-3, 1e-2, 1e-1), PATCHES: (1e-6,), "plane": (1e-6,)}
BANDWIDTHS = np.geomspace(0.03, 1, 12)
KERNELS = 10_000  # rows with a kernel, at most
PLANE = 4000  # test points of a set in the plane
MEASURED = 64  # rows whose solver and rounding error is measured, for large test sets


def plane(name: str, seed: int) -> Part:
    """Points of a set in the plane, from independent streams of random numbers."""
    counts = {"train": 20_000, "validation": 1000, "test": PLANE}
    draw = DENSITIES[name].sample
    parts = {
        part: draw(np.random.default_rng([seed, i]), n)
        for i, (part, n) in enumerate(counts.items())
    }
    return Part(**parts)


def settings(config: Config, kind: str, share: float) -> Config:
    """The config for one kind of rows: more steps, and no dropout, where rows are many."""
    steps = max(2, round(share * STEPS[kind]))
    net, objective, batch = config.net, config.objective, config.train.batch
    if kind != "table":
        net, batch = net | {"dropout": 0.0}, 256
        # Equal shares of λ: uniform times see little of noise below 0.1, and fine detail is not
        # learned. On few rows this weighting overfits far sooner.
        objective = replace(objective, weighting="likelihood", times="log_snr", t_min=1e-5)
    if kind == PATCHES:
        net = net | {"width": 256, "depth": 4}
    settings = {"steps": steps, "warmup": steps // 20, "cooldown": steps // 2, "batch": batch}
    train = replace(config.train, **settings, validation=0.0)
    return replace(config, net=net, objective=objective, train=train)


def measured(parts: list[Part], config: Config, kind: str, share: float) -> tuple[list[Mean], list]:
    """Means of the network, the Gaussian, the mixture and the kernels; the fitted networks."""
    fits = [fit_network(part, settings(config, kind, share)) for part in parts]
    few = len(parts[0].test) if kind == "table" else MEASURED
    budgets = [fit.budgets(part.test, few) for fit, part in zip(fits, parts, strict=True)]
    steps = sorted(fit.step for fit in fits)
    note = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} … {steps[-1]}"
    dims = parts[0].train.shape[1]
    found = [network_mean(budgets, dims, note)]
    for estimate in (
        gaussian,
        lambda part: mixture(part, COMPONENTS[kind], RIDGES[kind], KERNELS),
        lambda part: kernels(part, BANDWIDTHS, KERNELS),
    ):
        found.append(Mean.of(np.concatenate([estimate(part) for part in parts])))
    return found, budgets


def rows_of(name: str, parts: list[Part]) -> str:
    """The first cells of a row: name, dimension, train and test rows."""
    tested = sum(len(part.test) for part in parts)
    return f"| {name} | {parts[0].train.shape[1]} | {len(parts[0].train):,} | {tested:,} |"


def in_the_plane(name: str, config: Config, seed: int, share: float) -> str:
    """A row of a set whose log-density is known."""
    parts = [plane(name, seed)]
    known = DENSITIES[name]
    found, budgets = measured(parts, config, "plane", share)
    exact = known.log_prob(torch.as_tensor(parts[0].test)).numpy()
    model = budgets[0][0].log_prob.numpy()
    # The same points, so that most of the finite set's error cancels in the difference.
    systematic = found[0].half_width - Mean.of(model).half_width
    loss = Mean.of(exact - model, systematic=max(systematic, 0.0))
    cells = [
        f"{-known.entropy:.4f}",
        Mean.of(exact),
        found[0],
        f"{loss.value:.3f} ± {loss.half_width:.3f}",
    ]
    return f"| {name} | " + " | ".join(map(str, [*cells, found[2], found[3]])) + " |"


def tables_and_patches(names: tuple[str, ...], seed: int) -> Iterator[tuple[str, str, list[Part]]]:
    """Name, kind and division of the data without a known density."""
    for name in TABLES:
        if name in names:
            yield name, "table", list(folds(table(name), seed))
    if PATCHES in names:
        yield PATCHES, PATCHES, [patches(160_000, 4000, seed)]


CHOICES = (*TABLES, PATCHES, *DENSITIES)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", "names", type=click.Choice(CHOICES), multiple=True, default=CHOICES)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--share", default=1.0, show_default=True, help="Share of the training steps.")
def main(names: tuple[str, ...], seed: int, share: float) -> None:
    """Print both tables."""
    print_header("scikit-learn", "scikit-image", seed=seed)
    for module, package in (("sklearn", "scikit-learn"), ("skimage", "scikit-image")):
        if importlib.util.find_spec(module) is None:
            raise click.ClickException(f"{package} is needed: pip install 'scoresde[densities]'")
    torch.set_num_threads(1)
    config = load_config("rows_vp")
    config = replace(config, train=replace(config.train, seed=seed))
    print("\nMean test log-likelihood in nats, with the half-width of its 95 % interval\n")
    print("| rows | D | train | test | score model | Gaussian | mixture | kernels |")
    print("|" + 8 * " --- |")
    for name, kind, parts in tables_and_patches(names, seed):
        found, _ = measured(parts, config, kind, share)
        print(rows_of(name, parts), " | ".join(map(str, found)), "|", flush=True)
    print(
        f"\nThe same in the plane, 20,000 train and {PLANE:,} test points; less is the mean of\n"
        "log p − log p of the score model over these points\n"
    )
    print("| set | −entropy | log p of the test points | score model | less | mixture | kernels |")
    print("|" + 7 * " --- |")
    for name in DENSITIES:
        if name in names:
            print(in_the_plane(name, config, seed, share), flush=True)


if __name__ == "__main__":
    main()
