"""The autoencoder inside the checkpoint of a latent model.

Such a checkpoint has, beside what the checkpoint of every score model has,

- tensors autoencoder.*: those of the autoencoder
- metadata "latent": "autoencoder", the metadata of the autoencoder's file; "sha256", the digest of
  this file; "data", the description of the decoded data

The "data" of the checkpoint itself describe the latents, at which the network is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..autoencoder import Autoencoder
from ..checkpoint import RawCheckpoint, in_memory
from ..data import DataSpec
from ..plain import ConfigError, check_keys, check_types
from ..score import LatentDecoder
from .autoencoders import autoencoder_content, build_autoencoder

__all__ = [
    "decoded_spec_of",
    "decoder_of",
    "latent_content",
    "latent_spec_for",
]

_TENSORS = "autoencoder."  # the beginning of the names of its tensors
_KEYS = {"autoencoder": dict, "sha256": str, "data": dict}
_CONDITIONS = ("classes", "class_names", "vector", "tokens")


def latent_spec_for(autoencoder: Autoencoder, data: DataSpec) -> DataSpec:
    """The description of the latents of some data: with their name and conditions.

    A condition that is an array of the data's size has another size than the latents, and is left
    out.

    Args:
        autoencoder: The autoencoder.
        data: Description of the data that are encoded.
    """
    own = {name: getattr(data, name) for name in _CONDITIONS}
    name = f"latents of {data.name}" if data.name else "latents"
    return replace(autoencoder.latent_spec, name=name, **own)


def latent_content(
    autoencoder: Autoencoder, data: DataSpec, source: RawCheckpoint | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata by which a checkpoint contains its autoencoder.

    Args:
        autoencoder: The autoencoder.
        data: Description of the decoded data.
        source: The file that it came from; None if it has none.

    Raises:
        TypeError: If it has networks of the user's own.
    """
    if source is None:
        source = in_memory("autoencoder", *autoencoder_content(autoencoder))
    tensors = {f"{_TENSORS}{name}": value for name, value in autoencoder.state_dict().items()}
    kept = {k: v for k, v in source.metadata.items() if k in ("config", "data", "provenance")}
    about = {"autoencoder": kept, "sha256": source.sha256, "data": data.to_dict()}
    return tensors, {"latent": about}


def decoded_spec_of(metadata: Mapping[str, Any]) -> DataSpec | None:
    """The description of the decoded data; None unless the checkpoint is of a latent model.

    Raises:
        ConfigError: If the metadata are not understood.
    """
    about = metadata.get("latent")
    if about is None:
        return None
    if not isinstance(about, dict):
        raise ConfigError(f"latent: must be a table, got {about!r}")
    check_keys(about, _KEYS, "latent", tuple(_KEYS))
    check_types(about, _KEYS, "latent")
    return DataSpec.from_dict(about["data"])


def decoder_of(raw: RawCheckpoint) -> LatentDecoder | None:
    """The decoder in a checkpoint, frozen, on the CPU; None unless it is of a latent model.

    Raises:
        CheckpointError: If the tensors do not fit the autoencoder.
        ConfigError: If the metadata are not understood.
    """
    data = decoded_spec_of(raw.metadata)
    if data is None:
        return None
    about = raw.metadata["latent"]
    own = RawCheckpoint(raw.path, raw.tensors, about["autoencoder"], about["sha256"])
    return LatentDecoder(build_autoencoder(own, _TENSORS), data)
