"""The files of `scoresde latent`.

- latents.npz: data, codes, decoded data, paths, samples with their log-density, in units
- round_trip.png, interpolation.png and samples.png, for images and points in the plane
- translated.png: images, and below them what their codes are under another class
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._condition import take_rows
from ..data import Dataset, DataSpec
from ..likelihood import Interpolation, RoundTrip, ScoredInterpolation, ScoredSamples
from ..output import pictures as figures
from ..output.figures import to_unit
from ..output.files import save_arrays
from ..output.restored import Tiles, save_restoration
from ..output.tiles import can_show
from .conditions import condition_arrays

__all__ = ["LATENTS_FILE", "PICTURES", "Explored", "write_latents"]

SAMPLES_SHOWN = 64  # samples in the picture; the arrays hold all samples
LATENTS_FILE = "latents.npz"
PICTURES = ("round_trip.png", "interpolation.png", "samples.png", "translated.png")


@dataclass(frozen=True)
class Explored:
    """Round trips, paths and samples of one request.

    Attributes:
        trip: Data, codes and decoded data.
        codes: The codes in units of the prior's standard deviation.
        paths: Paths between data.
        samples: Samples with their log-density; None if no samples were requested.
        values: −log p of the samples per dimension in `DataSpec.unit`, at the model's scale, shape
            (n,), or None.
        translated: The codes of the data, decoded as another class; None without one.
        label: The name of this class.
        path_values: −log p of the points of the paths, as `values`, shape (P, steps); None if it
            was not requested.
    """

    trip: RoundTrip
    codes: Tensor
    paths: Interpolation
    samples: ScoredSamples | None = None
    values: Tensor | None = None
    translated: Tensor | None = None
    label: str = ""
    path_values: Tensor | None = None


def _in_units(tensors: dict[str, Tensor], spec: DataSpec) -> dict[str, Tensor]:
    """The arrays with data and log p in the user's units; codes and errors stay as they are."""
    found = dict(tensors)
    for name in ("x", "decoded", "path_x", "sample_x", "translated"):
        if name in tensors:
            z = tensors[name].reshape(-1, *spec.shape)
            found[name] = spec.to_units(z).reshape(tensors[name].shape)
    for what in ("sample", "path"):
        if f"{what}_log_prob" in tensors:
            log_prob = tensors[f"{what}_log_prob"]
            x = spec.to_units(tensors[f"{what}_x"].double().reshape(-1, *spec.shape))
            found[f"{what}_log_prob"] = log_prob + spec.log_det(x).reshape(log_prob.shape)
    return found


def write_latents(
    out: Path, spec: DataSpec, data: Dataset, rows: np.ndarray, explored: Explored
) -> list[str]:
    """Write the arrays, and pictures if the data can be drawn.

    Returns:
        The names of the files.
    """
    tensors = _tensors(explored)
    if spec.transform is not None:
        tensors = _in_units(tensors, spec)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    if data.labels is not None:
        y = take_rows(data.labels, torch.from_numpy(rows))
        arrays |= condition_arrays(y, data.spec.condition)
    save_arrays(out / LATENTS_FILE, rows=rows, **arrays)
    return [LATENTS_FILE, *_draw(out, spec, explored)]


def _tensors(explored: Explored) -> dict[str, Tensor]:
    """The results by the names of their arrays."""
    trip, paths, samples = explored.trip, explored.paths, explored.samples
    tensors = {name: getattr(trip, name) for name in ("x", "latent", "decoded", "error")}
    tensors |= {f"path_{name}": getattr(paths, name) for name in ("x", "latent", "error")}
    if isinstance(paths, ScoredInterpolation):
        tensors |= {f"path_{name}": getattr(paths, name) for name in ("log_prob", "std_error")}
    if explored.translated is not None:
        tensors["translated"] = explored.translated
    if samples is not None:
        tensors |= {
            "sample_x": samples.x,
            "sample_x_init": samples.latent,
            "sample_log_prob": samples.log_prob,
            "sample_std_error": samples.std_error,
        }
    return tensors


def _draw(out: Path, spec: DataSpec, explored: Explored) -> list[str]:
    """Draw what can be drawn; return the names of the files."""
    if not can_show(spec):
        return []
    trip, samples = explored.trip, explored.samples
    first, second, third, fourth = (out / name for name in PICTURES)
    figures.round_trip(first, trip.x, explored.codes, trip.decoded, spec)
    figures.interpolation(second, explored.paths.x, spec, explored.path_values)
    names = [*PICTURES[:2]]
    if samples is not None:
        shown = samples.x[:SAMPLES_SHOWN].cpu(), explored.values[:SAMPLES_SHOWN]
        figures.sorted_by_value(third, *shown, spec)
        names.append(PICTURES[2])
    if explored.translated is not None and spec.is_image:
        rows = [("data", trip.x), (f"as {explored.label}", explored.translated)]
        tiles = [Tiles(name, to_unit(x.cpu(), spec)) for name, x in rows]
        save_restoration(fourth, tiles, "the codes of the data, decoded as another class")
        names.append(PICTURES[3])
    return names
