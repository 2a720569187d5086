"""The pictures of a training run. If one cannot be drawn, a warning says so; training goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._text import reason_of
from ...data import Dataset, DataSpec
from ...ema import EMA
from ...output.figures import (
    save_autoencoder_figure,
    save_classifier_figure,
    save_training_figure,
)
from ...output.progress import out_of_memory
from ...output.tiles import in_tiles, save_samples
from ...samplers import sample
from ...score import NetworkScore
from ..conditions import conditions_like

__all__ = [
    "draw_accuracy",
    "draw_losses",
    "draw_parts",
    "draw_samples",
    "failure_as_warning",
    "shown_spec",
]

_SAMPLES = 64
_ROWS = 400  # samples of vectors, whose picture shows all of them together


def draw_losses(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss against step and error against time.

    Args:
        path: PNG file to write.
        rows: The lines of the log.
    """
    with failure_as_warning(path):
        save_training_figure(path, rows)


def draw_accuracy(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss against step and accuracy against time, for a classifier.

    Args:
        path: PNG file to write.
        rows: The lines of the log.
    """
    with failure_as_warning(path):
        save_classifier_figure(path, rows)


def draw_parts(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss of an autoencoder and its two parts against step.

    Args:
        path: PNG file to write.
        rows: The lines of the log.
    """
    with failure_as_warning(path):
        save_autoencoder_figure(path, rows)


def draw_samples(
    path: Path,
    model: NetworkScore,
    ema: EMA,
    data: Dataset,
    batch: int,
    arrived: Sequence[int],
) -> None:
    """Draw samples, always from the same noise and under the same conditions.

    These are all classes in turn, or conditions of the data.

    Args:
        path: PNG file to write.
        model: The model.
        ema: The averaged weights, with which the samples are drawn.
        data: The training data.
        batch: Samples computed at a time.
        arrived: The signals that have arrived, from `signals_held`. At the first signal the picture
            is abandoned.
    """

    def give_up(*_: object) -> None:
        if arrived:
            raise _GivenUp

    with failure_as_warning(path):
        give_up()
        spec = shown_spec(model, data)
        y, n = None, _SAMPLES if in_tiles(spec) else _ROWS
        if data.labels is not None:
            y = conditions_like(data.labels, data.spec, n)
        with ema.applied(model.net):
            shape, batch = (n, *data.spec.shape), min(n, batch)
            out = sample(model, shape=shape, y=y, batch=batch, on_step=give_up)
        if model.decoder is not None:
            save_samples(path, spec.to_model(out.x) if in_tiles(spec) else out.x, spec)
            return
        x = out.scaled if in_tiles(data.spec) else out.x
        save_samples(path, x, data.spec, _beside(data))


def shown_spec(model: nn.Module, data: Dataset) -> DataSpec:
    """Description of the data in the pictures: decoded ones, for a score model of latents."""
    decoder = model.decoder if isinstance(model, NetworkScore) else None
    return data.spec if decoder is None else decoder.spec


def _beside(data: Dataset) -> Tensor | None:
    """Some data in units to be drawn beside samples of vectors; else, and for a stream, None."""
    if in_tiles(data.spec) or data.spec.levels is not None or not isinstance(data, Dataset):
        return None
    return data.x[torch.linspace(0, len(data) - 1, min(_ROWS, len(data))).long()]


class _GivenUp(Exception):
    """A picture is abandoned because a signal has arrived."""


@contextmanager
def failure_as_warning(path: Path) -> Iterator[None]:
    """A block that draws a picture: what goes wrong in it becomes a warning."""
    try:
        yield
    except _GivenUp:
        pass
    except Exception as error:
        said = f"{type(error).__name__}: {reason_of(error)}"
        reason = "out of memory" if out_of_memory(error) else said
        warnings.warn(f"{path} was not drawn ({reason}); training goes on", stacklevel=4)
