"""A training run: log, checkpoints and pictures in a folder, around the loop of `Training`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..._tensor import check_integer, check_number
from ..._workers import ReadError
from ...autoencoder import Trainee
from ...checkpoint import CheckpointError, RawCheckpoint, save_checkpoint
from ...classification import NoisyClassifier
from ...data import Stream
from ...distributed import PeerError
from ...ema import EMA, PowerEMA
from ...output.progress import advise_on_memory
from ...output.tiles import can_show
from ...score.call import innermost
from ...train import Training, TrainStep, make_optimizer
from ...validation import Validation, check_bits, validate
from .autoencoder import draw_reconstructions, latent_scale
from .content import Best, averaged_tensors, restore, training_tensors
from .files import BEST, CHECKPOINT, FIGURE, LOG, SAVE_MINUTES, Intervals, open_folder
from .history import Log, Means
from .previews import draw_accuracy, draw_losses, draw_parts, draw_samples, shown_spec
from .resuming import VERSIONS, doubts, find_resumable, identity_of, versions_of
from .signals import signals_held
from .snapshots import save_snapshot

__all__ = ["Progress", "Run"]


@dataclass(frozen=True)
class Progress:
    """A training step, with mean loss and images per second from `Log.shown`.

    `validation` is the latest validation, as `validation_row` gives it; None if there was none.
    `validated` says whether it belongs to this step.
    """

    step: TrainStep
    loss: float
    images_per_second: float
    validation: Mapping[str, Any] | None
    validated: bool


class Run:
    """A training run with log, checkpoint and pictures in one folder; it can be resumed.

    Stopping at any step and resuming gives the same weights, averages and log as no stop.
    Two processes must not write one folder at the same time; `scoresde train` holds a lock on it.

    Attributes:
        model: The model, which is trained in place.
        data: The training data.
        settings: The settings of the loop.
        done: Steps done.
        seconds: Time of these steps, summed over all processes.
        ema: The averaged weights.
        power_emas: The power-function averages, of which snapshots are stored; none by default.
        optimizer: Adam.
    """

    def __init__(
        self,
        folder: Path,
        training: Training,
        metadata: Mapping[str, Any],
        intervals: Intervals | None = None,
        constant: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Prepare a run; nothing is written before `steps`.

        Args:
            folder: The run's folder; made if it does not exist.
            training: The model, on its device, with data, loss and settings.
            metadata: Plain data for the checkpoint: "config" and "data" as `scoresde.load` reads
                them, "provenance".
            intervals: How often to write; `Intervals()` by default.
            constant: Tensors of the checkpoints that the training does not change; none by default.

        Raises:
            ValueError: If the intervals ask for bits/dim that cannot be measured.
        """
        self.folder, self.training, self.metadata = folder, training, metadata
        self.model, self.data, self.settings = training.model, training.data, training.settings
        self.intervals, self._constant = intervals or Intervals(), dict(constant or {})
        self.optimizer = make_optimizer(self.model.net)
        self.ema = EMA(self.model.net, self.settings.ema_decay)
        widths = self.settings.ema_sigma_rel if self.settings.ema_snapshot_every else ()
        self.power_emas = [PowerEMA(self.model.net, width) for width in widths]
        self.done = 0
        self.seconds = 0.0
        self._means = Means()
        self._best: Best | None = None
        self._saved = 0, 0.0  # steps and seconds of the latest checkpoint
        self._versions = VERSIONS
        if self.intervals.validate_bits:
            try:
                check_bits(training, self.intervals.validate_bits)
            except ValueError as error:
                raise ValueError(f"--validate-bits: {error}") from error

    @property
    def validates(self) -> bool:
        """Whether the loss is measured on held-out data."""
        return self.training.examples.held_out is not None

    @property
    def classifier(self) -> bool:
        """Whether the model is a classifier of noisy data."""
        return isinstance(self.model, NoisyClassifier)

    @property
    def autoencoder(self) -> bool:
        """Whether the model is an autoencoder, of which reconstructions are drawn."""
        return isinstance(self.model, Trainee)

    @property
    def draws(self) -> bool:
        """Whether samples are drawn: not of a classifier, nor of data that cannot be shown."""
        return not self.classifier and can_show(shown_spec(self.model, self.data))

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's path."""
        return self.folder / CHECKPOINT

    def resume(self) -> int:
        """Continue from the folder's checkpoint if there is one; return the number of steps done.

        It warns if an earlier version of scoresde wrote the checkpoint and did not record the
        content of the data, or if the run was begun with another definition of the noise.

        Raises:
            CheckpointError: If the checkpoint was made with another config (`steps` and `cooldown`
                may differ, to train longer) or from other data, has more than `steps` steps, holds
                no training state, or cannot be read.
        """
        raw = find_resumable(self.checkpoint, self.metadata, self.data, self.training.test)
        if raw is None:
            return 0
        try:
            self._restore(raw)
        except CheckpointError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"damaged: {error!r}", self.checkpoint) from error
        found = list(doubts(raw, self.data))
        if isinstance(self.data, Stream):
            first = self.done * self.settings.batch
            found.append(self.data.resume(first, raw.metadata.get("stream")))
        if found:
            warnings.warn(f"{raw.path}: {'; '.join(found)}", stacklevel=2)
        return self.done

    def warm_up(self) -> None:
        """Compute one step and forget it: a compiled network is compiled before the first step.

        Raises:
            RuntimeError: If memory is too small.
        """
        with self._advising():
            self.training.warm_up(self.optimizer, self.done)

    def _restore(self, raw: RawCheckpoint) -> None:
        done = check_integer("steps_done", raw.metadata["steps_done"], minimum=0)
        if done > self.settings.steps:
            raise CheckpointError(
                f"has done {done} steps, more than the train.steps = {self.settings.steps} asked "
                "for; use another folder, or --overwrite",
                raw.path,
            )
        restore(raw, self.training, self.ema, self.power_emas, self.optimizer)
        self.seconds = check_number("seconds", raw.metadata["seconds"], at_least=0)
        self._means = Means(raw.metadata.get("pending"))
        self._best = Best.resumed(raw.metadata.get("best"), self.folder / BEST)
        self._versions = versions_of(raw)
        self.done = done

    def steps(self) -> Iterator[Progress]:
        """Train to the end, yielding after each step.

        Of several processes only rank 0 writes and yields; the others compute their rows.

        SIGINT, SIGTERM and SIGHUP take effect when a step and its validation are complete; an
        unfinished picture is abandoned. If a signal ends the loop (KeyboardInterrupt, SystemExit),
        or the caller leaves it, the checkpoint is saved first. A run that begins at step 0 removes
        the files of an earlier run after its first step has succeeded.

        Raises:
            ReadError: If the data cannot be read, or a process that reads them has died; the
                checkpoint is saved first.
            PeerError: If another process of the training fails; the checkpoint is saved first.
            RuntimeError: If training diverges or memory is too small; the last checkpoint stays.
            OSError: If the log or the checkpoint cannot be written; the last checkpoint stays.
        """
        if not self.training.ranks.writes:
            self._help()
            return
        identity_of(self.data)  # it may read a large file, which no checkpoint should wait for
        steps = self.training.steps(self.optimizer, self.done)
        parts = self.training.objective.parts if self.autoencoder else None
        log, start = Log(self.folder / LOG, self.done, self.settings.batch, parts), self.done
        began = time.monotonic() - self.seconds
        self._saved = self.done, self.seconds
        try:
            while self.done < self.settings.steps:
                with signals_held() as arrived:
                    with self._advising():
                        step = next(steps)
                    self.seconds = time.monotonic() - began
                    if self.done == start:  # results will be written
                        open_folder(self.folder, self.done)
                        log.begin()
                    self._after(step, log)
                    self._draw(log, arrived)
                shown = log.shown(self.done, self._means)
                yield Progress(step, *shown, log.validation, self._validates_now)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            with signals_held():
                self.save()
            raise
        except (ReadError, PeerError):
            if self.done > start:  # all steps so far are complete
                with signals_held():
                    self.save()
            raise
        except RuntimeError:
            self._means.settle()
            if self.done > start and self._means.count:  # the last losses show what happened
                log.write(self.done, self.seconds, self._means)
            raise

    def _help(self) -> None:
        """Do the steps of a process that does not write: weights alone, without averages."""
        steps = self.training.steps(self.optimizer, self.done)
        while self.done < self.settings.steps:
            with signals_held(), self._advising():
                self.done = next(steps).step

    def _advising(self) -> AbstractContextManager[None]:
        """If memory is too small in the block, say what takes less of it."""
        settings, net = self.settings, innermost(self.model.net, "checkpointing")
        words = "" if getattr(net, "checkpointing", True) else "train.checkpointing = true, "
        # A run of another batch or of other parts of it could not resume from the checkpoint.
        if self.checkpoint.exists():
            words += "or another folder and " if words else "another folder and "
        if 2 * settings.accumulate <= settings.batch:
            words += f"train.accumulate = {2 * settings.accumulate} or "
        return advise_on_memory(settings.batch, self.data.spec.shape, f"{words}train.batch =")

    def _after(self, step: TrainStep, log: Log) -> None:
        """Averages, validation, log and checkpoint after a step."""
        for average in (self.ema, *self.power_emas):
            average.update(self.model.net, step.left_out)
        self.done = step.step
        if self.power_emas and self._due(self.settings.ema_snapshot_every):
            save_snapshot(self.folder, self.done, self.power_emas)
        self._means.add(step)
        validation = self._validate() if self._validates_now else None
        if validation is not None or self._due(self.intervals.log_every):
            log.write(self.done, self.seconds, self._means, validation)
            self._means = Means()
        stale = self.seconds - self._saved[1] >= 60 * SAVE_MINUTES
        if stale or self._due(self.intervals.save_every):
            self.save()

    @property
    def _validates_now(self) -> bool:
        return self.validates and self._due(self.intervals.validate_every)

    def _validate(self) -> Validation:
        """Validate the averaged weights; save them if they are the best so far."""
        with self.ema.applied(self.model.net):
            found = validate(self.training, self.intervals.validate_bits)
        if found.loss < (math.inf if self._best is None else self._best.loss):  # false for NaN
            self._best = Best(self.done, found.loss, found.std_error)
            tensors = averaged_tensors(self.ema) | self._beside()
            save_checkpoint(self.folder / BEST, tensors, {**self._described(), **self._best.entry})
        return found

    def _draw(self, log: Log, arrived: list[int]) -> None:
        """The pictures of this step; abandoned as soon as a signal has arrived."""
        if self._saved[0] == self.done and not arrived:
            draw = draw_parts if self.autoencoder else draw_losses
            draw = draw_accuracy if self.classifier else draw
            draw(self.folder / FIGURE, log.rows)
        if self.draws and self._due(self.intervals.sample_every):
            path = self.folder / f"samples-{self.done:07d}.png"
            if self.autoencoder:
                draw_reconstructions(path, self.training, self.ema)
                return
            # Training has shown that its batch fits into memory.
            draw_samples(path, self.model, self.ema, self.data, self.settings.batch, arrived)

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def save(self) -> None:
        """Write the checkpoint: averaged weights, training weights, optimizer, counts.

        Raises:
            RuntimeError: If the training has diverged, which an accelerator may tell only now.
            ValueError: If a weight is not finite.
            OSError: If the file cannot be written; the old file is then unchanged.
        """
        self.training.watch.settle()
        state = {"ema_updates": self.ema.updates, "pending": self._means.to_dict()}
        if self.training.scaler.is_enabled():
            state["scaler"] = self.training.scaler.state_dict()
        if isinstance(self.data, Stream):
            state["stream"] = self.data.state(self.done * self.settings.batch)
        best = {} if self._best is None else self._best.entry
        tensors = training_tensors(self.training, self.ema, self.power_emas, self.optimizer)
        tensors |= self._beside()
        save_checkpoint(self.checkpoint, tensors, {**self._described(), **state, **best})
        self._saved = self.done, self.seconds

    def _beside(self) -> dict[str, Tensor]:
        """Tensors that are not trained, such as the scale of latents of the averaged weights."""
        scale = latent_scale(self.training, self.ema) if self.autoencoder else {}
        return self._constant | scale

    def _described(self) -> dict[str, Any]:
        """Metadata of both checkpoints."""
        return {
            **self.metadata,
            "steps_done": self.done,
            "seconds": self.seconds,
            **identity_of(self.data, self.training.test),
            **self._versions,
        }
