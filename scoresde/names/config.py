"""Configs: from plain data to frozen dataclasses, and from these to a network.

A config is plain data (TOML, or the JSON inside a checkpoint) with one table per part. Each part
becomes a frozen dataclass; unknown, missing and mistyped keys are errors with their key path.

The kind of a network or an SDE is one of our names, or the place of a class, `package.module:Name`.
The class is imported only for a config that the user wrote, and never for one in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._condition import ConditionSpec
from ..classification import CrossEntropy, NoisyClassifier
from ..data import Dataset, DataSource, DataSpec
from ..evaluation import seeded
from ..loss import Objective
from ..plain import (
    ConfigError,
    check_keys,
    construct,
)
from ..score import Call, NetworkScore, Preconditioning
from ..sde import SDE
from ..shipped import locate
from ..train import TrainSettings
from .autoencoder_config import AutoencoderConfig
from .config_source import ConfigSource
from .importing import checked_kind
from .kinds import CLASSIFIERS, NETS, checked_net, plain_value, sde_of, sde_table, takes
from .latent_source import LatentSource
from .pairwise import PairwiseVE

__all__ = ["Config", "load_config"]

_TRAINED = ("data", "sde", "net", "train")  # tables of a config from which a model is trained


@dataclass(frozen=True)
class Config:
    """Everything that defines a trained model.

    Attributes:
        data: The training data; None for a model that was saved and not trained here.
        sde: The forward process; a `PairwiseVE` until `of_data` has measured its σ_max.
        net: Keyword arguments of the network and its "kind". Its shape is among them only for a
            model that was saved.
        train: Settings of the training loop; None for a model that was saved.
        preconditioning: Input scale, time label and target.
        objective: The loss.
        call: How the network is called.
        latent: The autoencoder whose latents the model is trained on; None for a model of the data.
        net_class: What makes a network of the user's own; None if it is one of ours, or unknown.
    """

    data: DataSource | None
    sde: SDE | PairwiseVE
    net: dict[str, Any]
    train: TrainSettings | None
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    objective: Objective = field(default_factory=Objective)
    call: Call = field(default_factory=Call)
    latent: LatentSource | None = None
    net_class: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    @property
    def foreign(self) -> bool:
        """Whether the network is of the user's own code."""
        return self.net["kind"] not in NETS

    @property
    def classifier(self) -> bool:
        """Whether the network is a classifier of noisy data, and no score model."""
        return self.net["kind"] in CLASSIFIERS

    @property
    def no_likelihood(self) -> str | None:
        """What the config trains, in words, if it has no likelihood of the data; else None."""
        return "a classifier" if self.classifier else None

    @property
    def loss(self) -> Objective | CrossEntropy:
        """What the training minimises."""
        return CrossEntropy(self.objective) if self.classifier else self.objective

    @property
    def learned_variance(self) -> bool:
        """Whether the network also says the variance of DDPM's reverse steps."""
        return self.call.learned_variance or self.net.get("learned_variance") is True

    @property
    def t_least(self) -> float:
        """Smallest time for the network: the time of its first discrete label, or 0."""
        return self.preconditioning.t_least(self._sde)

    @property
    def t_most(self) -> float:
        """Largest time at which every quantity can be computed, 1 unless α(1) = 0."""
        return self.preconditioning.t_most(self._sde)

    @property
    def _sde(self) -> SDE:
        """The forward process, which must be known."""
        if isinstance(self.sde, PairwiseVE):
            raise ConfigError('sde.sigma_max = "pairwise" needs the training data: call of_data')
        return self.sde

    def of_data(self, data: Dataset, source: str = "config") -> Config:
        """This config for its training data, with the number that `sigma_max = "pairwise"` means.

        Args:
            data: The training data.
            source: Name of the config in error messages.

        Raises:
            ConfigError: If the data do not give a σ_max above σ_min.
        """
        if not isinstance(self.sde, PairwiseVE):
            return self
        try:
            config = replace(self, sde=self.sde.of(data))
        except ValueError as error:
            raise ConfigError(f"{source}: sde: of the data {data.name}, {error}") from error
        config._check(source)
        return config

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        source: str = "config",
        *,
        own: bool = False,
        sde: SDE | None = None,
        required: Sequence[str] = _TRAINED,
    ) -> Config:
        """Build from plain data.

        Args:
            values: Nested dict as read from TOML or JSON.
            source: Name of the config in error messages.
            own: Whether the user wrote the config, so that the classes that it names may be
                imported, which runs their code.
            sde: The SDE, if it is of the user's own code and may not be imported.
            required: Tables that must be there.

        Raises:
            ConfigError: If the config is not valid; the message gives source, key path and reason.
        """
        where = {key: f"{source}: {key}" for key in _TABLES}
        check_keys(values, where, source, required)
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where[key]} must be a table, got {value!r}")
        net = checked_net(values["net"], where["net"], own, shaped="data" in values)
        sde = sde_of(values["sde"], where["sde"], own) if sde is None else sde
        made = {
            key: construct(make, values[key], where[key]) if key in values else make()
            for key, make in _TABLES.items()
            if make is not None and (key in values or key not in _OPTIONAL)
        }
        for key in _OPTIONAL:
            made.setdefault(key, None)
        config = cls(sde=sde, net=dict(values["net"]), net_class=net, **made)
        config._check(source)
        return config

    def _check(self, source: str) -> None:
        """Raise ConfigError if two tables do not go together."""
        if self.train is None:
            return
        try:
            if not isinstance(self.sde, PairwiseVE):
                self.loss.check(self.sde, self.learned_variance)
        except ValueError as error:
            raise ConfigError(f"{source}: objective: {error}") from error
        if self.classifier and self.train.label_dropout:
            raise ConfigError(
                f"{source}: train.label_dropout must be 0 for a classifier, which predicts the "
                f"class, got {self.train.label_dropout}"
            )
        if self.preconditioning.snapped and self.objective.times != "ladder":
            raise ConfigError(
                f"{source}: objective.times must be 'ladder' for rounded labels, which are wrong "
                f"elsewhere, got {self.objective.times!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` builds an equal config; absent values are left out."""
        tables = {
            "data": None if self.data is None else asdict(self.data),
            "sde": sde_table(self._sde),
            "net": self.net,
            "preconditioning": asdict(self.preconditioning),
            "objective": None if self.train is None else asdict(self.objective),
            "train": None if self.train is None else asdict(self.train),
            "call": None if self.call == Call() else vars(self.call),
            "latent": None if self.latent is None else asdict(self.latent),
        }
        return {
            name: {k: plain_value(v) for k, v in table.items() if v is not None}
            for name, table in tables.items()
            if table is not None
        }

    def build_model(self, spec: DataSpec | None) -> NetworkScore | NoisyClassifier:
        """A network with fresh weights, drawn from the training seed, as a model.

        A network of the user's own code receives the shape of the data and the sizes of sets, if it
        has parameters `shape` and `sizes`.

        Args:
            spec: Description of the data; gives the network its shape. None only if the network's
                arguments hold its shape.

        Raises:
            ConfigError: If the network refuses its arguments or the kind of data, or its conditions
                are not those of the data.
        """
        arguments = {key: value for key, value in self.net.items() if key != "kind"}
        if spec is not None and not self.foreign:
            self.condition_among(spec)
        make = NETS.get(self.net["kind"], self.net_class)
        if make is None:
            raise ConfigError(f"net: {self.net['kind']} is not imported from a checkpoint")
        if spec is not None and takes(make, "shape"):
            arguments = {"shape": list(spec.shape), **arguments}
        if spec is not None and spec.sizes is not None and takes(make, "sizes"):
            arguments = {"sizes": list(spec.sizes), **arguments}
        with seeded(0 if self.train is None else self.train.seed), _float32_by_default():
            net = checked_kind(construct(make, arguments, "net"), nn.Module, "net")
        return self.model_of(net)

    def condition_among(self, spec: DataSpec) -> ConditionSpec:
        """The conditions that a network of ours takes.

        Args:
            spec: Description of the data, which must have all of these conditions.

        Raises:
            ConfigError: If the data do not have one of them, or have it in another size; or if the
                data are sets, and the network is not for sets.
        """
        taken = {}
        for name in ("classes", "vector", "array", "sizes", "tokens"):
            value, there = self.net.get(name), getattr(spec, name)
            taken[name] = tuple(value) if isinstance(value, list) else value
            if taken[name] is not None and taken[name] != there:
                raise ConfigError(
                    f"net.{name} must be the data's {there}, got {value}; the data have "
                    f"{spec.condition}"
                )
        taken["array"] = None if taken["array"] is None else spec.condition.array
        kind = self.net["kind"]
        if spec.sizes is not None and not takes(NETS[kind], "sizes"):
            raise ConfigError(
                f"net.kind must be transformer for sets of {spec.sizes[0]} to {spec.sizes[1]} "
                f"points, got {kind}"
            )
        return ConditionSpec(**taken | {"sizes": spec.sizes})

    def model_of(self, net: nn.Module) -> NetworkScore | NoisyClassifier:
        """The score model of a network, or the classifier.

        Raises:
            ConfigError: If the network cannot be called as `call` says.
        """
        try:
            if self.classifier:
                return NoisyClassifier(net, self._sde, self.preconditioning)
            model = NetworkScore(net, self._sde, self.preconditioning, call=self.call)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"net: {error}") from error
        model.unconditional = self.train is not None and self.train.label_dropout > 0
        return model


_TABLES: dict[str, Callable[..., Any] | None] = {
    "data": DataSource,
    "sde": None,
    "net": None,
    "train": TrainSettings,
    "preconditioning": Preconditioning,
    "objective": Objective,
    "call": Call,
    "latent": LatentSource,
}
_OPTIONAL = ("data", "train", "latent")  # tables that are None if they are absent


def load_config(source: str | Path | ConfigSource) -> Config | AutoencoderConfig:
    """Read a TOML config: a shipped one by name, such as "digits_vp", or a file.

    A config with a table [autoencoder] is one of the training of an autoencoder.

    Args:
        source: The name or the path, or a `ConfigSource` with changes of single keys.

    Raises:
        ValueError: If it looks like a name but is unknown; the message gives the nearest name.
        ConfigError: If the config is not valid; one line with file, position or key path, and
            reason.
    """
    source = source if isinstance(source, ConfigSource) else ConfigSource(source)
    values = source.read()
    said = source
    if source.tables is None:
        said = replace(source, place=locate("configs", source.place))
    if "autoencoder" in values:
        return AutoencoderConfig.from_dict(values, str(said))
    return Config.from_dict(values, str(said), own=True)


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Set PyTorch's default dtype to float32 inside the block, for new layers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
