"""Pictures: grids of samples, curves, and the style of their lines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from .._files import atomic_write
from ..data import DataSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "MARKERS",
    "line_style",
    "new_figure",
    "png_bytes",
    "save_figure",
    "save_grid",
    "save_autoencoder_figure",
    "save_classifier_figure",
    "save_training_figure",
    "to_grid",
    "to_unit",
]

# Paul Tol's "muted" scheme, whose colours remain distinct for colour-blind readers, with black
# instead of its palest colour.
COLOURS = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#AA4499"),
    *("#999933", "#000000", "#44AA99", "#882255", "#DDCC77"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")

LEAST_SIDE = 28  # least side of a sample in a grid, in pixels
GAP = 2  # grey pixels around each of several samples in a grid


def line_style(i: int) -> dict[str, str]:
    """Colour and marker of the i-th line; any two of 100 lines differ in at least one of them."""
    n = len(COLOURS)
    return {"color": COLOURS[i % n], "marker": MARKERS[(i + i // n) % len(MARKERS)]}


def to_unit(x: Tensor, spec: DataSpec) -> Tensor:
    """Map data from the model's scale to [0, 1], black to white; quantized data are rounded.

    Args:
        x: Data on the model's scale, shape (n, *D).
        spec: What the data are.

    Returns:
        Shape (n, *D), float32 on the CPU.
    """
    if spec.levels is not None:
        return spec.to_levels(x.detach().cpu()).float() / (spec.levels - 1)
    return ((x.detach().float().cpu() - spec.low) / spec.span).clamp(0, 1)


def to_grid(x: Tensor, spec: DataSpec, columns: int | None = None) -> Image.Image:
    """A picture of samples side by side, in reading order.

    Args:
        x: Samples on the model's scale, shape (n, C, H, W) with C = 1 or 3.
        spec: What the data are; values are rounded to its levels.
        columns: Images per row; None for about as many columns as rows.

    Returns:
        An 8-bit RGB image; small samples are enlarged by a whole factor to about 28 pixels.
    """
    columns = min(columns or math.ceil(math.sqrt(len(x))), len(x))
    factor = max(1, round(LEAST_SIDE / max(x.shape[2:])))
    tiles = to_unit(x, spec).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    n, _, height, width = tiles.shape
    gap = GAP if n > 1 else 0
    down, across = height + gap, width + gap
    picture = torch.full((3, math.ceil(n / columns) * down + gap, columns * across + gap), 0.5)
    for i, tile in enumerate(tiles):
        top, left = gap + i // columns * down, gap + i % columns * across
        picture[:, top : top + height, left : left + width] = tile
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def save_grid(path: Path, x: Tensor, spec: DataSpec) -> None:
    """Write `to_grid` as a PNG file."""
    with atomic_write(path) as file:
        to_grid(x, spec).save(file, "PNG")


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """A matplotlib figure that needs no display and does not change pyplot's state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figure(path: Path, figure: Figure, dpi: int = 110) -> None:
    """Write the figure as a PNG file."""
    with atomic_write(path) as file:
        file.write(png_bytes(figure, dpi))


def save_training_figure(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw loss against step, and, from the last log lines, the unweighted error of ε against time.

    The losses of validations are drawn as well: on held-out data, with a band of one standard
    error, and on training data.

    Args:
        path: PNG file to write.
        rows: Lines of `log.jsonl`.
    """
    _save_log_figure(path, rows, "weighted loss per dimension", "error |ε̂ − ε|²/D")


def save_classifier_figure(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw loss against step and accuracy against time, as `save_training_figure`.

    Args:
        path: PNG file to write.
        rows: Lines of `log.jsonl` of the training of a classifier.
    """
    _save_log_figure(path, rows, "cross-entropy, nats", "accuracy")


def save_autoencoder_figure(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the loss of an autoencoder against step, and its two parts.

    Args:
        path: PNG file to write.
        rows: Lines of `log.jsonl` of the training of an autoencoder.
    """
    rows = [row for row in rows if row["loss"] is not None]
    if not rows:
        return
    figure = new_figure(12, 4)
    left, *others = figure.subplots(1, 3)
    steps = [row["step"] for row in rows]
    left.plot(steps, [row["loss"] for row in rows], lw=1, color="0.6", label="training steps")
    _draw_validations(left, rows)
    low, high = left.get_ylim()  # the density of continuous data may be above 1
    left.set(xlabel="step", ylabel="loss, nats/dim", yscale="log" if low > 0 else "linear")
    left.legend()
    held = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    for axis, name in zip(others, ("reconstruction", "kl"), strict=True):
        axis.plot(steps, [row[name] for row in rows], lw=1, color="0.6")
        axis.plot([at for at, _ in held], [v[name] for _, v in held], color=COLOURS[1])
        axis.set(xlabel="step", ylabel=f"{_PARTS[name]}, nats/dim")
    for axis in (left, *others):
        axis.grid(alpha=0.3)
    save_figure(path, figure)


_PARTS = {"reconstruction": "reconstruction −log p(x | z)", "kl": "KL(q(z | x) ‖ N(0, I))"}


def _save_log_figure(
    path: Path, rows: Sequence[dict[str, Any]], of_loss: str, of_errors: str
) -> None:
    """Draw loss against step, and errors against time, or 1 − errors if they are an accuracy."""
    rows = [row for row in rows if row["loss"] is not None]
    if not rows:
        return
    figure, accurate = new_figure(10, 4), of_errors == "accuracy"
    left, right = figure.subplots(1, 2)
    steps, losses = zip(*((row["step"], row["loss"]) for row in rows), strict=True)
    left.plot(steps, losses, lw=1, color="0.6", label="training steps")
    _draw_validations(left, rows)
    left.set(xlabel="step", ylabel=of_loss, yscale="log")
    latest = torch.tensor(
        [[math.nan if e is None else e for e in row["error_by_t"]] for row in rows[-20:]]
    )
    errors = latest.nanmean(0)
    shown = 1 - errors if accurate else errors
    right.plot((torch.arange(len(errors)) + 0.5) / len(errors), shown, "o-")
    right.set(xlabel="time t", ylabel=of_errors, yscale="linear" if accurate else "log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend()
    save_figure(path, figure)


def _draw_validations(axis: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """The losses of the validations among the lines of a log, if there are any."""
    found = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    found = [(step, v) for step, v in found if v["loss"] is not None]
    if not found:
        return
    steps = [step for step, _ in found]
    loss, error = (torch.tensor([v[key] for _, v in found]) for key in ("loss", "std_error"))
    axis.fill_between(steps, loss - error, loss + error, color=COLOURS[1], alpha=0.25, lw=0)
    axis.plot(steps, loss, color=COLOURS[1], label="averaged weights, held-out data")
    training = [math.nan if v["training_loss"] is None else v["training_loss"] for _, v in found]
    axis.plot(steps, training, color=COLOURS[0], label="averaged weights, training data")
