"""Pictures of what a trained network does: denoising at several noise levels, and sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._condition import map_condition, take_rows
from .._tensor import float64
from ..data import Dataset
from ..evaluation import evaluating
from ..noise import SampleNoise
from ..output.animation import save_animation
from ..output.pictures import denoising_strip
from ..output.tiles import in_tiles
from ..samplers import sample
from ..score import FIRST_TIME, ScoreModel
from ..score.sets import only_present
from ..score.units import in_model_scale
from ..sde import SDE, Node
from .conditions import conditions_like
from .held_out import choose_rows, to_points
from .request import StoredModel

__all__ = ["draw_denoising", "draw_sampling"]

STRIP = 3  # images that are denoised
NOISE_LEVELS = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0)  # σ/α
POINTS, IMAGES, TILES = 1000, 25, 9  # points, images or other tiles in the animation


def draw_denoising(
    path: Path, model: ScoreModel, data: Dataset, t_least: float, seed: int, device: str
) -> None:
    """Draw data, their noisy versions and the predicted data.

    Args:
        path: PNG file to write.
        model: The model.
        data: Data with tiles, such as images, with the conditions that the model takes.
        t_least: Time of the first discrete label of the trained network, or 0.
        seed: Chooses images and noise.
        device: Device of the model.
    """
    rows = choose_rows(data, min(STRIP, len(data)), seed)
    noise = SampleNoise(seed, range(len(rows)))
    data, model = data.scaled, in_model_scale(model)
    x0 = to_points(data.x[rows], data.spec, noise, torch.float32).to(device)
    y = None if data.labels is None else take_rows(data.labels, torch.from_numpy(rows))
    bound = model.labelled(y, len(rows), device)
    eps, noisy, predicted = only_present(bound, noise.fresh(x0)), [], []
    levels = _levels(model.sde, t_least)
    with evaluating(bound):
        for node in levels:
            x_t = node.alpha * x0 + node.sigma * eps
            predicted.append(bound.x0(x_t, node))
            noisy.append(x_t / np.hypot(node.alpha, node.sigma))
    ratios = [node.sigma / node.alpha for node in levels]
    pictures = (x.cpu() for x in (x0, torch.stack(noisy), torch.stack(predicted)))
    denoising_strip(path, *pictures, ratios, data.spec)


def _levels(sde: SDE, t_least: float) -> list[Node]:
    """The SDE at the noise levels of the strip that it has and that the network knows."""
    times = sde.t_of_lam(-float64(NOISE_LEVELS).log())
    times = times[times.isfinite()].clamp(max(t_least, FIRST_TIME), 1.0).unique()
    return sde.nodes(times)


def draw_sampling(
    path: Path,
    model: ScoreModel,
    given: StoredModel,
    data: Dataset | None,
    nfe: int,
    seed: int,
    device: str,
) -> None:
    """Animate sampling by the recommended sampler.

    Args:
        path: PNG file to write.
        model: The model of `given`.
        given: The checkpoint.
        data: Training data, whose conditions are used; None if the network takes none.
        nfe: Evaluations of the sampling.
        seed: Seed of the noise.
        device: Device of the model.
    """
    spec, y = given.spec, None
    n = IMAGES if spec.is_image else TILES if in_tiles(spec) else POINTS
    if given.condition:
        y = conditions_like(data.labels, data.spec, n)
        y = map_condition(lambda leaf: leaf.to(device), y)
    states: list[tuple[float, Tensor]] = []
    found = sample(
        model,
        shape=(n, *spec.shape),
        nfe=nfe,
        seed=seed,
        y=y,
        on_step=lambda _, t, x: states.append((t, x.cpu().clone())),
    )
    noisy = [(t, x) for t, x in states if t > 0]  # the last step may end at t = 0
    shown = [(float(found.ts[0]), found.x_init), *noisy, (noisy[-1][0], found.scaled)]
    nodes = given.sde.nodes([t for t, _ in shown])
    frames = [(node, x) for node, (_, x) in zip(nodes, shown, strict=True)]
    save_animation(path, frames, spec)
