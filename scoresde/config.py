"""Names to objects: configs, sampler specifications and checkpoints. The only place that does it.

A config is plain data (TOML, or the JSON inside a checkpoint) with one table per part. Each part
becomes a frozen dataclass; unknown, missing and mistyped keys are errors with their key path.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import nets
from .checkpoint import CheckpointError, RawCheckpoint, load_into, read_checkpoint
from .data import DataSource, DataSpec
from .evaluation import seeded
from .loss import Objective
from .plain import (
    ConfigError,
    check_keys,
    check_types,
    check_values,
    construct,
    construct_kind,
    kind_of,
    table,
)
from .score import NetworkScore, Preconditioning
from .sde import SDE, VE, VP, CosineVP, SubVP, TabulatedVP
from .shipped import locate, shipped
from .train import TrainSettings

__all__ = [
    "Checkpoint",
    "Config",
    "build",
    "checkpoint_path",
    "config_of",
    "load",
    "load_config",
    "shipped",
]

SDES: dict[str, type[SDE]] = {
    "vp": VP,
    "subvp": SubVP,
    "ve": VE,
    "cosine": CosineVP,
    "tabulated": TabulatedVP,
}
NETS: dict[str, type[nn.Module]] = {"unet": nets.UNet, "mlp": nets.MLP}


@dataclass(frozen=True)
class Config:
    """Everything that defines a trained model.

    Attributes:
        data: Which data.
        sde: The forward process.
        net: Keyword arguments of the network and its "kind", without its shape.
        preconditioning: Input scale, time label and target.
        objective: The loss.
        train: Optimization.
    """

    data: DataSource
    sde: SDE
    net: dict[str, Any]
    train: TrainSettings
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    objective: Objective = field(default_factory=Objective)

    @property
    def t_least(self) -> float:
        """Least time at which the network may be asked: 0 if the SDE alone decides."""
        return self.preconditioning.t_least(self.sde)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Build from plain data.

        Args:
            values: Nested dict as read from TOML or JSON.
            source: What the error messages call it.

        Raises:
            ConfigError: Naming source, key path and reason.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: must be a table, got {values!r}")
        known = list(cls.__dataclass_fields__)
        check_keys(values, known, source, required=("data", "sde", "net", "train"))
        parts = {key: table(values, key, source) for key in values}
        net = parts.pop("net")
        arguments = {key: value for key, value in net.items() if key != "kind"}
        check_values(kind_of(NETS, net, f"{source}: net"), arguments, f"{source}: net", ("shape",))
        sde = construct_kind(SDES, parts.pop("sde"), f"{source}: sde")
        made = {key: construct(_TABLES[key], parts[key], f"{source}: {key}") for key in parts}
        config = cls(sde=sde, net=net, **made)
        try:
            config.objective.check(sde)
        except ValueError as error:
            raise ConfigError(f"{source}: objective: {error}") from error
        if config.preconditioning.snapped and config.objective.times != "ladder":
            raise ConfigError(
                f"{source}: objective.times must be 'ladder' for rounded labels, which are wrong "
                f"elsewhere, got {config.objective.times!r}"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` builds an equal config; absent values left out.

        Raises:
            ConfigError: If the SDE is of a class that has no name in configs.
        """
        kind = next((name for name, cls in SDES.items() if type(self.sde) is cls), None)
        if kind is None:
            raise ConfigError(f"sde: {type(self.sde).__name__} has no name in configs")
        tables = {
            "data": asdict(self.data),
            "sde": {"kind": kind, **asdict(self.sde)},
            "net": self.net,
            "preconditioning": asdict(self.preconditioning),
            "objective": asdict(self.objective),
            "train": asdict(self.train),
        }
        return {
            name: {k: _plain(v) for k, v in table.items() if v is not None}
            for name, table in tables.items()
        }

    def build_model(self, spec: DataSpec) -> NetworkScore:
        """A network with fresh weights, drawn from the training seed, as a score model.

        Args:
            spec: What the data are; gives the network its shape.

        Raises:
            ConfigError: If the network refuses its arguments, or its classes are not the data's.
        """
        arguments = dict(self.net)
        cls = NETS[arguments.pop("kind")]
        classes = arguments.get("classes")
        if classes is not None and classes != spec.classes:
            raise ConfigError(f"net.classes must be the data's {spec.classes}, got {classes}")
        with seeded(self.train.seed), _float32_by_default():
            net = construct(cls, {"shape": list(spec.shape), **arguments}, "net")
        return NetworkScore(net, self.sde, self.preconditioning)


# What a checkpoint says besides config and data, where it says it.
_ABOUT = {"steps_done": int | None, "seconds": float | None, "provenance": dict}

_TABLES = {
    "data": DataSource,
    "train": TrainSettings,
    "preconditioning": Preconditioning,
    "objective": Objective,
}


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """PyTorch's layers take its default dtype, which the user may have changed."""
    before = torch.get_default_dtype()
    if before == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what it was trained on.

    Attributes:
        model: The score model with averaged weights: frozen, in evaluation mode, in float32
            whatever it was trained in.
        data: What the data are.
        config: How it was trained.
        metadata: Everything the file says, steps and provenance included.
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
        device: Where to put the model.

    Returns:
        The model in float32, ready for `sample` and `log_likelihood`.

    Raises:
        CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde, or its
            tensors do not fit its config.
    """
    return build(read_checkpoint(checkpoint_path(name_or_path)), device)


@torch.inference_mode(False)  # its tensors could not be differentiated through
def build(raw: RawCheckpoint, device: torch.device | str = "cpu") -> Checkpoint:
    """The second half of `load`: the model of a checkpoint that has been read.

    The network is made without memory first (PyTorch's "meta" device), so that one which does not
    fit the tensors is refused at once, whatever size the config names.

    Args:
        raw: From `read_checkpoint`.
        device: Where to put the model.

    Raises:
        CheckpointError: If what the file holds does not fit together.
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
        CheckpointError: If they are missing or not understood.
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
    """Turn whatever hostile metadata raise inside the block into a `CheckpointError`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(error.reason, raw.path) from error
    except Exception as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"its metadata are not understood: {reason}", raw.path) from error


def _check_sizes(value: Any) -> None:
    """Raise ConfigError on an integer that no setting needs: seeds are below 2^64."""
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


def load_config(name_or_path: str | Path) -> Config:
    """Read a TOML config: a shipped one by name, such as "digits_vp", or a file.

    Raises:
        ConfigError: With file, position or key path, and reason, in one line.
    """
    try:
        path = locate("configs", name_or_path)
    except ValueError as error:
        raise ConfigError(f"{name_or_path}: {error}") from error
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise ConfigError(f"{path}: not UTF-8 text ({where})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not values:
        raise ConfigError(f"{path}: empty; a config needs data, sde, net and train")
    return Config.from_dict(values, str(path))


def checkpoint_path(name_or_path: str | Path) -> Path:
    """The file of a checkpoint given by path, or by the name of a shipped one.

    Raises:
        CheckpointError: If it looks like a name and is none; the nearest one is named.
    """
    try:
        return locate("checkpoints", name_or_path)
    except ValueError as error:
        raise CheckpointError(str(error), name_or_path) from error
