"""The transforms of a training run, fitted to the rows that it trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..._envelope import read_envelope
from ...data import Dataset, DataSpec
from ...names.config import Config
from ...plain import ConfigError
from ...train import Split

__all__ = ["in_units"]


def in_units(settings: Config, data: Dataset, checkpoint: Path | None, source: str) -> Dataset:
    """The training data with their transforms.

    A run that continues keeps the numbers in its checkpoint: the same sums on another machine may
    differ by a rounding, with which its data would not be the same.

    Args:
        settings: The config.
        data: The training data, without transforms.
        checkpoint: The checkpoint from which the run may continue; None if it starts again.
        source: Name of the config, for messages.

    Raises:
        ConfigError: If a transform does not suit the data; the message names the feature.
    """
    try:
        texts = settings.data.transforms_of(data.spec)
        if not texts:
            return data
        known = None if checkpoint is None else _stored(checkpoint, settings)
        if known is not None and known.shape == data.spec.shape:
            return data.in_units_of(known)
        return data.fitted(texts, _trained_rows(settings, data))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{source}: data.transform: {error}") from error


def _trained_rows(settings: Config, data: Dataset) -> torch.Tensor | None:
    """The rows that are trained on; None for all."""
    split = Split.of(len(data), settings.train)
    return torch.from_numpy(split.rows(np.arange(split.trained))) if split.held else None


def _stored(checkpoint: Path, settings: Config) -> DataSpec | None:
    """The description in a checkpoint of the same config; None without one, or without transforms.

    What is wrong with the file is said later, when the run is resumed.
    """
    try:
        with open(checkpoint, "rb") as file:
            about = read_envelope(file)["metadata"]
        then = about["config"]["data"].get("transform")
        now = settings.to_dict()["data"].get("transform")
        spec = DataSpec.from_dict(about["data"])
    except (OSError, LookupError, TypeError, ValueError, AttributeError):
        return None
    return spec if then == now and spec.transform is not None else None
