"""The training loop: a generator of `TrainStep` records.

What a step sees is a function of (seed, n); see `examples`. The dropout of this package's networks
is a function of (seed, number of the example); see `nets.dropout`. Resuming at step n therefore
needs neither a saved generator nor a position in the data: N steps give the same result as k steps,
a new process and N − k steps.

Several processes make different rows of one batch, and the sum of their gradients is the gradient
of the mean over the whole batch. All of them then do the same update.

Random numbers that a network draws from torch's global generators are keyed by (seed, n). Random
numbers from NumPy, from Python's `random` or from the network's own generator are not seeded here,
and may differ after a resume.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from .._condition import Condition, map_condition, take_rows
from .._deferred import unchecked
from .._philox import generator
from .._tensor import NonFiniteError
from ..autoencoder import Trainee
from ..classification import NoisyClassifier
from ..data import Dataset, Stream
from ..distributed import PeerError, Ranks
from ..error_history import ErrorHistory
from ..evaluation import seeded, training
from ..nets.dropout import keyed
from ..score import NetworkScore
from ..training_loss import TrainingLoss
from .checks import check_label_dropout, check_ranks, check_sets, checkpoint_activations, doubts
from .examples import Examples
from .record import Found, TrainStep, Watch
from .settings import TrainSettings, learning_rate_at
from .total import Total
from .update import Buffers, update_unless

__all__ = ["Training", "device_of", "make_optimizer", "network_seed"]


def make_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """Adam with the fused update; `Training.steps` sets its learning rate at every step."""
    return torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)


@dataclass(frozen=True)
class Training:
    """A training: the model, its data, the loss, and the settings of the loop.

    Args:
        model: The model, a classifier or an autoencoder; its network is trained in place, on its
            device. With `label_dropout` it becomes `unconditional`, with `checkpointing` its
            network is told so.
        data: Training data; integer levels are dequantized uniformly, anew at every step. A share
            of them is held out if the settings say so. A `Stream` has no held-out data.
        objective: The loss: an `Objective` for a score model, `CrossEntropy` for a classifier,
            `Elbo` for an autoencoder, or one of `distillation` for a student.
        settings: Steps, batch, learning rate and so on.
        test: The test split, for `validation = "test"`; otherwise None.
        ranks: The processes that train together, each with a copy of the model and the same
            arguments. Up to rounding the result does not depend on their number, if the network
            has no layers that mix the examples of a batch, and no other dropout than that of this
            package's networks.

    Attributes:
        examples: What each step sees, and what is held out.
        history: The errors of the steps so far, if the objective learns its times from them.
        scaler: The factor of the loss in float16, which keeps small gradients above 0; it does
            nothing in other dtypes.
        watch: The count of the steps that were skipped.
        total: Adds up the gradients of all processes.

    Raises:
        TypeError: If the conditions of the data have another dtype than the network takes.
        ValueError: If there are fewer data than a batch needs, `validation` holds out fewer than 2
            of them or needs a test split that is not given or has another shape, the conditions of
            the data do not fit the network, a class has no datum, the objective does not suit the
            SDE, `flip` is set for data that are no images, the network has no "no condition" that
            `label_dropout` could train, or no attribute `checkpointing` that is to be set; the
            data are sets and the network does not take their sizes; or there are more processes
            than rows of a batch.
    """

    model: NetworkScore | NoisyClassifier | Trainee
    data: Dataset | Stream
    objective: TrainingLoss
    settings: TrainSettings
    test: Dataset | None = None
    ranks: Ranks = Ranks()
    examples: Examples = field(init=False)
    history: ErrorHistory | None = field(init=False, default=None)
    scaler: torch.amp.GradScaler = field(init=False)
    watch: Watch = field(init=False)
    total: Total = field(init=False)

    def __post_init__(self) -> None:
        model, data, ranks = self.model, self.data, self.ranks
        check_ranks(ranks, self.settings)
        check_sets(model, data)
        examples = Examples(data, self.settings, self.test).to(device_of(model.net))
        examples = examples.of(ranks.rank, ranks.size)
        object.__setattr__(self, "examples", examples)
        if self.settings.label_dropout:
            check_label_dropout(model, data, self.settings.label_dropout)
        if self.settings.checkpointing:
            checkpoint_activations(model.net)
        rows = 1 if isinstance(data, Stream) else len(data)
        model.labelled(data.labels, rows, "cpu")  # refuses conditions that do not fit
        if self.settings.label_dropout:
            model.unconditional = True
        self.objective.check(model.sde, model.learned_variance)
        object.__setattr__(self, "history", self.objective.new_history(model))
        half = self.settings.autocast == "float16"
        scaler = torch.amp.GradScaler(device_of(model.net).type, enabled=half)
        object.__setattr__(self, "scaler", scaler)
        object.__setattr__(self, "watch", Watch(model.net, self.settings.max_skipped))
        object.__setattr__(self, "total", Total(ranks, device_of(model.net)))

    def steps(self, optimizer: torch.optim.Optimizer, start: int = 0) -> Iterator[TrainStep]:
        """Train, yielding a record after each step, from `start` + 1 to `settings.steps`.

        The host does not wait for an accelerator, unless the objective learns its times or a
        record is read. It warns if the scale of the data does not suit the SDE, and if warm-up and
        cool-down leave no step at the full learning rate. After each step the caller's global
        random generators have their earlier states.

        Args:
            optimizer: From `make_optimizer(model.net)`.
            start: Steps already done, when resuming.

        Raises:
            RuntimeError: If loss or gradient are not finite more often than `max_skipped`. A bad
                step changes neither weights nor buffers. On an accelerator the error comes some
                steps later, at the latest after the last step or at `watch.settle`.
            PeerError: If another process fails. The model is then as after the latest step.
        """
        settings, net = self.settings, self.model.net
        for text in doubts(self.model, self.data, settings, self.ranks):
            warnings.warn(text, stacklevel=2)
        buffers = Buffers(net)
        self.watch.begin()
        for n in range(start, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(settings, n)
            buffers.keep()
            try:
                found = self._gradients(n, optimizer)
            except PeerError:
                buffers.restore_if(torch.tensor(True, device=device_of(net)))
                raise
            buffers.restore_if(found.skipped)
            update_unless(found.skipped, optimizer)
            step = TrainStep(n + 1, learning_rate_at(settings, n), found)
            # The next times are drawn from these errors, so that an accelerator is waited for.
            if self.history is not None and not step.skipped:
                self.history.add(step.t, step.errors)
            self.watch.add(step)
            if n + 1 == settings.steps:
                self.watch.settle()
            yield step

    def warm_up(self, optimizer: torch.optim.Optimizer, n: int) -> None:
        """Compute the gradients of step n and forget them, for instance to compile the network.

        Args:
            optimizer: From `make_optimizer(model.net)`; its state stays as it is.
            n: Steps already done.
        """
        buffers = Buffers(self.model.net)
        buffers.keep()
        scaler = copy.deepcopy(self.scaler)
        self._gradients(n, optimizer)
        object.__setattr__(self, "scaler", scaler)
        buffers.restore_if(torch.tensor(True, device=device_of(self.model.net)))
        optimizer.zero_grad(set_to_none=True)

    def _gradients(self, n: int, optimizer: torch.optim.Optimizer) -> Found:
        """Put the clipped gradients of step n into the network."""
        net, settings, device = self.model.net, self.settings, device_of(self.model.net)
        loss = norm = torch.full((), math.nan, dtype=torch.float64, device=device)
        t = errors = torch.empty(0)
        optimizer.zero_grad(set_to_none=True)
        scale = self.scaler.scale(torch.ones((), device=device))  # 1 except in float16
        # An accelerator shows by the loss that the network's output is not finite.
        with (
            suppress(NonFiniteError),
            unchecked(),
            training(net),
            network_seed(net, settings.seed, n, self.ranks.rank),
        ):
            loss, t, errors = self._add_gradients(n)
        if self.ranks.size > 1:
            loss, t, errors = self._of_all(loss, t, errors)
        if len(t):
            self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
            self.scaler.update()
        infinite = ~loss.isfinite()
        overflow = ~norm.isfinite()
        # In float16 an overflow of the gradient halves the scale, until it is at most 1.
        bad = infinite | (overflow & (scale <= 1))
        return Found(loss, norm, t, errors, infinite | overflow, bad)

    def _add_gradients(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Add the gradients of the own rows of step n, one micro-batch after the other.

        Returns:
            The part of the mean loss, shape () in float64, that comes from these rows; their times
            and unweighted errors, shape (rows,).
        """
        settings, net = self.settings, self.model.net
        x0, y, u, eps = self.examples.batch(n, self.model.condition)
        numbers = self.examples.numbers(n)
        loss, times, errors = 0.0, [], []
        for part in np.array_split(np.arange(len(x0)), min(settings.accumulate, len(x0))):
            rows = slice(part[0], part[-1] + 1)
            labels = None if y is None else take_rows(y, rows)
            with keyed(net, settings.seed, numbers[rows]):
                losses, t, error = self.losses(
                    *(x0[rows], labels, u[rows], eps[rows], self.history), n
                )
                share = losses.mean() * (len(part) / settings.batch)
                self.scaler.scale(share).backward()
            loss = loss + share.detach().double()
            times.append(t.detach())
            errors.append(error)
        return loss, torch.cat(times), torch.cat(errors)

    def _of_all(self, loss: Tensor, t: Tensor, errors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add up the gradients of all processes; loss, times and errors of the whole batch.

        A process whose network gave no finite numbers makes the loss NaN for all.
        """
        self.total.gradients(self.model.net.parameters())
        own, batch = self.examples.own, self.settings.batch
        numbers = torch.zeros(2 * batch + 1, dtype=torch.float64, device=loss.device)
        numbers[-1] = loss
        if len(t):
            numbers[own.start : own.stop] = t
            numbers[batch + own.start : batch + own.stop] = errors
        self.total(numbers)
        return numbers[-1], numbers[:batch], numbers[batch:-1]

    def losses(
        self,
        x0: Tensor,
        y: Condition | None,
        u: Tensor,
        eps: Tensor,
        history: ErrorHistory | None = None,
        n: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objective of some data with their conditions, in the autocast of the settings.

        Arguments and result as for `Objective`, of step n, or of the last step for None; tensors
        may be on any device. For a network in
        float64 the whole loss is computed in float64. Without a history,
        as in a validation, the times are the same at every step.
        """
        device = device_of(self.model.net)
        model = copy.copy(self.model)  # shares the network; the caller's model stays as it is
        if self.settings.autocast is not None:
            model.autocast = getattr(torch, self.settings.autocast)
        bound = model if y is None else model.given(map_condition(lambda v: v.to(device), y))
        dtype = torch.promote_types(x0.dtype, next(self.model.net.parameters()).dtype)
        x0, eps = x0.to(device, dtype), eps.to(device, dtype)
        objective = self.objective if n is None else self.objective.at_step(n, self.settings.steps)
        return objective(bound, x0, u.to(device), eps, history)


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(net.parameters()).device


def network_seed(net: nn.Module, seed: int, n: int, rank: int = 0) -> AbstractContextManager[None]:
    """Seed torch's global generators, from which foreign dropout draws, for step n, in a block.

    The processes of a training draw different numbers.
    """
    drawn = generator(seed, n, "dropout")
    value = [int(drawn.integers(2**31)) for _ in range(rank + 1)][rank]
    return seeded(value, [device] if (device := device_of(net)).type == "cuda" else [])
