"""An animated PNG of sampling: images side by side, or points in the plane."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from .._files import atomic_write
from ..data import DataSpec
from ..sde import Node
from .figures import COLOURS, new_figure, png_bytes, to_grid

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
        spec: What the data are: grey or colour images, or points in the plane.
    """
    scaled = [(node.t, x.double().cpu() / math.hypot(node.alpha, node.sigma)) for node, x in states]
    if spec.is_image:
        frames = [_enlarged(to_grid(x, spec)) for _, x in scaled]
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
    """One picture of all points for each time, all with the same axes."""
    figure = new_figure(4.4, 4.6)
    axis = figure.subplots()
    points = axis.scatter([], [], s=3, color=COLOURS[0], linewidths=0)
    axis.set(aspect="equal", xlim=(spec.low, spec.high), ylim=(spec.low, spec.high))
    frames = []
    for t, x in states:
        points.set_offsets(x.numpy())
        axis.set_title(f"t = {t:.3f}", fontsize=9)
        frames.append(Image.open(io.BytesIO(png_bytes(figure, dpi=90))).convert("RGB"))
    return frames
