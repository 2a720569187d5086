"""Which failures of samples do the feature spaces of a comparison see?

    python benchmarks/features.py --json out/features.json --figure out/features.png

Real data are changed in known ways, and `mmd2` and `frechet_distance` measure the changed data in
each feature space against a reference. An entry is z = (value − mean)/std, with mean and standard
deviation of the same distance over draws of unchanged data that are not in the reference. All
samples have n = 256. A z of 4 is seen without doubt; below 2 the failure is not seen.

The colour patches of 16×16 pixels are made here. On them two samplers run with 5 evaluations of a
score that behaves like a network: exact where it was trained, but limited in size elsewhere. DDIM's
samples are a little off, and Heun's are saturated noise.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import torch
import torch.nn.functional as F
from script import print_header, write
from torch import Tensor

from scoresde.comparison.quality import on_levels
from scoresde.data import DataSpec, load_dataset
from scoresde.exact import FiniteData
from scoresde.grid import log_snr
from scoresde.metrics import (
    CubicKernel,
    DescriptorFeatures,
    FeatureSpace,
    GaussianKernel,
    NetworkFeatures,
    PCAFeatures,
    efficientnet_file,
    frechet_distance,
    load_features,
    mmd2,
)
from scoresde.names.samplers import parse_sampler
from scoresde.output.figures import new_figure, png_bytes
from scoresde.samplers import sample
from scoresde.score import FunctionScore
from scoresde.sde import VP

N = 256
REFERENCE = 1000
DRAWS = 16  # of unchanged data
LARGEST_EPS = 1.5  # root mean square of what the score that behaves like a network gives
COLOUR = DataSpec((3, 16, 16), -1.0, 1.0, levels=256)
LEAST = 0.5  # z in the figure
COLOURS = {"pca32": "C0", "descriptors": "C1", "classifier": "C2", "efficientnet_lite0": "C3"}
TRAINED = 200  # patches on which this score is exact


class Case(NamedTuple):
    """Data with their failures: real rows, and a function from rows to changed rows by name.

    `classifier` names the data set whose shipped classifier is a feature space, too.
    """

    real: Tensor
    failures: Callable[[Tensor], dict[str, Tensor]]
    spec: DataSpec
    classifier: str | None = None


def draws(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def patches(n: int, seed: int) -> Tensor:
    """Smooth colour patches of 16×16 pixels in [-1, 1]."""
    coarse = torch.randn(n, 3, 4, 4, generator=draws(seed))
    return torch.tanh(F.interpolate(coarse, size=16, mode="bicubic", align_corners=False))


def few_steps(name: str, n: int, seed: int = 0) -> Tensor:
    """Patches drawn by ddim or heun with 5 evaluations of a score that behaves like a network."""
    exact = FiniteData(VP(), patches(TRAINED, 1))

    def eps(x: Tensor, t: Tensor) -> Tensor:
        found = exact.eps(x, t)
        size = found.flatten(1).square().mean(1).sqrt().reshape(-1, 1, 1, 1)
        return found / (size / LARGEST_EPS).clamp(min=1)

    ts = log_snr(exact.sde, {"ddim": 4, "heun": 2}[name], 1e-3)
    model, shape = FunctionScore(exact.sde, eps), (n, 3, 16, 16)
    found = sample(model, parse_sampler(name), ts, shape, seed=seed)
    if found.nfe != 5:
        raise RuntimeError(f"{name} took {found.nfe} evaluations, not 5")
    return found.x


def image_failures(x: Tensor) -> dict[str, Tensor]:
    """Images in [-1, 1] changed in known ways; all have as many rows as x."""
    noise, n = torch.randn(x.shape, generator=draws(1)), len(x)
    rows, columns = (torch.arange(k) for k in x.shape[2:])
    board = (rows[:, None] + columns) % 2 * 2.0 - 1
    kept = x[PCAFeatures.fit(x, 1)(x)[:, 0] > 0]
    chance = torch.rand(x.shape, generator=draws(2))
    shuffled = torch.randperm(x[0].numel(), generator=draws(3))
    return {
        "saturated noise": 4 * noise,
        "a quarter saturated noise": torch.where(chance[:, :1, :1, :1] < 0.25, 4 * noise, x),
        "noise of std 0.1": x + 0.1 * noise,
        "noise of std 0.03": x + 0.03 * noise,
        "blur 3×3": F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "one colour per image": x.mean((2, 3), keepdim=True).expand_as(x),
        "contrast 0.8": 0.8 * x,
        "brighter by 0.15": x + 0.15,
        "checkerboard 0.1": x + 0.1 * board,
        "2 % salt and pepper": torch.where(chance < 0.02, noise.sign(), x),
        "upside down": x.flip(2),
        "pixels in another order": x.flatten(1)[:, shuffled].reshape(x.shape),
        "half of the data missing": kept[torch.arange(n) % len(kept)],
        "16 images again and again": x[torch.arange(n) % 16],
    }


def patch_failures(x: Tensor) -> dict[str, Tensor]:
    """The failures of images, and what two samplers give."""
    drawn = {f"{name}, 5 evaluations": few_steps(name, len(x)) for name in ("ddim", "heun")}
    return drawn | image_failures(x)


def vector_failures(x: Tensor) -> dict[str, Tensor]:
    """Vectors changed in known ways; all have as many rows as x."""
    noise, (n, d) = torch.randn(x.shape, generator=draws(1)), x.shape
    std, mean, chance = x.std(0), x.mean(0), torch.rand(n, 1, generator=draws(2))
    orders = [torch.randperm(n, generator=draws(3 + j)) for j in range(d)]
    kept = x[x[:, 0] > x[:, 0].median()]
    return {
        "Gaussian of the same moments": mean + noise @ torch.linalg.cholesky(x.T.cov()).T,
        "coordinates independent": torch.stack([x[order, j] for j, order in enumerate(orders)], 1),
        "scale 0.8": mean + 0.8 * (x - mean),
        "shift by 0.2 std": x + 0.2 * std,
        "noise of 0.2 std": x + 0.2 * std * noise,
        "one point": mean.expand(n, d).clone(),
        "5 % outliers": torch.where(chance < 0.05, mean + 6 * std * noise, x),
        "half of the data missing": kept[torch.arange(n) % len(kept)],
        "16 points again and again": x[torch.arange(n) % 16],
    }


def ring(n: int) -> Tensor:
    """Points near a circle."""
    angle = 2 * math.pi * torch.rand(n, generator=draws(4))
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2, generator=draws(5))


def mixture(n: int, d: int = 6, k: int = 8) -> Tensor:
    """A mixture of Gaussians with covariances of their own."""
    generator = draws(6)
    means, maps = (torch.randn(k, d, *more, generator=generator) for more in ((), (d,)))
    part = torch.randint(k, (n,), generator=generator)
    noise = torch.randn(n, d, generator=generator)
    return 2 * means[part] + 0.5 * torch.einsum("nij,nj->ni", maps[part], noise)


def shipped(name: str) -> Case:
    """A data set of images; both splits are shuffled, because the digits have few test images."""
    both = [load_dataset(name, split) for split in ("train", "test")]
    x = torch.cat([data.x for data in both])
    x = x[torch.randperm(len(x), generator=draws(0))[: 2 * REFERENCE]]
    spec = both[0].spec
    return Case(spec.encode(x), image_failures, spec, name)


def vectors(x: Tensor) -> Case:
    """Vectors with their failures."""
    return Case(x, vector_failures, DataSpec((x.shape[1],), -1.0, 1.0))


CASES: dict[str, Callable[[], Case]] = {
    "digits": lambda: shipped("digits"),
    "fashion-mnist": lambda: shipped("fashion-mnist"),
    "colour patches": lambda: Case(patches(2 * REFERENCE, 0), patch_failures, COLOUR),
    "ring in 2-D": lambda: vectors(ring(2 * REFERENCE)),
    "mixture in 6-D": lambda: vectors(mixture(2 * REFERENCE)),
}


def feature_spaces(case: Case, reference: Tensor) -> dict[str, FeatureSpace]:
    """The spaces to compare, by name."""
    found: dict[str, FeatureSpace] = {
        "pca32": PCAFeatures.fit(reference, min(32, reference[0].numel())),
        "descriptors": DescriptorFeatures(reference),
    }
    if case.classifier:
        found["classifier"] = load_features(case.classifier)
    if reference.shape[1:2] == (3,) and reference.ndim == 4:
        try:
            found["efficientnet_lite0"] = NetworkFeatures("efficientnet_lite0", efficientnet_file())
        except ValueError as error:
            click.echo(f"left out: {error}")
    return found


def measured(space: FeatureSpace, reference: Tensor, real: Tensor, failures: dict) -> dict:
    """(z of MMD², z of the Fréchet distance) of each failure in one space."""
    rows, pool = space(reference), space(real)
    fitted = isinstance(space, DescriptorFeatures)
    kernel = GaussianKernel.median(rows) if fitted else CubicKernel()

    def distances(x: Tensor) -> Tensor:
        return torch.tensor([mmd2(x, rows, kernel).value, frechet_distance(x, rows).value])

    orders = [torch.randperm(len(pool), generator=draws(k))[:N] for k in range(DRAWS)]
    floor = torch.stack([distances(pool[order]) for order in orders])
    mean, std = floor.mean(0), floor.std(0)
    return {name: ((distances(space(x)) - mean) / std).tolist() for name, x in failures.items()}


def table_of(case: Case) -> dict[str, dict[str, tuple[float, float]]]:
    """z by feature space and failure."""
    real = on_levels(case.real, case.spec)
    reference, rest = real[:REFERENCE], real[REFERENCE:]
    failures = {n: on_levels(x, case.spec) for n, x in case.failures(rest[:N]).items()}
    spaces = feature_spaces(case, reference)
    return {name: measured(space, reference, rest, failures) for name, space in spaces.items()}


def shown(z: float) -> str:
    """z in at most six characters, with one decimal if it is small."""
    return "> 9999" if z > 9999 else f"{z:.1f}" if abs(z) < 10 else f"{z:.0f}"


def print_table(name: str, table: dict) -> None:
    """A line for each failure, two columns for each feature space."""
    failures = next(iter(table.values()))
    click.echo(f"\n{name:28s}" + "".join(f"{space:>22s}" for space in table))
    click.echo(" " * 28 + f"{'MMD²':>12s}{'Fréchet':>10s}" * len(table))
    for failure in failures:
        pairs = (table[space][failure] for space in table)
        click.echo(f"{failure:28s}" + "".join(f"{shown(a):>12s}{shown(b):>10s}" for a, b in pairs))


def picture(tables: dict) -> bytes:
    """A chart for each data set: z of each failure, on a logarithmic axis; 2 is the limit."""
    rows = math.ceil(len(tables) / 2)
    figure = new_figure(12, 4.2 * rows)
    entries = {}
    for place, (name, table) in enumerate(tables.items()):
        axes = figure.add_subplot(rows, 2, place + 1)
        for space, values in table.items():
            for metric, title in enumerate(("MMD²", "Fréchet")):
                colour = COLOURS[space]
                (drawn,) = axes.plot(
                    [max(pair[metric], LEAST) for pair in values.values()],
                    [k + 0.22 * (list(COLOURS).index(space) - 1) for k in range(len(values))],
                    "os"[metric],
                    **{"color": colour, "markerfacecolor": colour if metric else "none"},
                )
                entries[f"{space}, {title}"] = drawn
        axes.axvline(2, color="grey", lw=1)
        label = f"z, drawn at {LEAST:g} if it is less; left of the line: not seen"
        axes.set(xscale="log", xlabel=label, title=name)
        axes.set_yticks(range(len(values)), list(values), fontsize=8)
        axes.invert_yaxis()
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=len(entries) // 2)
    return png_bytes(figure)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", type=click.Choice(list(CASES)), multiple=True, help="All if not given.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write all z here.")
@click.option("--figure", "chart", type=click.Path(path_type=Path), help="Draw them, PNG.")
def main(data: tuple[str, ...], out: Path | None, chart: Path | None) -> None:
    """Print z of each failure in each feature space."""
    torch.set_num_threads(1)
    about, began, tables = print_header(), time.process_time(), {}
    for name in data or CASES:
        tables[name] = table_of(CASES[name]())
        print_table(name, tables[name])
    click.echo(f"\n{time.process_time() - began:.0f} s of one processor")
    if out:
        write(out, json.dumps({**about, "z": tables}, indent=1).encode())
    if chart:
        write(chart, picture(tables))


if __name__ == "__main__":
    main()
