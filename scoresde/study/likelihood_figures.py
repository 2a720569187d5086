"""Pictures of what a density says: extremes, round trips and paths between data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data import DataSpec
from .figures import new_figure, save_figure, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["can_show", "extremes", "interpolation", "round_trip", "sorted_by_value"]

TILE = 0.95  # inches
AT_MOST = 12  # images side by side


def can_show(spec: DataSpec) -> bool:
    """Whether such data have a picture: grey or colour images, and points in the plane."""
    return spec.shape == (2,) or _is_image(spec)


def extremes(
    path: Path, images: Tensor, values: Tensor, spec: DataSpec, unit: str, k: int = 10
) -> None:
    """The most and the least likely of some data: two rows of images, each with its value.

    Points in the plane are all drawn, coloured by their value.

    Args:
        path: PNG file to write.
        images: Data at the model's scale, shape (n, *spec.shape), n ≥ 1.
        values: −log p per dimension, the smaller the likelier, shape (n,).
        spec: What the data are.
        unit: Unit of the values: "bits/dim" or "nats/dim".
        k: How many of each, at least 1; n/2 if there are fewer than 2k.

    Raises:
        ValueError: If values and images differ in number, there are none, or they have no picture.
    """
    order = _order(images, values, spec)
    if not _is_image(spec):
        _save_scatter(path, images, values, unit)
        return
    k = max(1, min(k, len(order) // 2))
    rows = [order[:k], order[-k:].flip(0)]
    _save_rows(
        path,
        [to_unit(images[row], spec) for row in rows],
        ["most likely", "least likely"],
        [[f"{float(values[i]):.3f}" for i in row] for row in rows],
        title=f"{unit} of {len(order)} images",
    )


def sorted_by_value(
    path: Path, images: Tensor, values: Tensor, spec: DataSpec, unit: str, columns: int = 8
) -> None:
    """All of some data in the order of their values, the most likely first.

    Arguments and errors as for `extremes`; `columns` images in a row.
    """
    order = _order(images, values, spec)
    if not _is_image(spec):
        _save_scatter(path, images, values, unit)
        return
    rows = list(order.split(columns))
    _save_rows(
        path,
        [to_unit(images[row], spec) for row in rows],
        [""] * len(rows),
        [[f"{float(values[i]):.3f}" for i in row] for row in rows],
        title=f"{unit}, the most likely first",
    )


def round_trip(path: Path, x: Tensor, latent: Tensor, decoded: Tensor, spec: DataSpec) -> None:
    """Data, their latents, what decoding those gives, and the difference, enlarged.

    For points in the plane: data with the decoded ones, and the latents.

    Args:
        path: PNG file to write.
        x: Data at the model's scale, shape (n, *spec.shape); the first 12 are shown.
        latent: Their latents, in units of the prior's deviation, likewise.
        decoded: Decoded latents, likewise.
        spec: What the data are.

    Raises:
        ValueError: If such data have no picture.
    """
    _check_shown(spec)
    if not _is_image(spec):
        _save_points(path, x, latent, decoded)
        return
    x, latent, decoded = (v[:AT_MOST].detach().double().cpu() for v in (x, latent, decoded))
    difference = decoded - x
    largest = float(difference.abs().max())
    factor = _round_number(0.5 * spec.span / largest) if largest > 0 else 1
    images = [
        to_unit(x, spec),
        (0.5 + latent / 6).clamp(0, 1),  # ±3 deviations
        to_unit(decoded, spec),
        (0.5 + factor * difference / spec.span).clamp(0, 1),
    ]
    names = ["data", "latent", "decoded", f"difference\n× {factor:g}"]
    _save_rows(path, images, names, title=f"largest difference {largest:.2g}")


def interpolation(path: Path, x: Tensor, spec: DataSpec) -> None:
    """Each path between two data in a row; of points in the plane, the curves.

    Args:
        path: PNG file to write.
        x: Points of each path at the model's scale, shape (P, steps, *spec.shape); the first 12
            paths are shown.
        spec: What the data are.

    Raises:
        ValueError: If such data have no picture.
    """
    _check_shown(spec)
    x = x[:AT_MOST].detach().cpu()
    if _is_image(spec):
        rows = [to_unit(row, spec) for row in x]
        _save_rows(path, rows, [""] * len(x), title="from one datum to another")
        return
    figure = new_figure(5, 5)
    axis = figure.subplots()
    for curve in x:
        axis.plot(curve[:, 0], curve[:, 1], ".-", lw=1)
        axis.plot(curve[[0, -1], 0], curve[[0, -1], 1], "ko", ms=4)
    axis.set(aspect="equal", title="paths between data (black)")
    save_figure(path, figure)


def _round_number(limit: float) -> float:
    """The largest of 1, 2, 5, 10, 20 ... and 0.5, 0.2 ... that is at most `limit`."""
    power = 10 ** math.floor(math.log10(limit))
    return max(m * power for m in (1, 2, 5) if m == 1 or m * power <= limit)


def _is_image(spec: DataSpec) -> bool:
    return len(spec.shape) == 3 and spec.shape[0] in (1, 3)


def _check_shown(spec: DataSpec) -> None:
    if not can_show(spec):
        raise ValueError(
            f"spec must be of images (C, H, W) with C = 1 or 3 or of points (2,) to be shown, "
            f"got shape {spec.shape}"
        )


def _order(images: Tensor, values: Tensor, spec: DataSpec) -> Tensor:
    """Places by ascending value, after a check of the arguments."""
    _check_shown(spec)
    if len(images) == 0 or values.shape != images.shape[:1]:
        raise ValueError(
            f"values must hold one number for each of at least one datum, got shape "
            f"{tuple(values.shape)} for {len(images)}"
        )
    return values.detach().cpu().argsort(stable=True)


def _save_rows(
    path: Path,
    rows: Sequence[Tensor],
    names: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
) -> None:
    """Rows of images with values in [0, 1], each (n, C, H, W), names left, captions below."""
    columns = max(map(len, rows))
    height = 1.04 if captions is None else 1.2  # of a row, in tiles
    figure = new_figure(TILE * columns + 0.9 * any(names), height * TILE * len(rows) + 0.3)
    for axis in (axes := figure.subplots(len(rows), columns, squeeze=False)).flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            _show(axes[i, j], image)
            if captions is not None:
                axes[i, j].set_xlabel(captions[i][j], fontsize=8, labelpad=2)
        axes[i, 0].set_ylabel(
            names[i],
            fontsize=9,
            rotation=0,
            horizontalalignment="right",
            verticalalignment="center",
        )
    if title is not None:
        figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def _show(axis: Axes, image: Tensor) -> None:
    colours: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if len(image) == 1 else {}
    axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", **colours)


def _save_scatter(path: Path, x: Tensor, values: Tensor, unit: str) -> None:
    """Points in the plane, the likely ones bright and on top."""
    order = values.detach().cpu().argsort(descending=True)
    x, values = x.detach().cpu()[order], values.detach().cpu()[order]
    figure = new_figure(5.6, 4.6)
    axis = figure.subplots()
    points = axis.scatter(x[:, 0], x[:, 1], c=values, s=8, cmap="viridis_r")
    figure.colorbar(points, label=unit).ax.invert_yaxis()
    axis.set(aspect="equal", title=f"{len(x)} points, the likely ones bright")
    save_figure(path, figure)


def _save_points(path: Path, x: Tensor, latent: Tensor, decoded: Tensor) -> None:
    """Data and latents beside one another, a datum and its latent in the same colour."""
    x, latent, decoded = (v.detach().cpu() for v in (x, latent, decoded))
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
