"""The first steps of every command on a model: common options, and reading a checkpoint.

A command has five steps:

1. Its options become a `Request`.
2. `StoredModel.read` reads and checks the checkpoint; the network is not built yet.
3. `Request.origin` records everything that determines the results.
4. `ResultFolder.open` checks whether the folder already holds these results.
5. If not, they are computed and written inside `ResultFolder.write`.

`bench` and `verify` have other options, and follow these steps from the second one. A Python
function that is given a model as an object has a `LiveModel` instead of step 2. `train` has no
checkpoint at first: see `train.prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import __version__
from .._condition import ConditionSpec
from .._tensor import check_choice, check_integer, plain_numbers
from ..checkpoint import CheckpointError, RawCheckpoint
from ..classification import NoisyClassifier
from ..data import Dataset, DataSource, DataSpec
from ..fingerprint import fingerprint
from ..names.config import Config
from ..names.latents import decoded_spec_of
from ..names.loading import build, check_foreign, config_of, net_from_text, sde_from_text
from ..names.sources import read_source
from ..output.manifest import Origin, Source
from ..plain import construct
from ..score import NetworkScore
from ..score.distilled import Distilled
from ..sde import SDE
from ..train import Split
from .given import GivenModel

__all__ = [
    "HeldOutRequest",
    "Request",
    "StoredClassifier",
    "StoredModel",
    "data_source",
    "versions",
]


DTYPES = ("float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Request:
    """The options of every command that runs a checkpoint's network.

    Args:
        checkpoint: File, or name of a shipped checkpoint.
        n: Number of samples, or of data.
        seed: Integer in [0, 2^64) for all randomness.
        batch: Samples or data computed at a time.
        device: Where to run.
        dtype: "float32" or "float64" for data and network; "bfloat16" for the network alone.
        net: A network of the user's own, as `net_from_text` reads it.
        sde: An SDE of the user's own, as `sde_from_text` reads it.
    """

    checkpoint: str
    n: int = 64
    seed: int = 0
    batch: int = 64
    device: str = "cpu"
    dtype: str = "float32"
    net: str | None = None
    sde: str | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("n", "batch"):
            check_integer(f"--{name}:", getattr(self, name), minimum=1)
        check_choice("--dtype:", self.dtype, DTYPES)

    # Options that give a place. The content at the place is compared instead of the option.
    places: ClassVar[tuple[str, ...]] = ("checkpoint", "net", "sde")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the data, float64 or float32."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def origin(
        self,
        command: str,
        sources: Mapping[str, Source],
        shown: Sequence[str] = (),
        **changed: Any,
    ) -> Origin:
        """The origin of the results of this request.

        Args:
            command: Name of the command.
            sources: Content of checkpoint and data, as `Origin` needs it.
            shown: Further options that do not change the results.
            changed: Values of options that depend on the checkpoint, instead of the request's.
        """
        return Origin(command, asdict(self) | changed, sources, shown=(*self.places, *shown))


@dataclass(frozen=True)
class HeldOutRequest(Request):
    """The options of a command on held-out data.

    Args:
        data: Name of a data set or a path; None for the test split of the training data.
        split: "train", "test" or "held-out", the training data that the checkpoint was not trained
            on, in their order; None for "test", and for all of a file given by `data`.
        data_root: Folder that is searched first for a named data set or a relative path.
        levels: Number of levels of a file's data.
    """

    data: str | None = None
    split: str | None = None
    data_root: str | None = None
    levels: int | None = None

    places: ClassVar[tuple[str, ...]] = (*Request.places, "data", "split", "data_root", "levels")
    any_levels: ClassVar[bool] = False  # whether the data's number of levels may be another one


@dataclass(frozen=True)
class StoredModel(GivenModel):
    """A checkpoint that has been read and checked; its network is not built yet.

    Attributes:
        name: The name or path that the user gave, for messages.
        raw: The content of the file.
        config: The configuration of the training.
        spec: Description of the training data, or of their latents.
        net: The text of a network of the user's own, or None.
        sde_text: The text of an SDE of the user's own, or None.
        decoded: Description of the decoded data of a model of latents; None for other models.
    """

    name: str
    raw: RawCheckpoint
    config: Config
    spec: DataSpec
    net: str | None = None
    sde_text: str | None = None
    decoded: DataSpec | None = None

    kind: ClassVar[str] = "checkpoint"
    classifier: ClassVar[bool] = False  # whether it is a classifier of noisy data

    @classmethod
    def read(
        cls, name_or_path: str | Path, net: str | None = None, sde: str | None = None
    ) -> StoredModel:
        """Read a checkpoint.

        Args:
            name_or_path: File, or name of a shipped checkpoint.
            net: A network of the user's own, as `net_from_text` reads it.
            sde: An SDE of the user's own, as `sde_from_text` reads it.

        Raises:
            CheckpointError: If the file is missing, damaged or not a checkpoint of scoresde, is one
                of a classifier, does not say what its data are, or needs `net` or `sde`.
            ConfigError: If the SDE cannot be imported or made.
        """
        raw = read_source(name_or_path)
        check_foreign(raw, net is not None, sde is not None)
        own = None if sde is None else sde_from_text(sde, raw)
        config, spec = config_of(raw, own)
        if config.classifier is not cls.classifier:
            raise CheckpointError(_OTHER_KIND[config.classifier], raw.path)
        if spec is None:
            raise CheckpointError(
                "does not say what its data are; save the model with data=DataSpec(…)", raw.path
            )
        decoded = decoded_spec_of(raw.metadata)
        return cls(str(name_or_path), raw, config, spec, net, sde, decoded)

    @property
    def source(self) -> Source:
        """Name and content, for the origin of results."""
        if self.net is None and self.sde_text is None:
            return Source(self.name, self.raw.sha256)
        return Source(self.name, fingerprint([self.raw.sha256, self.net, self.sde_text]))

    @property
    def decoded_spec(self) -> DataSpec:
        """Description of the decoded data; `spec` unless the model is one of latents."""
        return self.decoded or self.spec

    @property
    def autoencoder_sha256(self) -> str | None:
        """Digest of the file of the autoencoder; None without one."""
        return None if self.decoded is None else self.raw.metadata["latent"]["sha256"]

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.config.sde

    @property
    def condition(self) -> ConditionSpec:
        """The conditions that the network takes."""
        if not self.config.foreign and self.spec is not None:
            return self.config.condition_among(self.spec)
        return construct(ConditionSpec, self.raw.metadata.get("condition", {}), "condition")

    @property
    def unconditional(self) -> bool:
        """Whether the network was trained with label dropout."""
        train = self.config.train
        trained = train is not None and train.label_dropout > 0
        return self.raw.metadata.get("unconditional", trained)

    @property
    def snapped(self) -> bool:
        """Whether the network is exact only at the discrete times of its SDE."""
        return self.config.preconditioning.snapped

    @property
    def learned_variance(self) -> bool:
        """Whether the network also says the variance of DDPM's reverse steps."""
        return self.config.learned_variance

    @property
    def distilled(self) -> Distilled | None:
        """How a student of few steps was made; None for a score model."""
        return self.config.distilled

    @property
    def t_least(self) -> float:
        """The time of the network's first discrete label, or 0."""
        return self.config.t_least

    @property
    def t_most(self) -> float:
        """Largest time at which target and label of the network are regular."""
        return self.config.t_most

    @property
    def data_source(self) -> DataSource | None:
        """The training data."""
        return self.config.data

    @property
    def held_out_share(self) -> float:
        """Share of the training data that the model was not trained on."""
        return 0.0 if self.config.train is None else self.config.train.share

    def held_out_rows(self, data: Dataset) -> Tensor:
        """The rows of the training data that `train.validation` held out, ascending."""
        if not self.held_out_share:
            raise ValueError(
                f"--split: must be train or test, got 'held-out': {self.name} was trained on all "
                "of its training data"
            )
        if self.raw.metadata.get("data_fingerprint") != data.fingerprint:
            raise ValueError(
                f"--split: held-out rows are known only in the data that {self.name} was trained "
                f"on, and {data.name} holds others, or the same in another order"
            )
        return Split.of(len(data), self.config.train).held_rows().sort().values

    def build(self, device: str = "cpu", dtype: str = "float32") -> NetworkScore:
        """The score model with averaged weights, frozen and in evaluation mode.

        Args:
            device: Device of the network.
            dtype: "float32", "float64", or "bfloat16" for autocast of the network.

        Raises:
            CheckpointError: If the tensors do not fit the network.
            ConfigError: If a network of the user's own cannot be imported or made.
        """
        net = None if self.net is None else net_from_text(self.net, self.raw, self.spec)
        sde = None if self.sde_text is None else self.sde
        model = build(self.raw, device, net, sde).model
        if dtype == "float64":
            return model.double()
        model.autocast = torch.bfloat16 if dtype == "bfloat16" else None
        return model


@dataclass(frozen=True)
class StoredClassifier(StoredModel):
    """A checkpoint of a classifier of noisy data, with which a score model is guided."""

    classifier: ClassVar[bool] = True

    def build(self, device: str = "cpu", dtype: str = "float32") -> NoisyClassifier:
        """The classifier with averaged weights; arguments and errors as for a score model."""
        return super().build(device, dtype)


# What is said of a checkpoint that is not of the wanted kind, by whether it is a classifier.
_OTHER_KIND = {
    True: "is a classifier of noisy data and no score model; guide a score model by it: "
    "--guidance classifier:checkpoint=…:scale=2",
    False: "is a score model and no classifier of noisy data; train one with a network of kind "
    "mlp_classifier or unet_classifier",
}


def data_source(data: Dataset) -> Source:
    """Name and content of data: values, labels, spec and, if it is known, the exact density."""
    split = "" if data.split == "all" else f"the {data.split} split of "
    density = None if data.log_prob is None else data.name
    return Source(f"{split}{data.name}", fingerprint([data.fingerprint, density]))


def versions() -> dict[str, str]:
    """Versions of the packages on which numbers depend."""
    return {"scoresde": __version__, "torch": torch.__version__}
