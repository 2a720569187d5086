"""Pictures of likelihoods, latent codes and denoising: extremes, round trips, paths between data.

Before drawing, a caller checks with `can_show` that the data can be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..data import DataSpec
from .figures import new_figure, save_figure, to_unit
from .tiles import NOUNS, draw_datum, in_tiles, tile_size

__all__ = [
    *("denoising_strip", "extremes", "interpolation", "round_trip", "side_by_side"),
    "sorted_by_value",
]

TILE = 0.95  # side of an image, in inches
MOST_IMAGES = 12  # largest number of images side by side, or of paths
MOST_EXTREMES = 10  # images at each end of the order
PICTURES_IN_A_ROW = 3  # pictures per row in `side_by_side`
IMAGES_IN_A_ROW = 8  # images per row in the picture of all data


def extremes(path: Path, x: Tensor, values: Tensor, spec: DataSpec) -> None:
    """Draw the ten most and the ten least likely data: two rows of tiles, each with its value.

    Vectors are all drawn in the plane of their first two numbers, coloured by their value.

    Args:
        path: PNG file to write.
        x: Data at the model's scale, shape (n, *spec.shape), n ≥ 1.
        values: −log p per dimension in `spec.unit`, shape (n,).
        spec: What the data are.
    """
    order = _ascending(values)
    k = max(1, min(MOST_EXTREMES, len(order) // 2))
    rows = [order[:k], order[-k:].flip(0)]
    title = f"{spec.unit} of {len(order)} {NOUNS[spec.kind]}"
    _save_valued(path, x, values, spec, rows, ["most likely", "least likely"], title)


def sorted_by_value(path: Path, x: Tensor, values: Tensor, spec: DataSpec) -> None:
    """Draw all data in the order of their values, the most likely first.

    Args:
        path: PNG file to write.
        x: Data at the model's scale, shape (n, *spec.shape), n ≥ 1.
        values: −log p per dimension in `spec.unit`, shape (n,).
        spec: What the data are.
    """
    rows = _ascending(values).split(IMAGES_IN_A_ROW)
    title = f"{spec.unit}, the most likely first"
    _save_valued(path, x, values, spec, rows, [""] * len(rows), title)


def round_trip(path: Path, x: Tensor, latent: Tensor, decoded: Tensor, spec: DataSpec) -> None:
    """Draw data, their latent codes, the decoded codes, and the difference, enlarged.

    For vectors: data with decoded data, and the latent codes, by their first two numbers.

    Args:
        path: PNG file to write.
        x: Data at the model's scale, shape (n, *spec.shape); the first 12 are shown.
        latent: Their latent codes in units of the prior's standard deviation, like x.
        decoded: Decoded codes, like x.
        spec: What the data are.
    """
    if not in_tiles(spec):
        _save_points(path, x, latent, decoded)
        return
    x, latent, decoded = (v[:MOST_IMAGES].detach().double().cpu() for v in (x, latent, decoded))
    difference = decoded - x
    largest = float(difference.abs().max())
    factor = _round_number(0.5 * spec.span / largest) if largest > 0 else 1
    names = ["data", "latent", "decoded", f"difference\n× {factor:g}"]
    title = f"largest difference {largest:.2g}"
    half = 0.5 * spec.span
    scales = [spec, _between(spec, -3, 3), spec, _between(spec, -half, half)]
    values = [x, latent, decoded, factor * difference]
    if not spec.is_image:
        _save_tiles(path, list(zip(values, scales, strict=True)), names, title)
        return
    rows = [
        to_unit(x, spec),
        (0.5 + latent / 6).clamp(0, 1),  # ±3 deviations
        to_unit(decoded, spec),
        (0.5 + factor * difference / spec.span).clamp(0, 1),
    ]
    _save_rows(path, rows, names, title)


def interpolation(path: Path, x: Tensor, spec: DataSpec, values: Tensor | None = None) -> None:
    """Draw each path between two data as a row of tiles; for vectors, as a curve in the plane.

    Args:
        path: PNG file to write.
        x: Points of each path at the model's scale, shape (P, steps, *spec.shape); the first 12
            paths are shown.
        spec: What the data are.
        values: −log p per dimension in `spec.unit`, shape (P, steps), written below the tiles; None
            for none.
    """
    x = x[:MOST_IMAGES].detach().cpu()
    title, captions = "from one datum to another", None
    if values is not None:
        title = f"{title}, with {spec.unit}"
        captions = [[f"{value:.2f}" for value in row] for row in values.tolist()]
    if spec.is_image:
        _save_rows(path, [to_unit(row, spec) for row in x], [""] * len(x), title, captions)
        return
    if in_tiles(spec):
        _save_tiles(path, [(row, spec) for row in x], [""] * len(x), title, captions)
        return
    x = _in_plane(x)
    figure = new_figure(5, 5)
    axis = figure.subplots()
    for curve in x:
        axis.plot(curve[:, 0], curve[:, 1], ".-", lw=1)
        axis.plot(curve[[0, -1], 0], curve[[0, -1], 1], "ko", ms=4)
    axis.set(aspect="equal", title="paths between data (black)")
    save_figure(path, figure)


def denoising_strip(
    path: Path,
    x0: Tensor,
    noisy: Tensor,
    predicted: Tensor,
    levels: Sequence[float],
    spec: DataSpec,
) -> None:
    """Draw each datum, then the noisy one at each noise level above the predicted one.

    The predicted ones have their root mean square error as a caption.

    Args:
        path: PNG file to write.
        x0: Data with tiles of their own, at the model's scale, shape (n, *spec.shape).
        noisy: x_t/√(α² + σ²) at L levels, shape (L, n, *spec.shape).
        predicted: The predicted x_0, like `noisy`.
        levels: σ/α of each level.
        spec: What the data are.
    """
    rows, tiles, names, captions = [], [], [], []
    errors = (predicted - x0).flatten(2).square().mean(2).sqrt()
    for i, image in enumerate(x0):
        for name, images in (("$x_t$", noisy), ("predicted $x_0$", predicted)):
            both = torch.cat([image[None], images[:, i]])
            rows.append(to_unit(both, spec))
            tiles.append((both, spec))
            names.append(name)
        captions.append(["$x_0$", *(f"σ/α = {level:.2g}" for level in levels)])
        captions.append(["", *(f"rms {float(error):.3f}" for error in errors[:, i])])
    title = "denoising by one evaluation of the network"
    if spec.is_image:
        _save_rows(path, rows, names, title, captions)
    else:
        _save_tiles(path, tiles, names, title, captions)


def side_by_side(path: Path, pictures: Sequence[tuple[str, Path]]) -> None:
    """Draw picture files in rows of at most three, each below its title.

    Args:
        path: PNG file to write.
        pictures: Title and file of each picture, at least one.
    """
    columns = min(PICTURES_IN_A_ROW, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = new_figure(3.4 * columns, 3.65 * rows)
    axes = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axis in axes:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for axis, (title, place) in zip(axes, pictures, strict=False):
        with Image.open(place) as picture:
            axis.imshow(picture.convert("RGB"), interpolation="antialiased")
        axis.set_title(title, fontsize=10)
    save_figure(path, figure)


def _round_number(limit: float) -> float:
    """The largest of 1, 2, 5, 10, 20 ... and 0.5, 0.2 ... that is at most `limit`."""
    power = 10 ** math.floor(math.log10(limit))
    return max(m * power for m in (1, 2, 5) if m == 1 or m * power <= limit)


def _ascending(values: Tensor) -> Tensor:
    """Row numbers by ascending value."""
    return values.detach().cpu().argsort(stable=True)


def _save_valued(
    path: Path,
    x: Tensor,
    values: Tensor,
    spec: DataSpec,
    rows: Sequence[Tensor],
    names: Sequence[str],
    title: str,
) -> None:
    """Rows of tiles, each with its value; or all vectors in the plane, coloured by value."""
    if not in_tiles(spec):
        _save_scatter(path, x, values, spec.unit)
        return
    captions = [[f"{float(values[i]):.3f}" for i in row] for row in rows]
    if not spec.is_image:
        _save_tiles(path, [(x[row], spec) for row in rows], names, title, captions)
        return
    _save_rows(path, [to_unit(x[row], spec) for row in rows], names, title, captions)


def _save_rows(
    path: Path,
    rows: Sequence[Tensor],
    names: Sequence[str],
    title: str,
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    """Rows of images with values in [0, 1], each (n, C, H, W), names left, captions below."""
    columns = max(map(len, rows))
    height = 1.04 if captions is None else 1.2  # height of a row, in tiles
    figure = new_figure(TILE * columns + 0.9 * any(names), height * TILE * len(rows) + 0.3)
    for axis in (axes := figure.subplots(len(rows), columns, squeeze=False)).flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    beside = {"rotation": 0, "horizontalalignment": "right", "verticalalignment": "center"}
    for i, row in enumerate(rows):
        for j, image in enumerate(row.permute(0, 2, 3, 1).numpy()):
            # matplotlib uses the colour map for one channel, and ignores it for three channels
            axes[i, j].imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
            if captions is not None:
                axes[i, j].set_xlabel(captions[i][j], fontsize=8, labelpad=2)
        axes[i, 0].set_ylabel(names[i], fontsize=9, **beside)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def _save_tiles(
    path: Path,
    rows: Sequence[tuple[Tensor, DataSpec]],
    names: Sequence[str],
    title: str,
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    """Rows of data of any kind with tiles, each row with its range; as `_save_rows`."""
    columns = max(len(x) for x, _ in rows)
    width, height = tile_size(rows[0][1])
    height += 0.1 if captions is None else 0.25
    figure = new_figure(width * columns + 0.9 * any(names), height * len(rows) + 0.3)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    beside = {"rotation": 0, "horizontalalignment": "right", "verticalalignment": "center"}
    for i, (x, spec) in enumerate(rows):
        for j, axis in enumerate(axes[i]):
            if j >= len(x):
                axis.set_axis_off()
                continue
            draw_datum(axis, x[j], spec)
            if captions is not None:
                axis.set_xlabel(captions[i][j], fontsize=8, labelpad=2)
        axes[i, 0].set_ylabel(names[i], fontsize=9, **beside)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def _between(spec: DataSpec, low: float, high: float) -> DataSpec:
    """The same kind of data with another range, without levels."""
    return replace(spec, low=low, high=high, levels=None)


def _in_plane(x: Tensor) -> Tensor:
    """The first two numbers of vectors, with 0 as the second of one number."""
    return x[..., :2] if x.shape[-1] > 1 else torch.cat([x, torch.zeros_like(x)], -1)


def _save_scatter(path: Path, x: Tensor, values: Tensor, unit: str) -> None:
    """Points in the plane, the likely ones bright and on top."""
    x, values = _in_plane(x.detach().cpu()), values.detach().cpu()
    order = values.argsort(descending=True)
    figure = new_figure(5.6, 4.6)
    axis = figure.subplots()
    points = axis.scatter(x[order, 0], x[order, 1], c=values[order], s=8, cmap="viridis_r")
    figure.colorbar(points, label=unit).ax.invert_yaxis()
    axis.set(aspect="equal", title=f"{len(x)} points, the likely ones bright")
    save_figure(path, figure)


def _save_points(path: Path, x: Tensor, latent: Tensor, decoded: Tensor) -> None:
    """Data and latent codes beside one another, a datum and its code in the same colour."""
    x, latent, decoded = (_in_plane(v.detach().cpu()) for v in (x, latent, decoded))
    angle = torch.atan2(*(x - x.mean(0)).T)
    largest = float((decoded - x).abs().max())
    figure = new_figure(8, 4)
    left, right = figure.subplots(1, 2)
    left.scatter(x[:, 0], x[:, 1], c=angle, cmap="hsv", s=24)
    left.scatter(decoded[:, 0], decoded[:, 1], c="black", s=3)
    left.set(title=f"data, decoded in black; largest difference {largest:.2g}", aspect="equal")
    right.scatter(latent[:, 0], latent[:, 1], c=angle, cmap="hsv", s=24)
    right.set(title="latents", aspect="equal")
    for axis in (left, right):
        axis.title.set_fontsize(9)
    save_figure(path, figure)
