"""From the file of a checkpoint to a model that is ready to use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import CheckpointError, RawCheckpoint, load_into, read_checkpoint
from ..data import DataSpec
from ..plain import ConfigError, check_types
from ..score import NetworkScore
from ..shipped import locate
from .config import NETS, Config

__all__ = ["Checkpoint", "build", "config_of", "load"]

# Types of optional entries of the metadata.
_ABOUT = {"steps_done": int | None, "seconds": float | None, "provenance": dict}


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with the description of its data and training.

    Attributes:
        model: The score model with averaged weights: frozen, in evaluation mode, always in float32.
        data: Description of the data.
        config: Configuration of the training.
        metadata: All metadata of the file, steps and provenance included.
        sha256: Digest of the file's content.
        path: The file.
    """

    model: NetworkScore
    data: DataSpec
    config: Config
    metadata: dict[str, Any]
    sha256: str
    path: Path


def load(name_or_path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint: a shipped one by name, such as "digits-vp", or a file.

    The file is data, never code: safetensors with a checksum over tensors and metadata.

    Args:
        name_or_path: A name of `shipped("checkpoints")` or the path of a file.
        device: Device of the model.

    Returns:
        The model in float32, ready for `sample` and `log_likelihood`.

    Raises:
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
        CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde, or its
            tensors do not fit its config.
    """
    return build(read_checkpoint(locate("checkpoints", name_or_path)), device)


@torch.inference_mode(False)  # inference tensors could not be differentiated through
def build(raw: RawCheckpoint, device: torch.device | str = "cpu") -> Checkpoint:
    """The second half of `load`: the model of a checkpoint that has been read.

    The network is first made without memory, on PyTorch's "meta" device. So a network that does not
    fit the tensors is refused at once, even if its config describes a very large network.

    Args:
        raw: From `read_checkpoint`.
        device: Device of the model.

    Raises:
        CheckpointError: If config and tensors of the file do not fit together.
    """
    config, spec = config_of(raw)
    with _understood(raw):
        _check_layer_count(config, raw)
        with torch.device("meta"):
            model = config.build_model(spec)
        load_into(model.net, raw, "model.")
    model = model.requires_grad_(False).eval().to(device)
    return Checkpoint(model, spec, config, raw.metadata, raw.sha256, raw.path)


def config_of(raw: RawCheckpoint) -> tuple[Config, DataSpec]:
    """The config and data specification inside a checkpoint.

    Raises:
        CheckpointError: If they are missing or cannot be read.
    """
    with _understood(raw):
        values = {key: raw.metadata[key] for key in ("config", "data")}
        _check_sizes(raw.metadata)
        about = {key: raw.metadata[key] for key in _ABOUT if key in raw.metadata}
        check_types(about, _ABOUT, "metadata")
        config = Config.from_dict(values["config"])
        if not isinstance(values["data"], dict):
            raise ConfigError(f"data: must be a table, got {values['data']!r}")
        return config, DataSpec.from_dict(values["data"])


@contextmanager
def _understood(raw: RawCheckpoint) -> Iterator[None]:
    """Turn every error caused by wrong metadata inside the block into a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"its metadata are not understood: {reason}", raw.path) from error


def _check_sizes(value: Any) -> None:
    """Raise ConfigError on an integer of 2^64 or more: even a seed is smaller."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_sizes(item)
    elif isinstance(value, int) and not -(2**64) < value < 2**64:
        raise ConfigError("an integer is 2^64 or larger")


def _check_layer_count(config: Config, raw: RawCheckpoint) -> None:
    """Raise ConfigError if the network has more layers than the file has tensors.

    Making millions of layers takes minutes even without memory for their weights.
    """
    most = len(raw.tensors)
    for name, value in config.net.items():
        counts = name in NETS[config.net["kind"]].layer_counts
        count = value if counts else len(value) if isinstance(value, list) else 0
        if count > most:
            raise ConfigError(f"net.{name}: {count} layers, but the file has {most} tensors")
