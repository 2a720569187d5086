"""A training run in a folder: log, checkpoints, sample grids and plots around the loop.

- checkpoint.safetensors: averaged weights, and all that resuming needs; replaced atomically
- log.jsonl: one line per `log_every` steps
- samples-*.png: a grid of samples now and then, always from the same noise
- loss.png: loss against step, and error against time
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import grid
from ._files import clean_stale
from ._tensor import check_integer
from .checkpoint import CheckpointError, RawCheckpoint, load_into, read_checkpoint, save_checkpoint
from .data import Dataset
from .ema import EMA
from .history import Log, Means
from .loss import Objective
from .samplers import DPMSolverMultistep, sample
from .score import NetworkScore
from .study.figures import save_grid, save_training_figure
from .train import TrainSettings, TrainStep, check_training, make_optimizer, train

__all__ = ["CHECKPOINT", "FIGURE", "LOG", "Progress", "Run", "check_resumable", "export"]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
FIGURE = "loss.png"

# What a resumed run may do differently: train longer, or find the same data elsewhere.
_FREE = {"train.steps", "train.cooldown", "data.root"}


@dataclass(frozen=True)
class Progress:
    """A training step, and the mean loss and images per second of the latest log line."""

    step: TrainStep
    loss: float
    images_per_second: float


class Run:
    """Train a model, leaving everything in one folder; resumes from its checkpoint.

    Stopping at any step and resuming gives the same weights, averages and log as not stopping.

    Attributes:
        done: Steps done.
        seconds: Time they took, over all processes.
        ema: The averaged weights.
        optimizer: Adam.
    """

    def __init__(
        self,
        folder: Path,
        model: NetworkScore,
        data: Dataset,
        objective: Objective,
        settings: TrainSettings,
        metadata: Mapping[str, Any],
        log_every: int = 100,
        save_every: int = 1000,
        sample_every: int = 5000,
    ) -> None:
        """Prepare a run; nothing is written before `steps`.

        Args:
            folder: Where; made if need be.
            model: The model to train, on its device.
            data: Training data.
            objective: The loss.
            settings: Optimization.
            metadata: Plain data for the checkpoint: "config" and "data" as `scoresde.load` reads
                them, "provenance".
            log_every: Steps between log lines.
            save_every: Steps between checkpoints.
            sample_every: Steps between sample grids (grey and RGB images only).

        Raises:
            ValueError: If an argument is out of range, or the data hold fewer images than a batch.
        """
        for name, value in (
            ("log_every", log_every),
            ("save_every", save_every),
            ("sample_every", sample_every),
        ):
            check_integer(name, value, minimum=1)
        check_training(model, data, objective, settings)
        self.folder, self.model, self.data = folder, model, data
        self.objective, self.settings = objective, settings
        self.metadata = json.loads(json.dumps(metadata))  # as a checkpoint gives it back
        self.log_every, self.save_every, self.sample_every = log_every, save_every, sample_every
        self.optimizer = make_optimizer(model.net)
        self.ema = EMA(model.net, settings.ema_decay)
        self.done = 0
        self.seconds = 0.0
        self._means = Means()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's path."""
        return self.folder / CHECKPOINT

    def clear(self) -> None:
        """Remove what an earlier run left in the folder; other files stay."""
        for pattern in (CHECKPOINT, LOG, FIGURE, "samples-*.png"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def resume(self) -> int:
        """Continue from the folder's checkpoint if there is one; the number of steps done.

        Raises:
            CheckpointError: If it was made with another config (`steps` and `cooldown` may
                differ, to train longer), holds no training state, or cannot be read.
        """
        if not self.checkpoint.exists():
            return 0
        raw = read_checkpoint(self.checkpoint)
        try:
            self._restore(raw)
        except (LookupError, TypeError, ValueError) as error:
            reason = error.reason if isinstance(error, CheckpointError) else f"damaged: {error!r}"
            raise CheckpointError(reason, self.checkpoint) from error
        return self.done

    def _restore(self, raw: RawCheckpoint) -> None:
        _check_metadata(raw, self.metadata)
        if not any(name.startswith("train.") for name in raw.tensors):
            raise CheckpointError("holds no training state, as after `export`: cannot be resumed")
        images = raw.metadata.get("images", len(self.data))
        if images != len(self.data):
            raise CheckpointError(f"was trained on {images} data, there are {len(self.data)} now")
        load_into(self.model.net, raw.tensors, "train.net.")
        averages = _without_prefix(raw.tensors, "model.")
        self.ema.load_state_dict({"updates": raw.metadata["ema_updates"], "averages": averages})
        _load_optimizer(self.optimizer, self.model.net, raw.tensors)
        self.done, self.seconds = raw.metadata["steps_done"], raw.metadata["seconds"]
        self._means = Means(raw.metadata.get("pending"))

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding after each step.

        SIGINT and SIGTERM wait until a step is complete; where they raise (KeyboardInterrupt,
        SystemExit), and where the caller leaves the loop, the checkpoint is saved first.

        Raises:
            RuntimeError: If training diverges; the last checkpoint stays.
            OSError: If a file cannot be written; the last checkpoint stays.
        """
        steps = train(
            self.model, self.optimizer, self.data, self.objective, self.settings, self.done
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        log = Log(self.folder / LOG, self.done)
        clean_stale(self.folder / FIGURE)
        began = time.monotonic() - self.seconds
        try:
            while self.done < self.settings.steps:
                with _signals_held():
                    step = next(steps)
                    self.seconds = time.monotonic() - began
                    self._after(step, log)
                yield Progress(step, log.loss, log.images_per_second)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            with _signals_held():
                self.save()
            raise
        except RuntimeError:
            if self._means.count:  # the last losses show what happened
                log.write(self.done, self.seconds, self._means)
            raise

    def _after(self, step: TrainStep, log: Log) -> None:
        """Averages, log, checkpoint and pictures after a step."""
        if not step.skipped:
            self.ema.update(self.model.net)
        self.done = step.step
        self._means.add(step)
        if self._due(self.log_every):
            log.images_per_second = log.steps_per_second(self.done) * self.settings.batch
            log.write(self.done, self.seconds, self._means)
            self._means = Means()
        if self._due(self.save_every):
            self.save()
            save_training_figure(self.folder / FIGURE, log.rows)
        if self._due(self.sample_every) and _drawable(self.data.spec.shape):
            self._draw_samples()

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def save(self) -> None:
        """Write the checkpoint: averaged weights, training weights, optimizer, counts.

        Raises:
            ValueError: If a weight is not finite.
            OSError: If the file cannot be written; the old one is then intact.
        """
        tensors = {f"model.{k}": v for k, v in self.ema.averages.items()}
        tensors |= {f"train.net.{k}": v for k, v in self.model.net.state_dict().items()}
        tensors |= _optimizer_tensors(self.optimizer)
        progress = {
            "steps_done": self.done,
            "seconds": self.seconds,
            "ema_updates": self.ema.updates,
            "images": len(self.data),
            "pending": self._means.to_dict(),
        }
        save_checkpoint(self.checkpoint, tensors, {**self.metadata, **progress})

    def _draw_samples(self) -> None:
        path = self.folder / f"samples-{self.done:07d}.png"
        clean_stale(path)
        shape = (64, *self.data.spec.shape)
        y = None if self.data.labels is None else torch.arange(64) % self.data.spec.classes
        ts = grid.log_snr(self.model.sde, 20)
        with self.ema.applied(self.model.net) as net:
            device = next(net.parameters()).device
            sampler = DPMSolverMultistep()
            out = sample(self.model, sampler, ts, shape, seed=0, y=y, denoise=True, device=device)
        save_grid(path, out.x, self.data.spec)


def check_resumable(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Raise if the folder holds a run that one of these metadata cannot continue; cheaply.

    Args:
        folder: The run's folder; need not exist.
        metadata: "config" and "data", as for `Run`.

    Raises:
        CheckpointError: If its checkpoint cannot be read or was made with another config.
    """
    checkpoint = folder / CHECKPOINT
    if not checkpoint.exists():
        return
    try:
        _check_metadata(read_checkpoint(checkpoint), metadata)
    except CheckpointError as error:
        raise CheckpointError(error.reason, checkpoint) from error


def export(source: Path, target: Path) -> None:
    """Write a checkpoint without what only resuming needs: a quarter of the size.

    Args:
        source: A checkpoint of a run.
        target: The file to write.

    Raises:
        CheckpointError: If the source cannot be read.
    """
    raw = read_checkpoint(source)
    tensors = {k: v for k, v in raw.tensors.items() if k.startswith("model.")}
    metadata = {k: v for k, v in raw.metadata.items() if k != "pending"}
    save_checkpoint(target, tensors, metadata)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back: what is inside happens wholly, they are raised after it."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    arrived: list[int] = []
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler that was not set from Python and could not be set again.
    handlers = {n: handler for n, handler in handlers.items() if handler is not None}
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def _drawable(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3)


def _check_metadata(raw: RawCheckpoint, metadata: Mapping[str, Any]) -> None:
    for part in ("config", "data"):
        _check_same(raw.metadata.get(part, {}), metadata.get(part, {}), part)


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> None:
    before, after = _flat(old), _flat(new)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key not in _FREE:
            raise CheckpointError(
                f"was made with {what} {key} = {before.get(key)!r}, not {after.get(key)!r}; "
                "use another folder, or --overwrite"
            )


def _flat(tables: Mapping[str, Any]) -> dict[str, Any]:
    """One level of tables as `table.key`."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        nested = isinstance(value, Mapping)
        flat |= {f"{name}.{key}": v for key, v in value.items()} if nested else {name: value}
    return flat


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"train.adam.{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _load_optimizer(
    optimizer: torch.optim.Optimizer, net: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    parameters = list(net.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _without_prefix(tensors, "train.adam.").items():
        index, key = name.split(".")
        if key != "step":
            # Fused Adam wants the memory format of the parameter, and a file has none.
            value = torch.empty_like(parameters[int(index)], requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
