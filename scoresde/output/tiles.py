"""How one datum of each kind is drawn, and pictures of many samples.

image     its pixels
series    a line for each channel, over the range of the data
volume    the middle slices along the three axes, side by side
set       its points in the plane of the first two features; for one feature, on a line
vector    not alone: points of the plane together, others by the histogram of each number
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._sets import points_of
from ..data import DataSpec
from .figures import COLOURS, new_figure, save_figure, save_grid, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "NOUNS",
    "can_show",
    "draw_datum",
    "in_tiles",
    "marginals",
    "sample_figure",
    "save_samples",
]

NOUNS = {
    "vector": "rows",
    "series": "series",
    "image": "images",
    "volume": "volumes",
    "set": "sets",
    "array": "arrays",
}
"""What data of each kind are called, in the plural."""

MOST_MARGINALS = 24  # numbers of a vector whose histograms are drawn
BINS = 40
MOST_TILES = 36  # data in a picture of samples; images apart
MARGIN = 0.05  # of the range of the data, around points and lines
POINT = 3.0  # size of a point of a set, in typographic points

_SIZES = {"series": (1.7, 1.0), "volume": (2.1, 0.8), "image": (0.95, 0.95)}  # tiles, in inches
_SIDE = (1.2, 1.2)  # of other tiles


def can_show(spec: DataSpec) -> bool:
    """Whether such data have a picture: all kinds apart from arrays of five and more axes."""
    return spec.kind != "array"


def in_tiles(spec: DataSpec) -> bool:
    """Whether each datum has a picture of its own: all that can be shown but vectors."""
    return can_show(spec) and spec.kind != "vector"


def tile_size(spec: DataSpec) -> tuple[float, float]:
    """Width and height of the picture of one datum, in inches."""
    return _SIZES.get(spec.kind, _SIDE)


def draw_datum(axes: Axes, x: Tensor, spec: DataSpec) -> None:
    """Draw one datum on axes, which lose their ticks.

    Args:
        axes: Axes of matplotlib.
        x: The datum at the model's scale, shape spec.shape.
        spec: What the data are: their kind, and the range low … high that is shown.
    """
    x = x.detach().float().cpu()
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("0.8")
    margin = MARGIN * spec.span
    limits = spec.low - margin, spec.high + margin
    if spec.kind == "series":
        for i, channel in enumerate(x):
            axes.plot(channel, lw=0.8, color=COLOURS[i % len(COLOURS)])
        axes.set(ylim=limits, xlim=(0, x.shape[1] - 1 or 1))
    elif spec.kind == "set":
        points = points_of(x[None])[0]
        other = points[:, 1] if points.shape[1] > 1 else torch.zeros(len(points))
        axes.plot(points[:, 0], other, "o", ms=POINT, mew=0, color=COLOURS[0])
        axes.set(xlim=limits, ylim=limits if points.shape[1] > 1 else (-1, 1))
    else:
        shown = slices(x, spec) if spec.kind == "volume" else _channels(to_unit(x[None], spec)[0])
        axes.imshow(shown, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
        axes.set_frame_on(False)


def slices(x: Tensor, spec: DataSpec) -> Tensor:
    """The middle slices of a volume (C, D, H, W) across each axis, side by side, (h, w[, 3]).

    In the order: across D, across H, across W. A volume of three channels is in colour; of others
    the first channel is shown.
    """
    unit = to_unit(x[None], spec)[0]
    middles = [n // 2 for n in unit.shape[1:]]
    parts = [unit.select(axis, middles[axis - 1]) for axis in (1, 2, 3)]
    height = max(part.shape[1] for part in parts)
    gap = torch.ones(unit.shape[0], height, max(1, height // 16))
    rows = []
    for part in parts:
        below = torch.ones(part.shape[0], height - part.shape[1], part.shape[2])
        rows += [torch.cat([part, below], 1), gap]
    return _channels(torch.cat(rows[:-1], 2))


def _channels(x: Tensor) -> Tensor:
    """Pixels (C, h, w) as matplotlib shows them: in colour for three channels, else the first."""
    return x.permute(1, 2, 0) if x.shape[0] == 3 else x[0]


def sample_figure(
    x: Tensor, spec: DataSpec, data: Tensor | None = None, columns: int | None = None
) -> Figure:
    """A figure of samples: one tile for each, or, of vectors, all of them together.

    Args:
        x: Samples at the model's scale, shape (n, *spec.shape), n ≥ 1.
        spec: What the data are; `can_show` must allow them.
        data: Data that are drawn beside samples of vectors, like x.
        columns: Tiles in a row; None for about as many columns as rows.
    """
    if spec.kind == "vector":
        return _plane(x, spec, data) if spec.shape == (2,) else marginals(x, spec, data)
    columns = min(columns or math.ceil(math.sqrt(len(x))), len(x))
    rows = math.ceil(len(x) / columns)
    width, height = tile_size(spec)
    figure = new_figure(width * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for i, axis in enumerate(axes):
        if i < len(x):
            draw_datum(axis, x[i], spec)
        else:
            axis.set_axis_off()
    pad = 0.06 if spec.kind == "volume" else 0.02  # more than between the slices of a volume
    figure.get_layout_engine().set(w_pad=pad, h_pad=pad, wspace=0, hspace=0)
    return figure


def _plane(x: Tensor, spec: DataSpec, data: Tensor | None) -> Figure:
    """Points of the plane over the data."""
    figure = new_figure(4.4, 4.4)
    axes = figure.subplots()
    if data is not None:
        axes.plot(*data.detach().cpu().T, ".", ms=2, color="0.75", label="data")
    axes.plot(*x.detach().cpu().T, ".", ms=3, color=COLOURS[0], label="samples")
    axes.set(xlim=(spec.low, spec.high), ylim=(spec.low, spec.high), aspect="equal")
    if data is not None:
        axes.legend(fontsize=8)
    return figure


def marginals(
    x: Tensor, spec: DataSpec, data: Tensor | None = None, names: Sequence[str] = ()
) -> Figure:
    """The histogram of each number of vectors, at most the first 24, and the data's in grey.

    Args:
        x: Samples at the model's scale, shape (n, D).
        spec: What the data are.
        data: Data like x; None for none.
        names: Names of the numbers; the number of the place for those without one.
    """
    x = x.detach().float().cpu()
    count = min(spec.shape[0], MOST_MARGINALS)
    columns = min(count, 6)
    rows = math.ceil(count / columns)
    figure = new_figure(1.6 * columns + 0.4, 1.3 * rows + 0.4)
    for i, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if i >= count:
            axis.set_axis_off()
            continue
        both = x[:, i] if data is None else torch.cat([x[:, i], data[:, i].float().cpu()])
        low, high = (float(v) for v in torch.aminmax(both))
        bins = torch.linspace(low, high if high > low else low + 1, BINS + 1).numpy()
        if data is not None:
            axis.hist(data[:, i].float().cpu().numpy(), bins, density=True, color="0.8")
        axis.hist(x[:, i].numpy(), bins, density=True, histtype="step", color=COLOURS[0])
        axis.set(yticks=[])
        axis.set_title(names[i] if i < len(names) else f"{i + 1}", fontsize=8)
        axis.tick_params(labelsize=6)
    text = "samples" if data is None else "samples (line) and data (grey)"
    more = "" if count == spec.shape[0] else f", the first {count} of {spec.shape[0]} numbers"
    figure.suptitle(text + more, fontsize=9)
    return figure


def save_samples(path: Path, x: Tensor, spec: DataSpec, data: Tensor | None = None) -> None:
    """Write a picture of samples as a PNG file: all images, at most 36 tiles of other kinds.

    Args:
        path: PNG file to write.
        x: Samples at the model's scale, shape (n, *spec.shape), n ≥ 1.
        spec: What the data are; `can_show` must allow them.
        data: Data that are drawn beside samples of vectors, like x.
    """
    if spec.is_image:
        save_grid(path, x, spec)
        return
    shown = x[:MOST_TILES] if in_tiles(spec) else x
    save_figure(path, sample_figure(shown, spec, data))
