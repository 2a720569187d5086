"""Mirror images and conditioned augmentation on few images: the loss of held-out images.

    python benchmarks/augmentation.py --data cifar10
    python benchmarks/augmentation.py --data digits --row plain --row 'augment 0.15'

Each row trains one small U-Net for each seed on the same few images, with the same noise and times:

    plain      the images as they are
    flip       each image is mirrored left to right with probability ½, anew at every visit
    augment p  each image is mirrored, turned by quarter turns, and shifted by up to an eighth of
               its side; each of the three happens with probability p. The network sees what was
               done as its condition. It has "no condition" for images that are as they were, and
               so for every held-out image. The idea is that of Karras et al. 2022,
               arXiv:2206.00364, appendix F.2.

The columns are the mean loss of held-out images with the averaged weights, at the best of the steps
at which it is measured and at the last one, and the differences from `plain`, ± one standard error.
The differences are paired: each held-out image has the same times and noise in every row.

CIFAR-10 is averaged to 8×8 pixels, so that a run takes less than a minute of one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import click
import numpy as np
import torch
from script import print_header
from torch import Tensor, nn

from scoresde.data import Dataset, DataSpec, load_dataset
from scoresde.ema import EMA
from scoresde.error_history import ErrorHistory
from scoresde.loss import Objective
from scoresde.nets import UNet
from scoresde.score import NetworkScore, Preconditioning, ScoreModel
from scoresde.sde import VP
from scoresde.tasks.held_out_loss import held_out_losses
from scoresde.train import Training, TrainSettings, make_optimizer

PARAMETERS = 5  # mirrored, cosine − 1 and sine of the turn, shift down and right
HELD_OUT = {"digits": 297, "cifar10": 256}  # images, each with 4 times
NET = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
OBJECTIVE = Objective("simple", "uniform", t_min=1e-3)


@dataclass(frozen=True)
class Augmented(Objective):
    """The loss of changed images. The training loop seeds torch's draws for each step.

    Args:
        p: Probability of each of the three changes.
    """

    p: float = 0.0

    def __call__(
        self,
        model: ScoreModel,
        x0: Tensor,
        u: Tensor,
        eps: Tensor,
        history: ErrorHistory | None = None,
    ) -> tuple[Tensor, ...]:
        """Losses, times and errors."""
        x0, y = changed(x0, torch.rand(len(x0), 6), self.p)
        return super().__call__(model.given(y), x0, u, eps, history)


def changed(x: Tensor, u: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Images mirrored, turned and shifted, and what was done.

    Args:
        x: Square images, shape (B, C, H, H).
        u: Uniform draws in [0, 1), shape (B, 6).
        p: Probability of each change.

    Returns:
        Images like x; what was done, shape (B, 5), NaN for images that are as they were.
    """
    most, on = x.shape[-1] // 8, u[:, :3] < p
    mirror = on[:, 0]
    turns = torch.where(on[:, 1], 1 + (3 * u[:, 3]).long(), 0)
    shift = torch.where(on[:, 2:], ((2 * most + 1) * u[:, 4:]).long() - most, 0)
    x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    x = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(x, turns, strict=True)])
    angle = math.pi / 2 * turns
    y = torch.stack([mirror, angle.cos() - 1, angle.sin(), *(shift / most).T], 1).float()
    same = (y.abs() < 1e-6).all(1, keepdim=True)
    return shifted(x, shift), y.masked_fill(same, math.nan)


def shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Images (B, C, H, H) shifted down and right by integers (B, 2), reflected at the border."""
    last = x.shape[-1] - 1
    places = torch.arange(last + 1) - shift[:, :, None]
    places = last - (last - places.abs()).abs()
    image, channel = torch.arange(len(x))[:, None, None, None], torch.arange(x.shape[1])
    down, right = places[:, 0, None, :, None], places[:, 1, None, None, :]
    return x[image, channel[:, None, None], down, right]


@cache
def few(name: str, split: str, n: int) -> Dataset:
    """The first n images of a data set in random order, 8×8 pixels, without labels."""
    data = load_dataset(name, split=split)
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(data))[:n])
    x, spec = data.x[rows], replace(data.spec, classes=None, class_names=None)
    if name == "cifar10":
        x = nn.functional.avg_pool2d(spec.encode(x).float(), 4)
        spec = DataSpec(tuple(x.shape[1:]), -1.0, 1.0)
    return Dataset(name, x, None, spec)


def trained(
    data: Dataset, row: str, settings: TrainSettings, every: int
) -> Iterator[tuple[int, NetworkScore]]:
    """The model of a row with its averaged weights, and the step, every so many steps."""
    kind, _, p = row.partition(" ")
    torch.manual_seed(settings.seed)
    net = UNet(data.spec.shape, **NET, vector=PARAMETERS if kind == "augment" else None)
    model = NetworkScore(net, VP(), Preconditioning("edm", sigma_data=0.5))
    model.unconditional = True
    objective = Augmented(**vars(OBJECTIVE), p=float(p)) if kind == "augment" else OBJECTIVE
    training = Training(model, data, objective, replace(settings, flip=kind == "flip"))
    ema, optimizer = EMA(net, settings.ema_decay), make_optimizer(net)
    for step in training.steps(optimizer):
        ema.update(net)
        if step.step % every == 0:
            last = {key: value.clone() for key, value in net.state_dict().items()}
            net.load_state_dict(ema.averages)
            yield step.step, model
            net.load_state_dict(last)


def difference(losses: Tensor, plain: Tensor) -> str:
    """Mean paired difference ± its standard error over the images."""
    d = losses - plain
    return f"{float(d.mean()):+.5f} ± {float(d.std()) / len(d) ** 0.5:.5f}"


@click.command(help=__doc__.partition("\n")[0])
@click.option("--data", "name", type=click.Choice(list(HELD_OUT)), required=True)
@click.option("--row", "rows", multiple=True, default=("plain", "flip", "augment 0.15"))
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1), show_default=True)
@click.option("--n", type=int, default=50, show_default=True, help="Training images.")
@click.option("--steps", type=int, default=600, show_default=True)
@click.option("--every", type=int, default=200, show_default=True, help="Steps between losses.")
def main(
    name: str, rows: tuple[str, ...], seeds: tuple[int, ...], n: int, steps: int, every: int
) -> None:
    """Print the table. The first row is the one that the others are compared with."""
    torch.set_num_threads(1)
    print_header()
    data, test = few(name, "train", n), few(name, "test", HELD_OUT[name])
    print(
        f"\nseed  {'row':14}{'best':>9}{'at':>6}{'last':>9}  difference, best     difference, last"
    )
    for seed in seeds:
        settings = TrainSettings(steps, 32, 2e-3, warmup=100, ema_decay=0.99, seed=seed)
        first = None
        for row in rows:
            measured = {
                step: held_out_losses(model, test, OBJECTIVE, draws=4)
                for step, model in trained(data, row, settings, every)
            }
            best = min(measured, key=lambda step: float(measured[step].mean()))
            losses = measured[best], measured[max(measured)]
            first = first or losses
            print(
                f"{seed:4}  {row:14}{losses[0].mean():9.5f}{best:6}{losses[1].mean():9.5f}  "
                f"{difference(losses[0], first[0])}  {difference(losses[1], first[1])}",
                flush=True,
            )


if __name__ == "__main__":
    main()
