"""Autoencoders by name, and their checkpoints.

The file is like that of a score model: tensors `model.*`, and in the metadata "data" and "config".
The config has a table "autoencoder" in place of "sde" and "net".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from .._envelope import read_envelope
from .._tensor import check_type
from .._text import reason_of
from ..autoencoder import (
    Autoencoder,
    convolutional_autoencoder,
    linear_autoencoder,
    mlp_autoencoder,
)
from ..checkpoint import CheckpointError, RawCheckpoint, load_into, read_checkpoint, save_checkpoint
from ..data import DataSpec
from ..interop.autoencoder_kl import is_autoencoder_folder, read_autoencoder
from ..plain import construct, split_kind

__all__ = [
    "AUTOENCODERS",
    "autoencoder_content",
    "build_autoencoder",
    "holds_autoencoder",
    "is_of_autoencoder",
    "load_autoencoder",
    "make_autoencoder",
    "save_autoencoder",
]

AUTOENCODERS: dict[str, Callable[..., Autoencoder]] = {
    "convolutional": convolutional_autoencoder,
    "mlp": mlp_autoencoder,
    "linear": linear_autoencoder,
}


_LAYER_COUNTS = ("layers", "depth")  # options that are numbers of layers


def holds_autoencoder(path: Path) -> bool:
    """Whether a file is the checkpoint of an autoencoder alone; it reads the header only."""
    try:
        with open(path, "rb") as file:
            return is_of_autoencoder(read_envelope(file)["metadata"])
    except (OSError, LookupError, ValueError):
        return False


def is_of_autoencoder(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a checkpoint are those of an autoencoder alone."""
    config = metadata.get("config")
    return isinstance(config, dict) and "autoencoder" in config and "sde" not in config


def make_autoencoder(table: Mapping[str, Any], spec: DataSpec, where: str) -> Autoencoder:
    """An autoencoder with fresh weights from its kind and options.

    Args:
        table: The table [autoencoder] of a config: "kind", and the options of this kind.
        spec: What the data are.
        where: Source and key path, for messages.

    Raises:
        ConfigError: If the kind or an option is unknown, or does not suit the data.
    """
    make, options = split_kind(AUTOENCODERS, table, where)
    return construct(partial(make, spec), options, where)


def save_autoencoder(path: str | Path, autoencoder: Autoencoder) -> None:
    """Save an autoencoder for `load_autoencoder`, with the scale of its latents.

    Args:
        path: The file, usually with the suffix `.safetensors`; its folder must exist.
        autoencoder: The autoencoder, on any device.

    Raises:
        TypeError: If it is none, or has networks of the user's own.
        ValueError: If a weight is not finite.
        OSError: If the file cannot be written; an older file is then unchanged.
    """
    save_checkpoint(path, *autoencoder_content(autoencoder))


def autoencoder_content(autoencoder: Autoencoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors `model.*` and the metadata of an autoencoder's checkpoint.

    Raises:
        TypeError: As for `save_autoencoder`.
    """
    check_type("autoencoder", autoencoder, Autoencoder)
    if autoencoder.table is None:
        raise TypeError("autoencoder has networks of your own, from which no file can be made")
    tensors = {f"model.{name}": value for name, value in autoencoder.state_dict().items()}
    metadata = {
        "trained": False,
        "config": {"autoencoder": autoencoder.table},
        "data": autoencoder.spec.to_dict(),
        "provenance": {"scoresde": __version__, "torch": torch.__version__},
    }
    return tensors, metadata


def load_autoencoder(path: str | Path, device: torch.device | str = "cpu") -> Autoencoder:
    """Load an autoencoder from its checkpoint: frozen, in evaluation mode, in float32.

    Args:
        path: The file; or a folder of diffusers with an AutoencoderKL, or with a pipeline that has
            one (see `interop.autoencoder_kl` for its options).
        device: Where to put it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds no autoencoder.
    """
    if is_autoencoder_folder(Path(path)):
        return read_autoencoder(path).to(device)
    return build_autoencoder(read_checkpoint(path)).to(device)


@torch.inference_mode(False)  # inference tensors could not be differentiated through
def build_autoencoder(raw: RawCheckpoint, prefix: str = "model.") -> Autoencoder:
    """The second half of `load_autoencoder`, for a checkpoint that has been read.

    Args:
        raw: A checkpoint whose metadata are those of `autoencoder_content`.
        prefix: What the names of its tensors begin with.

    Raises:
        CheckpointError: If it holds no autoencoder, or tensors and options do not fit together.
    """
    if not is_of_autoencoder(raw.metadata):
        raise CheckpointError("is a score model, not an autoencoder", raw.path)
    try:
        spec, table = (
            DataSpec.from_dict(raw.metadata["data"]),
            raw.metadata["config"]["autoencoder"],
        )
        _check_layer_count(table, len(raw.tensors))
        with torch.device("meta"):
            made = make_autoencoder(table, spec, "autoencoder")
    except Exception as error:
        reason = f"its metadata are not understood: {reason_of(error)}"
        raise CheckpointError(reason, raw.path) from error
    load_into(made, raw, prefix)
    return made.requires_grad_(False).eval()


def _check_layer_count(table: Mapping[str, Any], most: int) -> None:
    """Raise ValueError if options ask for more layers than the file has tensors.

    Making millions of layers takes minutes even without memory for their weights.
    """
    levels = table.get("channels")
    levels = len(levels) if isinstance(levels, list) else 1
    for name in _LAYER_COUNTS:
        count = table.get(name, 1)
        if isinstance(count, int) and count * levels > most:
            raise ValueError(
                f"{name} is {count} for {levels} levels, but the file has {most} tensors"
            )
