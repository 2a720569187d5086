"""The latents of training data, for a run whose config has the table [latent].

All data are encoded once, before the first step. The draw of q(z | x) for a datum depends on
train.seed and on its row alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._condition import ConditionSpec
from ..._rows import Rows
from ...autoencoder import Autoencoder
from ...checkpoint import CheckpointError, RawCheckpoint, in_memory
from ...data import Dataset
from ...interop.autoencoder_kl import is_autoencoder_folder, read_autoencoder
from ...names.autoencoders import autoencoder_content, build_autoencoder
from ...names.config import Config
from ...names.latent_source import LatentSource
from ...names.latents import latent_content, latent_spec_for
from ...names.sources import read_source
from ...noise import SampleNoise
from ...plain import ConfigError
from ...score import LatentDecoder, NetworkScore
from .files import CHECKPOINT

__all__ = ["LatentEncoding", "LatentData", "stored_autoencoder"]

AT_A_TIME = 256  # data


@dataclass(frozen=True)
class LatentData(Dataset):
    """Latents of a data set, with its labels.

    Args:
        source: The data that were encoded. A run is known by these: latents that another machine
            computes may differ by a rounding.
    """

    source: Dataset | None = None

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the data that were encoded, with the present labels."""
        return replace(self.source, labels=self.labels).fingerprint

    def in_memory(self) -> LatentData:
        """The same data after all of them have been encoded."""
        return (
            self if isinstance(self.x, Tensor) else replace(self, x=torch.cat([*self.x.blocks()]))
        )


class _Encoded(Rows):
    """Latents of data, encoded when they are read."""

    at_a_time = AT_A_TIME

    def __init__(self, data: Dataset, encoding: LatentEncoding) -> None:
        shape = (len(data), *encoding.autoencoder.latent_shape)
        super().__init__(f"{data.name} to encode it", shape, torch.float32)
        self.data, self.encoding = data.scaled, encoding

    @torch.no_grad()
    def read(self, rows: np.ndarray) -> Tensor:
        """Some rows; see `Rows.read`."""
        encoding, x = self.encoding, self.data.x[torch.from_numpy(rows)]
        noise = SampleNoise(encoding.seed, rows.tolist()) if encoding.draws else None
        z = encoding.autoencoder.encode(x.to(encoding.device), noise)
        return z.float().cpu()


@dataclass(frozen=True)
class LatentEncoding:
    """The autoencoder of a run, and how it encodes.

    Attributes:
        autoencoder: The autoencoder, on the device of the run.
        raw: Its file.
        draws: Whether latents are draws of q(z | x), not its means.
        seed: Seed of the draws.
        device: Device of the run.
    """

    autoencoder: Autoencoder
    raw: RawCheckpoint
    draws: bool
    seed: int
    device: str

    @classmethod
    def of(cls, config: Config, device: str, where: str) -> LatentEncoding | None:
        """The encoding that a config asks for; None without the table [latent].

        Args:
            config: The config.
            device: Where to encode.
            where: Name of the config, for messages.

        Raises:
            ConfigError: If there is no such autoencoder, or another setting does not allow one.
        """
        latent = config.latent
        if latent is None:
            return None
        if config.data.transform not in (None, "none"):
            raise ConfigError(
                f"{where}: data.transform must be absent with [latent], got "
                f"{config.data.transform!r}: the transform is that of the autoencoder"
            )
        if config.train.flip:
            raise ConfigError(
                f"{where}: train.flip must be false with [latent]: mirrored latents are not the "
                "latents of mirrored images"
            )
        return cls.read(latent, config.train.seed, device, where)

    @classmethod
    def read(cls, latent: LatentSource, seed: int, device: str, where: str) -> LatentEncoding:
        """The encoding by the autoencoder that a table [latent] names.

        Args:
            latent: The table.
            seed: Seed of the draws.
            device: Where to encode.
            where: Name of the config, for messages.

        Raises:
            ConfigError: If there is no such autoencoder.
        """
        try:
            raw = stored_autoencoder(latent.autoencoder)
            made = build_autoencoder(raw).to(device)
        except (CheckpointError, ValueError) as error:
            raise ConfigError(f"{where}: latent.autoencoder: {error}") from error
        return cls(made, raw, latent.posterior == "draws", seed, device)

    def of_data(self, data: Dataset, where: str) -> LatentData:
        """The latents of data, which are encoded when they are read.

        Args:
            data: Data like those that the autoencoder was trained on.
            where: Name of the config, for messages.

        Raises:
            ConfigError: If the autoencoder is for data of another kind.
        """
        spec, what = self.autoencoder.spec, f"{where}: latent.autoencoder"
        for name in ("shape", "levels"):
            now, then = getattr(data.spec, name), getattr(spec, name)
            if now != then:
                raise ConfigError(
                    f"{what}: {self.raw.path} is for data of {name} {then}, and {data.name} has "
                    f"{name} {now}"
                )
        try:
            data = data.in_units_of(spec)
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from error
        if spec.levels is not None and (data.spec.low, data.spec.high) != (spec.low, spec.high):
            raise ConfigError(
                f"{what}: {self.raw.path} is for data from {spec.low:g} to {spec.high:g}, and "
                f"{data.name} is from {data.spec.low:g} to {data.spec.high:g}"
            )
        latents = latent_spec_for(self.autoencoder, data.spec)
        kept = _kept(data, latents.condition)
        x, labels = _Encoded(data, self), kept.labels
        return LatentData(data.name, x, labels, latents, split=data.split, source=data)

    def decoding(self, model: NetworkScore, data: LatentData) -> NetworkScore:
        """The model of the latents of some data, whose samples are decoded."""
        return model.decoded_by(LatentDecoder(self.autoencoder, data.source.spec))

    def content(self, data: LatentData) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the metadata of the autoencoder for the checkpoint of the run."""
        return latent_content(self.autoencoder, data.source.spec, self.raw)


def stored_autoencoder(place: str | Path) -> RawCheckpoint:
    """The content of an autoencoder's file; see `LatentSource` for the place.

    Raises:
        CheckpointError: If it is missing, damaged, or holds no autoencoder.
    """
    if is_autoencoder_folder(Path(place)):
        return in_memory(place, *autoencoder_content(read_autoencoder(place)))
    inside = Path(place) / CHECKPOINT
    raw = read_source(inside if inside.is_file() else place)
    config = raw.metadata.get("config")
    if isinstance(config, Mapping) and "sde" in config:
        what = "a latent model" if "latent" in raw.metadata else "a model of noise levels"
        raise CheckpointError(f"is the checkpoint of {what}, not of an autoencoder", raw.path)
    return raw


def _kept(data: Dataset, condition: ConditionSpec) -> Dataset:
    """The data with the conditions that latents can have."""
    return data if data.labels is None else data.given_for(condition)
