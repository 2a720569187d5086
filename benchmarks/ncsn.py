"""NCSN: the overlap of its noise levels, and annealed Langevin sampling with several step sizes.

    scoresde train --config ncsn_digits --out runs/ncsn-digits
    python benchmarks/ncsn.py --run runs/ncsn-digits --figure out/ncsn.png

The model has a geometric ladder of noise levels, whose length is chosen by the overlap of
neighbouring levels (Song & Ermon 2020, arXiv:2006.09011, technique 2). The table compares samples
with the training images, after K Langevin steps at every level. The step size c = a/σ² is that of
their technique 4, and others. Each row has as many evaluations as the first one, or almost. The
figure shows the overlap against the number of levels, the way of some samples down the ladder, and
samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from script import print_header, write
from torch import Tensor

import scoresde
from scoresde import AnnealedLangevin, Checkpoint
from scoresde.comparison.quality import Quality
from scoresde.output.figures import new_figure, png_bytes, to_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 10  # samples of which the way is shown


def rows(model: Checkpoint, steps: int) -> Iterator[tuple[str, AnnealedLangevin, int]]:
    """What is compared: a name, the sampler, and the number of levels."""
    sde, levels = model.model.sde, model.config.objective.levels
    best = AnnealedLangevin.for_ratio(sde.ratio(levels), steps)
    yield "technique 4", best, levels
    for c in (0.1, 0.2, 1.0):
        yield "", AnnealedLangevin(steps, c), levels
    few = max(2, levels // 3)  # as many evaluations at fewer levels
    more = steps * levels // few
    yield "fewer levels", AnnealedLangevin.for_ratio(sde.ratio(few), more), few


def compare(model: Checkpoint, quality: Quality, n: int, steps: int, seed: int) -> Tensor:
    """Print the table; return the samples of its first row."""
    kept = None
    print(f"{'':<14}levels  overlap  steps      c   NFE            MMD²        Fréchet")
    for name, sampler, levels in rows(model, steps):
        sde = model.model.sde
        x = scoresde.sample(
            model.model, sampler, sde.ladder(levels), (n, *model.data.shape), seed=seed
        )
        kept = x.x if kept is None else kept
        about = f"{levels:6}{sde.overlap(levels, model.data.dims):9.2f}{sampler.steps:7}"
        print(f"{name:<14}{about}{sampler.step_size:7.3f}{x.nfe:6}  {in_words(quality, x.x)}")
    x = scoresde.sample(model.model, n=n, nfe=20, seed=seed)
    print(f"{'recommended':<14}{'':29}{x.nfe:6}  {in_words(quality, x.x)}")
    floor = quality.floor
    print(f"{'test digits':<49}  {distances(floor)}")
    return kept


def in_words(quality: Quality, x: Tensor) -> str:
    """The distances of samples to the training images."""
    return distances(quality.measure(x))


def distances(found: dict) -> str:
    """MMD² and Fréchet distance with their standard errors."""
    return "  ".join(
        f"{found[name].value:6.3f} ± {found[name].std_error:5.3f}" for name in ("mmd2", "frechet")
    )


def the_way_down(model: Checkpoint, sampler: AnnealedLangevin, seed: int) -> Tensor:
    """The states of some samples at every fourth level, each divided by √(σ² + 1)."""
    sde, states = model.model.sde, []

    def keep(done: int, t: float, x: Tensor) -> None:
        if done % 4 == 0:
            states.append(x / float(sde.sigma(t) ** 2 + 1) ** 0.5)

    ladder = sde.ladder(model.config.objective.levels)
    shape = (SHOWN, *model.data.shape)
    states.append(scoresde.sample(model.model, sampler, ladder, shape, seed=seed, on_step=keep).x)
    return torch.cat(states)


def draw_overlap(axes: Axes, model: Checkpoint) -> None:
    """Overlap of neighbours against the number of levels."""
    sde, dims, own = model.model.sde, model.data.dims, model.config.objective.levels
    counts = range(max(2, own // 3), 3 * own)
    axes.plot(counts, [sde.overlap(count, dims) for count in counts])
    axes.axhline(0.5, color="0.5", ls="--", lw=1)
    axes.plot(own, sde.overlap(own, dims), "o", label=f"{own} levels, as trained")
    axes.set(xlabel="noise levels", ylabel="overlap of neighbours", ylim=(0, 1))
    axes.set_title(f"σ from {sde.sigma_max:.3g} to {sde.sigma_min:g}, {dims} dimensions")
    axes.legend()
    axes.grid(alpha=0.3)


@click.command(help=__doc__.partition("\n")[0])
@click.option("--run", type=click.Path(path_type=Path), default="runs/ncsn-digits")
@click.option("--n", type=click.IntRange(min=4), default=297, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), default="out/ncsn.png")
def main(run: Path, n: int, steps: int, seed: int, figure: Path) -> None:
    """Print the table and draw the figure."""
    print_header(seed=seed)
    model = scoresde.load(run / "checkpoint.safetensors")
    train, test = (scoresde.load_dataset(model.data.name, split=s) for s in ("train", "test"))
    quality = Quality.build(train, test, n, features="cnn")
    x = compare(model, quality, n, steps, seed)
    _, sampler, _ = next(rows(model, steps))
    page = new_figure(13, 4.4)
    overlap, way, grid = page.subplots(1, 3)
    draw_overlap(overlap, model)
    way.imshow(to_grid(the_way_down(model, sampler, seed), model.data, columns=SHOWN))
    way.set_title("the way down, every fourth level")
    grid.imshow(to_grid(x[:80], model.data, columns=SHOWN))
    grid.set_title(f"samples, K = {steps}, c = {sampler.step_size:.2g}")
    for axes in (way, grid):
        axes.axis("off")
    write(figure, png_bytes(page))
    print(figure)


if __name__ == "__main__":
    main()
