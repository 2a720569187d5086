"""The content of a run's checkpoints, and a run's return to it.

- model.*: the averaged weights, which `scoresde.load` reads; the only ones in best.safetensors
- autoencoder.*: the autoencoder of a latent model, in both files
- train.net.*: the weights that are trained
- train.ema.0.*, train.ema.1.*, ...: the power-function averages, if the run stores snapshots
- train.adam.*: the state of the optimizer
- train.history.*: the errors by noise level, if the objective learns its times from them

In float16 the entry `scaler` of the metadata is the factor of the loss with its count of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._tensor import check_integer, check_number
from ...checkpoint import RawCheckpoint, load_into, read_checkpoint, save_checkpoint
from ...ema import EMA, PowerEMA
from ...train import Training

__all__ = ["Best", "averaged_tensors", "export", "restore", "training_tensors"]


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


def averaged_tensors(ema: EMA) -> dict[str, Tensor]:
    """The averaged weights, by the names that `scoresde.load` reads."""
    return {f"model.{name}": value for name, value in ema.averages.items()}


def training_tensors(
    training: Training, ema: EMA, power_emas: Sequence[PowerEMA], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The tensors of a run's checkpoint, by name."""
    tensors, net = averaged_tensors(ema), training.model.net
    tensors |= {f"train.net.{name}": value for name, value in net.state_dict().items()}
    for i, average in enumerate(power_emas):
        tensors |= {f"train.ema.{i}.{name}": value for name, value in average.averages.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"train.adam.{index}.{name}": value for name, value in state.items()}
    if training.history is not None:
        learned = training.history.tensors()
        tensors |= {f"train.history.{name}": value for name, value in learned.items()}
    return tensors


def restore(
    raw: RawCheckpoint,
    training: Training,
    ema: EMA,
    power_emas: Sequence[PowerEMA],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore network, averages, optimizer, history and scale from a run's checkpoint.

    Raises:
        CheckpointError: If the weights do not fit the network.
        LookupError: If a tensor or number is missing.
        TypeError: If a number has the wrong type.
        ValueError: If averages, optimizer or history do not fit, or a number is out of range.
    """
    net = training.model.net
    load_into(net, raw, "train.net.")
    ema.restore(raw.metadata["ema_updates"], raw.below("model."))
    for i, average in enumerate(power_emas):
        average.restore(raw.metadata["ema_updates"], raw.below(f"train.ema.{i}."))
    _load_optimizer(optimizer, net, raw.below("train.adam."))
    if training.history is not None:
        training.history.restore(raw.below("train.history."))
    if training.scaler.is_enabled():
        _load_scaler(training.scaler, raw.metadata["scaler"])


def _load_scaler(scaler: torch.amp.GradScaler, saved: Mapping[str, Any]) -> None:
    """Continue with the scale of the loss in float16; `saved` is the scaler's `state_dict`."""
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
    kept = ("model.", "autoencoder.")
    tensors = {name: value for name, value in raw.tensors.items() if name.startswith(kept)}
    metadata = {
        key: value for key, value in raw.metadata.items() if key not in ("pending", "scaler")
    }
    save_checkpoint(target, tensors, metadata)


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
