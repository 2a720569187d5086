"""Data of many kinds, made from formulas, and ways in which their samples can fail."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from scoresde.data import DataSpec, load_dataset
from scoresde.metrics import PCAFeatures

N = 200
REFERENCE = 600
CONTROLS = 3  # samples of real data
Groups = dict[str, dict[str, Tensor]]


def draws(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def colours(*values: float) -> Tensor:
    """Numbers for the channels, shape (3, 1, 1)."""
    return torch.tensor(values)[:, None, None]


def smooth(n: int, size: int, cells: int, seed: int) -> Tensor:
    """Smooth random fields of three channels."""
    coarse = torch.randn(n, 3, cells, cells, generator=draws(seed))
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)


def patches(n: int) -> Tensor:
    """Colour patches of 16×16 pixels."""
    return torch.tanh(smooth(n, 16, 4, 0) + colours(0.5, 0.0, -0.5))


def gradients(n: int) -> Tensor:
    """Linear colour gradients of 24×24 pixels without any noise."""
    a, t = torch.randn(n, 3, 3, 1, 1, generator=draws(0)), torch.linspace(-1, 1, 24)
    planes = 0.6 * a[:, :, 0] + 0.6 * a[:, :, 1] * t[:, None] + 0.3 * a[:, :, 2] * t
    return torch.tanh(planes + colours(0.3, 0.0, -0.3))


def drawings(n: int) -> Tensor:
    """Four strokes on a black page of 28×28 pixels."""
    generator, t = draws(0), torch.arange(28.0) - 14
    page = torch.full((n, 28, 28), -1.0)
    for _ in range(4):
        angle, place, length = (torch.rand(n, 1, 1, generator=generator) for _ in range(3))
        along, across = (math.pi * angle).sin(), (math.pi * angle).cos()
        off = t[:, None] * along + t * across - 20 * (place - 0.5)
        stroke = (2.5 - 2 * off.abs()).clamp(-1, 1)
        inside = (t[:, None] * across - t * along).abs() < 14 * length
        page = torch.where(inside, page.maximum(stroke), page)
    return page[:, None]


def discs(n: int) -> Tensor:
    """Five coloured discs on a page of 40×40 pixels, with a little noise."""
    generator, t = draws(0), torch.linspace(-1, 1, 40)
    page = (torch.rand(n, 3, 1, 1, generator=generator) - 0.5).expand(n, 3, 40, 40)
    for _ in range(5):
        x, y, r = (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1 for _ in range(3))
        paint = torch.rand(n, 3, 1, 1, generator=generator) * colours(1.8, 1.0, 0.6) - 0.7
        inside = (t - x) ** 2 + (t[:, None] - y) ** 2 < (0.15 + 0.25 * r.abs()) ** 2
        page = torch.where(inside, paint, page)
    return page + 0.05 * torch.randn(page.shape, generator=generator)


def spots(n: int) -> Tensor:
    """Six bright spots of 24×24 pixels with weak noise, as a 12-bit camera sees them."""
    generator, t = draws(0), torch.linspace(-1, 1, 24)
    page = torch.full((n, 1, 24, 24), -0.9)
    for _ in range(6):
        x, y, w, a = (torch.rand(n, 1, 1, 1, generator=generator) for _ in range(4))
        away = (t - 2 * x + 1) ** 2 + (t[:, None] - 2 * y + 1) ** 2
        page = page + a * (-away / (2 * (0.1 + 0.2 * w) ** 2)).exp()
    return page + 0.01 * torch.randn(page.shape, generator=generator)


def fields(n: int) -> Tensor:
    """Three rough fields of 20×20 values of different scale, not quantized."""
    return (smooth(n, 20, 5, 0) + 0.3 * smooth(n, 20, 20, 1)) * colours(1.0, 0.6, 0.3)


def ring(n: int) -> Tensor:
    """Points near a circle."""
    angle = 2 * math.pi * torch.rand(n, generator=draws(4))
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2, generator=draws(5))


def mixture(n: int) -> Tensor:
    """Six Gaussians in 16 dimensions with covariances of their own."""
    generator = draws(6)
    means, maps = (torch.randn(6, 16, *more, generator=generator) for more in ((), (16,)))
    part, noise = (
        torch.randint(6, (n,), generator=generator),
        torch.randn(n, 16, generator=generator),
    )
    return 2 * means[part] + 0.15 * torch.einsum("nij,nj->ni", maps[part], noise)


def factors(n: int) -> Tensor:
    """Twelve factors, one of them with two modes, in 200 dimensions with noise."""
    generator = draws(7)
    loads, z = (torch.randn(*shape, generator=generator) for shape in ((12, 200), (n, 12)))
    z[:, 0] = 2 * z[:, 0].sign() + 0.2 * z[:, 0]
    return z @ loads / 3.5 + 0.3 * torch.randn(n, 200, generator=generator)


def shipped(name: str) -> tuple[Tensor, DataSpec]:
    """A data set of images; both splits are shuffled, because the digits have few test images."""
    both = [load_dataset(name, split) for split in ("train", "test")]
    x = torch.cat([data.x for data in both])
    x = x[torch.randperm(len(x), generator=draws(0))[: REFERENCE + (2 + CONTROLS) * N]]
    return both[0].spec.encode(x), both[0].spec


def made(make: Callable[[int], Tensor], levels: int | None = None) -> tuple[Tensor, DataSpec]:
    """Data of a function of this file; images of `levels` levels."""
    x = make(REFERENCE + (2 + CONTROLS) * N)
    return x, DataSpec(tuple(x.shape[1:]), -1.0, 1.0, levels=levels, name="own")


DATA: dict[str, Callable[[], tuple[Tensor, DataSpec]]] = {
    "digits": lambda: shipped("digits"),
    "fashion-mnist": lambda: shipped("fashion-mnist"),
    "colour patches": lambda: made(patches, 256),
    "gradients": lambda: made(gradients, 256),
    "drawings": lambda: made(drawings, 256),
    "discs": lambda: made(discs, 256),
    "12-bit spots": lambda: made(spots, 4096),
    "float fields": lambda: made(fields),
    "ring in 2-D": lambda: made(ring),
    "mixture in 16-D": lambda: made(mixture),
    "factors in 200-D": lambda: made(factors),
}


def image_failures(x: Tensor, train: Tensor) -> Groups:
    """Images changed in known ways, by group."""
    noise, n, count = torch.randn(x.shape, generator=draws(1)), len(x), torch.arange(len(x))
    std = float(train.std())
    chance = torch.rand(n, 1, 1, 1, generator=draws(2))
    rows, columns = (torch.arange(k) for k in x.shape[2:])
    board = (rows[:, None] + columns) % 2 * 2.0 - 1
    kept = x[PCAFeatures.fit(train, 1)(x)[:, 0] > 0]
    order = torch.randperm(x[0].numel(), generator=draws(3))
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    gross = {
        "saturated noise": 4 * noise,
        "a quarter saturated noise": torch.where(chance < 0.25, 4 * noise, x),
        "noise of half the std": x + 0.5 * std * noise,
        "checkerboard of half the std": x + 0.5 * std * board,
        "mean image": train.mean(0, keepdim=True).expand_as(x),
        "one image": x[:1].expand_as(x),
        "one colour per image": x.mean((2, 3), keepdim=True).expand_as(x),
        "pixels in another order": x.flatten(1)[:, order].reshape(x.shape),
    }
    middle = {
        "noise of 0.2 std": x + 0.2 * std * noise,
        "contrast 0.8": 0.8 * x,
        "brighter by 0.3 std": x + 0.3 * std,
        "half of the data missing": kept[count % len(kept)],
        "16 images again and again": x[count % 16],
    }
    mild = {
        "noise of 0.05 std": x + 0.05 * std * noise,
        "contrast 0.97": 0.97 * x,
        "blur of 10 %": 0.9 * x + 0.1 * blurred,
    }
    if min(x.shape[2:]) > 8:  # on tiny images a pixel is no small step
        mild["shift by one pixel"] = F.pad(x, (1, 0, 0, 0), mode="replicate")[..., :-1]
    return {"gross": gross, "middle": middle, "mild": mild}


def vector_failures(x: Tensor, train: Tensor) -> Groups:
    """Vectors changed in known ways, by group."""
    noise, count = torch.randn(x.shape, generator=draws(1)), torch.arange(len(x))
    std, mean = train.std(0), train.mean(0)
    chance = torch.rand(len(x), 1, generator=draws(2))
    kept = x[x[:, 0] > train[:, 0].median()]
    gross = {
        "noise of 4 std": mean + 4 * std * noise,
        "a quarter noise of 4 std": torch.where(chance < 0.25, mean + 4 * std * noise, x),
        "noise of 1 std added": x + std * noise,
        "mean": mean.expand_as(x).clone(),
        "one point": x[:1].expand_as(x).clone(),
        "scale 0.3": mean + 0.3 * (x - mean),
    }
    middle = {
        "noise of 0.3 std": x + 0.3 * std * noise,
        "scale 0.8": mean + 0.8 * (x - mean),
        "shift by 0.3 std": x + 0.3 * std,
        "5 % outliers": torch.where(chance < 0.05, mean + 6 * std * noise, x),
        "half of the data missing": kept[count % len(kept)],
        "16 points again and again": x[count % 16],
    }
    mild = {
        "noise of 0.05 std": x + 0.05 * std * noise,
        "scale 0.97": mean + 0.97 * (x - mean),
        "shift by 0.05 std": x + 0.05 * std,
    }
    return {"gross": gross, "middle": middle, "mild": mild}
