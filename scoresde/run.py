"""A training run in a folder: log, checkpoints, sample grids and plots around the loop.

- checkpoint.safetensors: averaged weights, and all that resuming needs; replaced atomically
- log.jsonl: one line per `log_every` steps
- samples-*.png: a grid of samples now and then, always from the same noise
- loss.png: loss against step, and error against time

Training does not stop if a picture cannot be drawn; a warning says why.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import grid
from ._files import clean_folder
from ._tensor import check_integer, check_number, plain_numbers
from .checkpoint import CheckpointError, RawCheckpoint, load_into, read_checkpoint, save_checkpoint
from .data import Dataset
from .ema import EMA
from .history import Log, Means, is_log
from .loss import Objective
from .noise import NOISE_VERSION
from .samplers import DPMSolverMultistep, sample
from .score import NetworkScore
from .study.figures import save_grid, save_training_figure
from .study.running import advise_on_memory, out_of_memory
from .train import TrainSettings, TrainStep, check_training, make_optimizer, train

__all__ = [
    "CHECKPOINT",
    "FIGURE",
    "LOG",
    "SAVE_MINUTES",
    "Intervals",
    "Progress",
    "Run",
    "check_folder",
    "check_resumable",
    "export",
]

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
FIGURE = "loss.png"

SAVE_MINUTES = 5  # a checkpoint is never older, so a killed process loses no more

# What a resumed run may do differently: train longer, or find the same data elsewhere. Where the
# checkpoint records the data's content, their name does not matter.
_FREE = {"train.steps", "train.cooldown", "data.root"}
_NAMES = {"data.name", "name"}


@dataclass(frozen=True)
class Intervals:
    """How often a run writes. None of these changes the weights, so a resumed run may change them.

    Args:
        log_every: Steps between log lines.
        save_every: Steps between checkpoints; a checkpoint is also saved when the latest one is
            `SAVE_MINUTES` old.
        sample_every: Steps between sample grids (grey and RGB images only).

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If it is less than 1.
    """

    log_every: int = 100
    save_every: int = 1000
    sample_every: int = 5000

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, value in vars(self).items():
            check_integer(name, value, minimum=1)


@dataclass(frozen=True)
class Progress:
    """A training step, and mean loss and images per second as `Log.shown` gives them."""

    step: TrainStep
    loss: float
    images_per_second: float


class Run:
    """Train a model, leaving everything in one folder; resumes from its checkpoint.

    Stopping at any step and resuming gives the same weights, averages and log as not stopping.
    Two processes must not write one folder at the same time; `scoresde train` holds a lock on it.

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
        intervals: Intervals | None = None,
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
            intervals: How often to write; `Intervals()` by default.

        Raises:
            ValueError: If the data hold fewer images than a batch, or the objective does not suit
                the SDE.
        """
        check_training(model, data, objective, settings)
        self.folder, self.model, self.data = folder, model, data
        self.objective, self.settings = objective, settings
        self.metadata = json.loads(json.dumps(metadata))  # as a checkpoint gives it back
        self.intervals = intervals or Intervals()
        self.optimizer = make_optimizer(model.net)
        self.ema = EMA(model.net, settings.ema_decay)
        self.done = 0
        self.seconds = 0.0
        self._means = Means()
        self._saved = 0, 0.0  # steps and seconds of the latest checkpoint
        self._noise_version = NOISE_VERSION

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's path."""
        return self.folder / CHECKPOINT

    def resume(self) -> int:
        """Continue from the folder's checkpoint if there is one; the number of steps done.

        It warns if an earlier version of scoresde wrote the checkpoint and did not record the
        content of the data, or if the run was begun with another definition of the noise.

        Raises:
            CheckpointError: If it was made with another config (`steps` and `cooldown` may
                differ, to train longer) or from other data, has done more than `steps` already,
                holds no training state, or cannot be read.
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
        _check_data(raw, self.data)
        done = check_integer("steps_done", raw.metadata["steps_done"], minimum=0)
        if done > self.settings.steps:
            raise CheckpointError(
                f"has done {done} steps, more than the train.steps = "
                f"{self.settings.steps} asked for; use another folder, or --overwrite"
            )
        load_into(self.model.net, raw.tensors, "train.net.")
        averages = _without_prefix(raw.tensors, "model.")
        self.ema.load_state_dict({"updates": raw.metadata["ema_updates"], "averages": averages})
        _load_optimizer(self.optimizer, self.model.net, raw.tensors)
        seconds = check_number("seconds", raw.metadata["seconds"], at_least=0)
        self.done, self.seconds = done, seconds
        self._means = Means(raw.metadata.get("pending"))
        self._noise_version = raw.metadata.get("noise_version", 1)
        doubts = list(_doubts(raw, self.data))
        if doubts:
            warnings.warn(f"{raw.path}: {'; '.join(doubts)}", stacklevel=4)

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding after each step.

        SIGINT, SIGTERM and SIGHUP wait until a step is complete; a picture is given up for them.
        Where they raise (KeyboardInterrupt, SystemExit), and where the caller leaves the loop, the
        checkpoint is saved first. A run from step 0 removes the files of an earlier run once its
        first step has succeeded.

        Raises:
            RuntimeError: If training diverges or the memory does not suffice; the last checkpoint
                stays.
            OSError: If the log or the checkpoint cannot be written; the last checkpoint stays.
        """
        steps = train(
            self.model, self.optimizer, self.data, self.objective, self.settings, self.done
        )
        # A checkpoint of another batch size is not resumed.
        begun = self.checkpoint.exists()
        advice = "another folder and train.batch =" if begun else "train.batch ="
        log, start = Log(self.folder / LOG, self.done, self.settings.batch), self.done
        began = time.monotonic() - self.seconds
        self._saved = self.done, self.seconds
        try:
            while self.done < self.settings.steps:
                with _signals_held() as arrived:
                    with advise_on_memory(self.settings.batch, self.data.spec.shape, advice):
                        step = next(steps)
                    self.seconds = time.monotonic() - began
                    if self.done == start:
                        self._open_folder(log)
                    self._after(step, log)
                    self._draw(log, arrived)
                yield Progress(step, *log.shown(self.done, self._means))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            with _signals_held():
                self.save()
            raise
        except RuntimeError:
            if self.done > start and self._means.count:  # the last losses show what happened
                log.write(self.done, self.seconds, self._means)
            raise

    def _open_folder(self, log: Log) -> None:
        """Prepare the folder, once the first step has succeeded and results will be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.done == 0:
            for path in _files_of_a_run(self.folder):
                path.unlink()
        clean_folder(self.folder)
        log.begin()

    def _after(self, step: TrainStep, log: Log) -> None:
        """Averages, log and checkpoint after a step."""
        if not step.skipped:
            self.ema.update(self.model.net)
        self.done = step.step
        self._means.add(step)
        if self._due(self.intervals.log_every):
            log.write(self.done, self.seconds, self._means)
            self._means = Means()
        stale = self.seconds - self._saved[1] >= 60 * SAVE_MINUTES
        if stale or self._due(self.intervals.save_every):
            self.save()

    def _draw(self, log: Log, arrived: list[int]) -> None:
        """The pictures of this step; given up as soon as a signal has arrived."""
        if self._saved[0] == self.done and not arrived:
            with _picture(self.folder / FIGURE) as path:
                save_training_figure(path, log.rows)
        if self._due(self.intervals.sample_every) and _drawable(self.data.spec.shape):
            with _picture(self.folder / f"samples-{self.done:07d}.png") as path:
                self._draw_samples(path, arrived)

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
            "data_fingerprint": self.data.fingerprint,
            "noise_version": self._noise_version,
            "pending": self._means.to_dict(),
        }
        save_checkpoint(self.checkpoint, tensors, {**self.metadata, **progress})
        self._saved = self.done, self.seconds

    def _draw_samples(self, path: Path, arrived: list[int]) -> None:
        def give_up(*_: object) -> None:
            if arrived:
                raise _GivenUp

        give_up()
        shape = (64, *self.data.spec.shape)
        y = None if self.data.labels is None else torch.arange(64) % self.data.spec.classes
        ts = grid.log_snr(self.model.sde, 20)
        with self.ema.applied(self.model.net) as net:
            device = next(net.parameters()).device
            out = sample(
                self.model,
                DPMSolverMultistep(),
                ts,
                shape,
                seed=0,
                y=y,
                batch=min(64, self.settings.batch),  # training has shown that this much fits
                denoise=True,
                device=device,
                on_step=give_up,
            )
        save_grid(path, out.x, self.data.spec)


def check_folder(folder: Path) -> None:
    """Raise if a run would replace files in the folder that no run has written.

    Args:
        folder: The run's folder; need not exist.

    Raises:
        CheckpointError: If the checkpoint is not one of ours, or damaged, and there is no log.
        ValueError: If other files have names that a run gives, and there is no log.
    """
    found = _files_of_a_run(folder)
    log = folder / LOG
    # a run that is killed early leaves an empty log, which alone is no mark of ours
    if not found or (is_log(log) and (found == [log] or log.stat().st_size)):
        return
    if folder / CHECKPOINT in found:
        read_checkpoint(folder / CHECKPOINT)
    else:
        raise ValueError(
            f"--out {folder}: holds {found[-1].name}, which scoresde train did not write; give "
            "another folder"
        )


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


class _GivenUp(Exception):
    """A picture is not finished because a signal has arrived."""


@contextmanager
def _picture(path: Path) -> Iterator[Path]:
    """Turn every failure to draw a picture into a warning, so that training goes on."""
    try:
        yield path
    except _GivenUp:
        pass
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        reason = "out of memory" if out_of_memory(error) else f"{type(error).__name__}: {first}"
        warnings.warn(f"{path} was not drawn ({reason}); training goes on", stacklevel=3)


_STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Hold back the signals that stop a process, and raise them after the block.

    Yields:
        The numbers of those that have arrived.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield arrived
        return
    handlers = {n: signal.getsignal(n) for n in _STOPPING}
    # None is a handler that was not set from Python and could not be set again. An ignored signal
    # (`nohup` ignores SIGHUP) stays ignored.
    handlers = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield arrived
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)


def _files_of_a_run(folder: Path) -> list[Path]:
    """The files in a folder that have the names a run gives."""
    pictures = (p for p in folder.glob("samples-*.png") if re.fullmatch(r"samples-\d{7,}", p.stem))
    return [
        p for p in (folder / CHECKPOINT, folder / LOG, folder / FIGURE) if p.is_file()
    ] + sorted(pictures)


def _drawable(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3)


def _check_metadata(raw: RawCheckpoint, metadata: Mapping[str, Any]) -> None:
    free = _FREE | _NAMES if "data_fingerprint" in raw.metadata else _FREE
    _check_same(raw.metadata.get("config", {}), metadata.get("config", {}), "config", free)
    # An earlier version knew less of the data; what it did not know cannot differ.
    data = raw.metadata.get("data", {})
    now = {key: value for key, value in metadata.get("data", {}).items() if key in data}
    _check_same(data, now, "data", free)


def _check_data(raw: RawCheckpoint, data: Dataset) -> None:
    """Raise if the checkpoint is known to be trained on other data."""
    count = raw.metadata.get("images", len(data))
    if count != len(data):
        raise CheckpointError(f"was trained on {count} data points, there are {len(data)} now")
    if raw.metadata.get("data_fingerprint", data.fingerprint) != data.fingerprint:
        what = "images" if len(data.spec.shape) == 3 else "data points"
        labelled = " or their labels" if data.labels is not None else ""
        raise CheckpointError(
            f"the {len(data)} {what}{labelled} are not those the run was trained on, or are in "
            "another order; put those back, use another folder, or --overwrite"
        )


def _doubts(raw: RawCheckpoint, data: Dataset) -> Iterator[str]:
    """Why the resumed run may not be the one that it would have been without a break."""
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


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], what: str, free: Set[str]) -> None:
    before, after = _flat(old), _flat(new)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and key not in free:
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
