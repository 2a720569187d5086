"""An animated PNG of sampling: tiles side by side, or vectors in the plane."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from .._files import atomic_write
from ..data import DataSpec
from ..sde import Node
from .figures import COLOURS, new_figure, png_bytes, to_grid
from .tiles import in_tiles, sample_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save_animation"]

FRAME = 90  # milliseconds of a frame
LAST = 2500  # milliseconds of the last frame
SIDE = 450  # smaller pictures are enlarged up to this width, in pixels


def save_animation(path: Path, states: Sequence[tuple[Node, Tensor]], spec: DataSpec) -> None:
    """Write the states of a sampling run as an animated PNG, which web browsers play.

    A state is shown as x_t/√(α² + σ²), so that noise and data have about the same size.

    Args:
        path: PNG file to write.
        states: Each state, shape (n, *spec.shape), with its node, from noise to data; at least one.
        spec: What the data are; `can_show` must allow them.
    """
    scaled = [(node.t, x.double().cpu() / math.hypot(node.alpha, node.sigma)) for node, x in states]
    if spec.is_image:
        frames = [_enlarged(to_grid(x, spec)) for _, x in scaled]
    elif in_tiles(spec):
        frames = [_frame(sample_figure(x, spec), t) for t, x in scaled]
    else:
        frames = _scattered(scaled, spec)
    durations = [FRAME] * (len(frames) - 1) + [LAST]
    with atomic_write(path) as file:
        first, *rest = frames
        first.save(file, "PNG", save_all=True, append_images=rest, duration=durations, loop=0)


def _enlarged(picture: Image.Image) -> Image.Image:
    """The picture enlarged by a whole factor to a width of at most `SIDE`."""
    factor = max(1, SIDE // picture.width)
    return picture.resize((factor * picture.width, factor * picture.height), Image.NEAREST)


def _scattered(states: Sequence[tuple[float, Tensor]], spec: DataSpec) -> list[Image.Image]:
    """One picture of all vectors for each time, by their first two numbers, on the same axes."""
    figure = new_figure(4.4, 4.6)
    axis = figure.subplots()
    points = axis.scatter([], [], s=3, color=COLOURS[0], linewidths=0)
    axis.set(aspect="equal", xlim=(spec.low, spec.high), ylim=(spec.low, spec.high))
    frames = []
    for t, x in states:
        first, other = x[:, 0], x[:, 1] if x.shape[1] > 1 else torch.zeros(len(x))
        points.set_offsets(torch.stack([first, other], 1).numpy())
        frames.append(_frame(figure, t, axis))
    return frames


def _frame(figure: Figure, t: float, axis: Axes | None = None) -> Image.Image:
    """The figure as a picture, with the time as its title or that of its axes."""
    if axis is None:
        figure.suptitle(f"t = {t:.3f}", fontsize=9)
    else:
        axis.set_title(f"t = {t:.3f}", fontsize=9)
    return Image.open(io.BytesIO(png_bytes(figure, dpi=90))).convert("RGB")
