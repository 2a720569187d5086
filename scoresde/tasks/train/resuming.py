"""The content of a run's checkpoints, and the check that a run may continue from one.

- model.*: the averaged weights, which `scoresde.load` reads; the only ones in best.safetensors
- train.net.*: the weights that are trained
- train.ema.0.*, train.ema.1.*, ...: the power-function averages, if the run stores snapshots
- train.adam.*: the state of the optimizer
- train.history.*: the errors by noise level, if the objective learns its times from them

In float16 the entry `scaler` of the metadata is the factor of the loss with its count of steps.

The config in the metadata says which data were held out: `Split` chooses them by train.seed
and train.validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._tensor import check_integer, check_number
from ...checkpoint import (
    CheckpointError,
    RawCheckpoint,
    load_into,
    read_checkpoint,
    save_checkpoint,
)
from ...data import Dataset, Stream
from ...ema import EMA, PowerEMA
from ...fingerprint import difference
from ...loss import Objective
from ...noise import NOISE_VERSION
from ...score import Preconditioning
from ...train import TrainSettings

__all__ = [
    "Best",
    "averaged_tensors",
    "doubts",
    "export",
    "find_resumable",
    "flat",
    "identity_of",
    "load_scaler",
    "restore",
    "training_tensors",
]

# Settings that a resumed run may change: it may train longer, with less memory, or use the same
# data in another place. If the checkpoint records the content of the data, their name may change as
# well.
_FREE = {"train.steps", "train.cooldown", "train.checkpointing", "data.root", "data.workers"}
_NAMES = {"data.name", "name"}
_SETTINGS = {"preconditioning": Preconditioning, "objective": Objective, "train": TrainSettings}


@dataclass(frozen=True)
class Best:
    """The smallest validation loss of a run.

    Attributes:
        step: Steps done.
        loss: Loss on held-out data.
        std_error: Its standard error.
    """

    step: int
    loss: float
    std_error: float

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of this loss in the metadata of both checkpoints."""
        return {"best": asdict(self)}

    @classmethod
    def resumed(cls, entry: Mapping[str, Any] | None, file: Path) -> Best | None:
        """The best loss so far of a run that continues.

        Args:
            entry: The metadata entry `best` of its checkpoint; None if there is none.
            file: The file with the best weights. If it is gone, the best of the validations to
                come will be kept.

        Raises:
            LookupError: If a value is missing.
            TypeError: If a value is not a number.
            ValueError: If a number is out of range.
        """
        if entry is None or not file.exists():
            return None
        numbers = {name: check_number(name, entry[name]) for name in ("loss", "std_error")}
        return cls(check_integer("step", entry["step"], minimum=1), **numbers)


def identity_of(data: Dataset | Stream) -> dict[str, Any]:
    """Number and content of the training data, for the checkpoint; of a stream both are unknown."""
    if isinstance(data, Stream):
        return {"images": None, "data_fingerprint": None}
    return {"images": len(data), "data_fingerprint": data.fingerprint}


def find_resumable(
    checkpoint: Path,
    metadata: Mapping[str, Any],
    data: Dataset | Stream,
    test: Dataset | None = None,
) -> RawCheckpoint | None:
    """The checkpoint from which a run can continue; None if there is no checkpoint.

    It builds no network.

    Args:
        checkpoint: The file; need not exist.
        metadata: "config" and "data" of the run that is to continue.
        data: Training data of this run.
        test: The test split on which this run is validated, if it is.

    Raises:
        CheckpointError: If the file cannot be read, holds no training state, or was made with
            another config or from other data.
    """
    if not checkpoint.exists():
        return None
    raw = read_checkpoint(checkpoint)
    reason = _refusal(raw, metadata, data, test)
    if reason is not None:
        raise CheckpointError(reason, checkpoint)
    return raw


def _refusal(
    raw: RawCheckpoint, metadata: Mapping[str, Any], data: Dataset | Stream, test: Dataset | None
) -> str | None:
    """The reason why a run with these metadata and data cannot continue; None if it can."""
    other = _other_settings(raw, metadata)
    if other is not None:
        return f"was made with {other}; use another folder, or --overwrite"
    if not raw.below("train."):
        return "holds no training state, as after `export`: cannot be resumed"
    now = identity_of(data)
    before = {key: raw.metadata.get(key, value) for key, value in now.items()}
    if before["images"] != now["images"]:
        counts = [n if n is not None else "a stream of" for n in (before["images"], now["images"])]
        return f"was trained on {counts[0]} data points, there are {counts[1]} now"
    if before != now:
        what = "images" if len(data.spec.shape) == 3 else "data points"
        labelled = " or their labels" if data.labels is not None else ""
        return (
            f"the {len(data)} {what}{labelled} are not those the run was trained on, or are in "
            "another order; put those back, use another folder, or --overwrite"
        )
    if test is not None and raw.metadata.get("test_fingerprint") != test.fingerprint:
        return (
            "its validation losses are of another test split; put that back, use another folder, "
            "or --overwrite"
        )
    return None


def doubts(raw: RawCheckpoint, data: Dataset | Stream) -> Iterator[str]:
    """Reasons why the resumed run may differ from a run without a break."""
    if "data_fingerprint" not in raw.metadata:
        yield (
            "an earlier version wrote it and did not record the content of the data; make sure "
            f"that the {len(data)} data points are still the same"
        )
    if raw.metadata.get("noise_version", 1) != NOISE_VERSION:
        yield (
            "the run was begun with another definition of the noise, so its next steps are not "
            "those of an unbroken run"
        )


def averaged_tensors(ema: EMA) -> dict[str, Tensor]:
    """The averaged weights, by the names that `scoresde.load` reads."""
    return {f"model.{name}": value for name, value in ema.averages.items()}


def training_tensors(
    net: nn.Module, ema: EMA, power_emas: Sequence[PowerEMA], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The tensors of a run's checkpoint, by name."""
    tensors = averaged_tensors(ema)
    tensors |= {f"train.net.{name}": value for name, value in net.state_dict().items()}
    for i, average in enumerate(power_emas):
        tensors |= {f"train.ema.{i}.{name}": value for name, value in average.averages.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"train.adam.{index}.{name}": value for name, value in state.items()}
    return tensors


def restore(
    raw: RawCheckpoint,
    net: nn.Module,
    ema: EMA,
    power_emas: Sequence[PowerEMA],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore network, averages and optimizer from the tensors of `training_tensors`.

    Raises:
        CheckpointError: If the weights do not fit the network.
        LookupError: If a tensor or number is missing.
        TypeError: If the number of updates of the average is not an integer.
        ValueError: If averages or optimizer do not fit the network.
    """
    load_into(net, raw, "train.net.")
    ema.restore(raw.metadata["ema_updates"], raw.below("model."))
    for i, average in enumerate(power_emas):
        average.restore(raw.metadata["ema_updates"], raw.below(f"train.ema.{i}."))
    _load_optimizer(optimizer, net, raw.below("train.adam."))


def load_scaler(scaler: torch.amp.GradScaler, saved: Mapping[str, Any]) -> None:
    """Continue with the scale of the loss in float16.

    Args:
        scaler: An enabled scaler.
        saved: The `state_dict` of the scaler of the checkpoint.

    Raises:
        LookupError: If a number is missing.
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range.
    """
    check_number("scale", saved["scale"], above=0)
    check_integer("_growth_tracker", saved["_growth_tracker"], minimum=0)
    now = {name: saved[name] for name in ("scale", "_growth_tracker")}
    scaler.load_state_dict({**scaler.state_dict(), **now})


def export(source: Path, target: Path) -> None:
    """Write a checkpoint without the tensors that only resuming needs: a quarter of the size.

    Args:
        source: A checkpoint of a run.
        target: The file to write.

    Raises:
        CheckpointError: If the source cannot be read.
    """
    raw = read_checkpoint(source)
    tensors = {name: value for name, value in raw.tensors.items() if name.startswith("model.")}
    metadata = {
        key: value for key, value in raw.metadata.items() if key not in ("pending", "scaler")
    }
    save_checkpoint(target, tensors, metadata)


def _other_settings(raw: RawCheckpoint, metadata: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as `config net.width = 8, not 16`; None if all are equal."""
    before, now = raw.metadata, metadata
    free = _FREE | _NAMES if "data_fingerprint" in before else _FREE
    # An earlier version recorded less about the data; only recorded settings can be compared.
    before = {**before, "config": _with_defaults(before.get("config", {}))}
    known = before.get("data", {}).keys()
    now = {**now, "data": {k: v for k, v in now.get("data", {}).items() if k in known}}
    for what in ("config", "data"):
        other = difference(flat(before.get(what, {})), flat(now.get(what, {})), free)
        if other is not None:
            return f"{what} {other}"
    return None


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the defaults of the settings that did not exist when it was written."""
    filled = dict(config)
    for table, cls in _SETTINGS.items():
        defaults = {f.name: f.default for f in fields(cls) if f.default not in (MISSING, None)}
        # As JSON has them.
        defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
        filled[table] = defaults | dict(config.get(table, {}))
    return filled


def flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """One level of tables as `table.key`."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        nested = isinstance(value, Mapping)
        flat |= {f"{name}.{key}": v for key, v in value.items()} if nested else {name: value}
    return flat


def _load_optimizer(
    optimizer: torch.optim.Optimizer, net: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    parameters = list(net.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        if key != "step":
            parameter = parameters[int(index)]
            if value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"train.adam.{name} has shape {shapes}")
            # Fused Adam wants the memory format of the parameter, and a file has none.
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[key] = value
    if any(entry.keys() != {"step", "exp_avg", "exp_avg_sq"} for entry in state.values()):
        raise ValueError("a parameter lacks one of Adam's step, exp_avg and exp_avg_sq")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
