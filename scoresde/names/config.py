"""Configs: from plain data to frozen dataclasses, and from these to a network.

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

from .. import nets
from ..data import DataSource, DataSpec
from ..evaluation import seeded
from ..loss import Objective
from ..plain import ConfigError, check_keys, check_values, construct, split_kind
from ..score import NetworkScore, Preconditioning
from ..sde import SDE, VE, VP, CosineVP, SubVP, TabulatedVP
from ..shipped import locate
from ..train import TrainSettings

__all__ = ["NETS", "SDES", "Config", "load_config"]

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
        data: The training data.
        sde: The forward process.
        net: Keyword arguments of the network and its "kind", without its shape.
        preconditioning: Input scale, time label and target.
        objective: The loss.
        train: Settings of the training loop.
    """

    data: DataSource
    sde: SDE
    net: dict[str, Any]
    train: TrainSettings
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    objective: Objective = field(default_factory=Objective)

    @property
    def t_least(self) -> float:
        """Smallest time for the network: the time of its first discrete label, or 0."""
        return self.preconditioning.t_least(self.sde)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> Config:
        """Build from plain data.

        Args:
            values: Nested dict as read from TOML or JSON.
            source: Name of the config in error messages.

        Raises:
            ConfigError: If the config is not valid; the message gives source, key path and reason.
        """
        where = {key: f"{source}: {key}" for key in cls.__dataclass_fields__}
        check_keys(values, where, source, required=("data", "sde", "net", "train"))
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where[key]} must be a table, got {value!r}")
        net, arguments = split_kind(NETS, values["net"], where["net"])
        check_values(net, arguments, where["net"], skip=("shape",))
        sde, arguments = split_kind(SDES, values["sde"], where["sde"])
        sde = construct(sde, arguments, where["sde"])
        made = {
            key: construct(_TABLES[key], value, where[key])
            for key, value in values.items()
            if key in _TABLES
        }
        config = cls(sde=sde, net=dict(values["net"]), **made)
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
        """Plain data from which `from_dict` builds an equal config; absent values are left out.

        Raises:
            ConfigError: If the class of the SDE has no name in configs.
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
            spec: Description of the data; gives the network its shape.

        Raises:
            ConfigError: If the network refuses its arguments, or its classes do not fit the data.
        """
        cls, arguments = split_kind(NETS, self.net, "net")
        classes = arguments.get("classes")
        if classes is not None and classes != spec.classes:
            raise ConfigError(f"net.classes must be the data's {spec.classes}, got {classes}")
        with seeded(self.train.seed), _float32_by_default():
            net = construct(cls, {"shape": list(spec.shape), **arguments}, "net")
        return NetworkScore(net, self.sde, self.preconditioning)


_TABLES = {
    "data": DataSource,
    "train": TrainSettings,
    "preconditioning": Preconditioning,
    "objective": Objective,
}


def load_config(name_or_path: str | Path) -> Config:
    """Read a TOML config: a shipped one by name, such as "digits_vp", or a file.

    Raises:
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
        ConfigError: If the config is not valid; one line with file, position or key path, and
            reason.
    """
    path = locate("configs", name_or_path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
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


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Set PyTorch's default dtype to float32 inside the block, for new layers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
