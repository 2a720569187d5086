"""The picture of a restoration: truth, measurement, samples, their mean and their spread."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .figures import new_figure, save_figure

__all__ = ["Tiles", "save_restoration"]

MOST_COLUMNS = 12  # data that are drawn
TILE = 0.95  # side of an image, in inches
HIDDEN = (0.35, 0.45, 0.75)  # colour of pixels that were not measured


class Tiles(NamedTuple):
    """One row of the picture.

    Attributes:
        name: What the row shows.
        images: Values of which 0 is black and 1 is white, shape (n, C, H, W), C = 1 or 3.
        captions: A text below each image, or none.
        hidden: Pixels that are drawn in a colour of their own, bool, (H, W); None for none.
    """

    name: str
    images: Tensor
    captions: tuple[str, ...] = ()
    hidden: Tensor | None = None


def save_restoration(path: Path, rows: list[Tiles], title: str) -> None:
    """Draw rows of images, a column for each datum.

    Args:
        path: PNG file to write.
        rows: The rows; of more than 12 images the first 12 are drawn.
        title: Text above them.
    """
    columns = min(MOST_COLUMNS, len(rows[0].images))
    heights = [1.25 if row.captions else 1.04 for row in rows]
    width = max(TILE * columns + 1.1, 4.5)
    figure = new_figure(width, TILE * sum(heights) + 0.35)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    beside = {"rotation": 0, "horizontalalignment": "right", "verticalalignment": "center"}
    for line, row in zip(axes, rows, strict=True):
        for j, axis in enumerate(line):
            axis.set(xticks=[], yticks=[], frame_on=False)
            axis.imshow(_pixels(row.images[j], row.hidden), interpolation="nearest")
            if row.captions:
                axis.set_xlabel(row.captions[j], fontsize=8, labelpad=2)
        line[0].set_ylabel(row.name, fontsize=9, **beside)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def _pixels(image: Tensor, hidden: Tensor | None) -> np.ndarray:
    """An image (C, H, W) as matplotlib shows it, (H, W, 3)."""
    pixels = image.detach().float().cpu().clamp(0, 1).expand(3, *image.shape[1:]).permute(1, 2, 0)
    if hidden is not None:
        pixels = torch.where(hidden[..., None], torch.tensor(HIDDEN), pixels)
    return pixels.numpy()
