"""What a training run of an autoencoder does besides: the scale of its latents, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...autoencoder import Autoencoder
from ...data import Dataset
from ...ema import EMA
from ...evaluation import evaluating, own_context
from ...output.tiles import in_tiles, save_samples
from ...train import VALIDATED, Training, device_of
from .previews import failure_as_warning

__all__ = ["draw_reconstructions", "latent_scale"]

_PAIRS = 32  # data in the picture, each with its reconstruction
_IN_A_ROW = 8  # as many as a picture of 64 images has
_ROWS = 400  # vectors, whose picture shows all of them together


def latent_scale(training: Training, ema: EMA) -> dict[str, Tensor]:
    """Mean and standard deviation of the latents of the averaged weights, under their names.

    They are measured on `VALIDATED` data that are trained on, or on all if there are fewer.

    Args:
        training: A training of an autoencoder.
        ema: The averaged weights.
    """
    net, examples = training.model.net, training.examples
    count = min(VALIDATED, examples.split.trained)
    data = examples.data.taken(examples.split.some_rows(count))
    with own_context(), ema.applied(net), evaluating(net):
        net.fit_scale(_batches(data, training.settings.batch, device_of(net)))
        found = {name: getattr(net, name).clone() for name in ("latent_mean", "latent_std")}
    return {f"model.{name}": value for name, value in found.items()}


def _batches(data: Dataset, size: int, device: torch.device) -> Iterator[Tensor]:
    for part in torch.arange(len(data)).split(size):
        yield data.x[part].to(device)


def draw_reconstructions(path: Path, training: Training, ema: EMA) -> None:
    """Draw data beside their reconstructions by the averaged weights, from the mean of q(z | x).

    Images and other data with a picture of their own are drawn in rows: a row of data, and below it
    the row of their reconstructions. Reconstructed vectors are drawn with the data beside them.

    Args:
        path: PNG file to write.
        training: A training of an autoencoder.
        ema: The averaged weights.
    """
    data, net = training.examples.data, training.model.net
    many = _PAIRS if in_tiles(data.spec) else _ROWS
    rows = torch.linspace(0, len(data) - 1, min(many, len(data))).long()
    with failure_as_warning(path), own_context(), torch.no_grad():
        with ema.applied(net), evaluating(net):
            x, made = _pair(net, data.x[rows].to(device_of(net)))
        if in_tiles(data.spec):
            pairs = zip(x.split(_IN_A_ROW), made.split(_IN_A_ROW), strict=True)
            save_samples(path, torch.cat([part for pair in pairs for part in pair]), data.spec)
        else:
            save_samples(path, data.spec.to_units(made), data.spec, data.spec.to_units(x))


def _pair(net: Autoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Points at the model's scale and their reconstructions, on the CPU."""
    points = x if net.spec.levels is None else net.spec.encode(x)
    return points.float().cpu(), net.decode_raw(net.raw_posterior(x)[0]).float().cpu()
