"""`AutoencoderConfig`: everything that defines the training of an autoencoder.

It has the tables [data], [autoencoder] and [train], and [loss] for the weight of the divergence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from ..autoencoder.objective import Elbo, Trainee
from ..data import Dataset, DataSource, DataSpec
from ..evaluation import seeded
from ..plain import ConfigError, check_keys, check_values, construct, split_kind
from ..train import TrainSettings
from .autoencoders import AUTOENCODERS, make_autoencoder
from .kinds import plain_value

__all__ = ["AutoencoderConfig"]

_REQUIRED = ("data", "autoencoder", "train")
_SCORE_TABLES = ("sde", "net", "preconditioning", "objective", "call", "latent")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The config of a training of an autoencoder.

    Attributes:
        data: The training data.
        autoencoder: "kind", and the options of this kind.
        train: Settings of the training loop.
        loss: What the training minimises.
        source: Name of the config, for messages.
    """

    data: DataSource
    autoencoder: dict[str, Any]
    train: TrainSettings
    loss: Elbo = field(default_factory=Elbo)
    source: str = field(default="config", compare=False)

    # What `Config` has, for the code that prepares a run of either.
    foreign: ClassVar[bool] = False
    classifier: ClassVar[bool] = False
    latent: ClassVar[None] = None
    no_likelihood: ClassVar[str] = "an autoencoder"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> AutoencoderConfig:
        """Build from plain data.

        Raises:
            ConfigError: If the config is not valid; the message gives source, key path and reason.
        """
        where = {key: f"{source}: {key}" for key in (*_REQUIRED, "loss")}
        if unused := [key for key in _SCORE_TABLES if key in values]:
            raise ConfigError(
                f"{source}: {unused[0]} must be absent beside autoencoder, which has no noise "
                "levels; a score model of its latents has a config of its own"
            )
        check_keys(values, where, source, _REQUIRED)
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where[key]} must be a table, got {value!r}")
        make, options = split_kind(AUTOENCODERS, values["autoencoder"], where["autoencoder"])
        check_values(make, options, where["autoencoder"], skip=("spec",))
        train = construct(TrainSettings, values["train"], where["train"])
        if train.label_dropout:
            raise ConfigError(
                f"{where['train']}.label_dropout must be 0 for an autoencoder, which takes no "
                f"condition, got {train.label_dropout}"
            )
        return cls(
            data=construct(DataSource, values["data"], where["data"]),
            autoencoder=dict(values["autoencoder"]),
            train=train,
            loss=construct(Elbo, values.get("loss", {}), where["loss"]),
            source=source,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` builds an equal config; absent values are left out."""
        tables = {
            "data": asdict(self.data),
            "autoencoder": self.autoencoder,
            "loss": asdict(self.loss),
            "train": asdict(self.train),
        }
        return {
            name: {k: plain_value(v) for k, v in table.items() if v is not None}
            for name, table in tables.items()
        }

    def of_data(self, data: Dataset, source: str = "config") -> AutoencoderConfig:
        """This config: nothing in it depends on the data."""
        return self

    def condition_among(self, spec: DataSpec) -> None:
        """None: conditions play no part, and stay with the data."""

    def build_model(self, spec: DataSpec) -> Trainee:
        """An autoencoder with fresh weights, drawn from the training seed.

        Args:
            spec: Description of the data.

        Raises:
            ConfigError: If the options are not allowed or do not suit the data.
        """
        with seeded(self.train.seed):
            made = make_autoencoder(self.autoencoder, spec, f"{self.source}: autoencoder")
        return Trainee(made.float())
