"""The training loop: a generator of `TrainStep` records.

What a step sees is a function of (seed, n); see `examples`. The dropout of step n is a function of
(seed, n) too. Resuming at step n therefore needs neither a saved generator nor a position in the
data: N steps give the same result as k steps, a new process and N − k steps. Several processes can
make rows of one batch independently.

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

import torch
from torch import Tensor, nn

from .._condition import Condition, map_condition, take_rows
from .._philox import generator
from .._tensor import NonFiniteError
from ..data import Dataset, Stream
from ..error_history import ErrorHistory
from ..evaluation import seeded, training
from ..loss import Objective
from ..scaling import condition_warning, scale_warning
from ..score import NetworkScore
from ..score.network import stated_condition
from .examples import Examples
from .settings import TrainSettings, learning_rate_at

__all__ = ["TrainStep", "Training", "device_of", "make_optimizer", "network_seed"]


@dataclass(frozen=True)
class TrainStep:
    """One optimizer step.

    Attributes:
        step: Steps done, counting this one.
        loss: Mean weighted loss of the batch.
        t: Times of the batch, shape (B,).
        errors: Unweighted errors |ε̂ − ε|²/D of the batch, shape (B,).
        grad_norm: Gradient norm before clipping.
        learning_rate: The rate used.
        skipped: True if the step was left out because it was not finite.
    """

    step: int
    loss: float
    t: Tensor
    errors: Tensor
    grad_norm: float
    learning_rate: float
    skipped: bool


def make_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """Adam with the fused update; `Training.steps` sets its learning rate at every step."""
    return torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)


@dataclass(frozen=True)
class Training:
    """A training: the model, its data, the loss, and the settings of the loop.

    Args:
        model: The model; its network is trained in place, on its present device. With
            `label_dropout` it becomes `unconditional`.
        data: Training data; integer levels are dequantized uniformly, anew at every step. A share
            of them is held out if the settings say so. A `Stream` has no held-out data.
        objective: The loss.
        settings: Steps, batch, learning rate and so on.
        test: The test split, for `validation = "test"`; otherwise None.

    Attributes:
        examples: What each step sees, and what is held out.
        history: The errors of the steps so far, if the objective learns its times from them.

    Raises:
        TypeError: If the conditions of the data have another dtype than the network takes.
        ValueError: If there are fewer data than a batch needs, `validation` holds out fewer than 2
            of them or needs a test split that is not given or has another shape, the conditions of
            the data do not fit the network, a class has no datum, the objective does not suit the
            SDE, `flip` is set for data that are no images, or the network has no "no condition"
            that `label_dropout` could train.
    """

    model: NetworkScore
    data: Dataset | Stream
    objective: Objective
    settings: TrainSettings
    test: Dataset | None = None
    examples: Examples = field(init=False)
    history: ErrorHistory | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        model, data = self.model, self.data
        object.__setattr__(self, "examples", Examples(data, self.settings, self.test))
        if self.settings.label_dropout:
            self._check_label_dropout()
        rows = 1 if isinstance(data, Stream) else len(data)
        model.labelled(data.labels, rows, "cpu")  # refuses conditions that do not fit
        if self.settings.label_dropout:
            model.unconditional = True
        self.objective.check(model.sde, model.learned_variance)
        object.__setattr__(self, "history", self.objective.new_history(model))

    def _check_label_dropout(self) -> None:
        """Raise ValueError unless examples can be trained without their conditions."""
        stated, p = stated_condition(self.model.net), self.settings.label_dropout
        if self.data.labels is None:
            raise ValueError(f"label_dropout must be 0 for data without conditions, got {p}")
        if not stated:
            raise ValueError(
                f"label_dropout must be 0 for {type(self.model.net).__name__}, got {p}: it has no "
                "attribute condition, a ConditionSpec, by which it would promise to accept class K "
                "and entries of NaN as no condition"
            )

    def steps(self, optimizer: torch.optim.Optimizer, start: int = 0) -> Iterator[TrainStep]:
        """Train, yielding a record after each step, from `start` + 1 to `settings.steps`.

        It warns if the scale of the data does not suit the SDE, and if warm-up and cool-down leave
        no step at the full learning rate. After each step the caller's global random generators
        have their earlier states.

        Args:
            optimizer: From `make_optimizer(model.net)`.
            start: Steps already done, when resuming.

        Raises:
            RuntimeError: If loss or gradient are not finite more often than `max_skipped`. Weights
                and buffers then keep their values from before the bad step, as after every skipped
                step.
        """
        for text in self._doubts():
            warnings.warn(text, stacklevel=2)
        settings, net = self.settings, self.model.net
        skipped, buffers = 0, _Buffers(net)
        for n in range(start, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(settings, n)
            optimizer.zero_grad(set_to_none=True)
            buffers.keep()
            with training(net):
                step = self._backward(n)
            if step.skipped:
                buffers.restore()
            else:
                optimizer.step()
            if self.history is not None and not step.skipped:
                self.history.add(step.t, step.errors)
            skipped += step.skipped
            if skipped > settings.max_skipped:
                raise RuntimeError(_diverged(net, step))
            yield step

    def _doubts(self) -> Iterator[str]:
        """Warnings about settings that are allowed but are probably a mistake."""
        settings = self.settings
        problem = scale_warning(self.model.sde, self.data)
        if problem is not None:
            yield problem
        problem = condition_warning(self.data)
        if problem is not None:
            yield problem
        if max(settings.warmup, 1) + max(settings.cooldown, 1) > settings.steps + 1:
            yield (
                f"with {settings.warmup} steps of warm-up and {settings.cooldown} of cool-down in "
                f"{settings.steps}, learning_rate {settings.learning_rate} is never reached"
            )

    def _backward(self, n: int) -> TrainStep:
        """Put the clipped gradients of step n into the network; return the record of the step."""
        loss, norm, t, errors = math.nan, math.nan, torch.empty(0), torch.empty(0)
        net, settings = self.model.net, self.settings
        with suppress(NonFiniteError), network_seed(net, settings.seed, n):
            loss, t, errors = self._add_gradients(n)
            norm = float(nn.utils.clip_grad_norm_(net.parameters(), settings.clip))
        bad = not (math.isfinite(loss) and math.isfinite(norm))
        return TrainStep(n + 1, loss, t, errors, norm, learning_rate_at(settings, n), bad)

    def _add_gradients(self, n: int) -> tuple[float, Tensor, Tensor]:
        """Add the gradients of step n, one micro-batch after the other.

        Returns:
            The mean loss, the times (B,) and the unweighted errors (B,) of the batch.
        """
        x0, y, u, eps = self.examples.batch(n, self.model.condition)
        loss, times, errors = 0.0, [], []
        for part in torch.arange(len(x0)).tensor_split(self.settings.accumulate):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            labels = None if y is None else take_rows(y, rows)
            losses, t, error = self.losses(x0[rows], labels, u[rows], eps[rows], self.history)
            share = losses.mean() * (len(part) / len(x0))
            share.backward()
            loss += float(share.detach())
            times.append(t.detach())
            errors.append(error)
        return loss, torch.cat(times), torch.cat(errors)

    def losses(
        self,
        x0: Tensor,
        y: Condition | None,
        u: Tensor,
        eps: Tensor,
        history: ErrorHistory | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The objective of some data with their conditions, in the autocast of the settings.

        Arguments and result as for `Objective`; tensors may be on any device. Without a history,
        as in a validation, the times are the same at every step.
        """
        device = device_of(self.model.net)
        model = copy.copy(self.model)  # shares the network; the caller's model stays as it is
        if self.settings.autocast is not None:
            model.autocast = getattr(torch, self.settings.autocast)
        bound = model if y is None else model.given(map_condition(lambda v: v.to(device), y))
        batch = (v.to(device) for v in (x0, u, eps))
        return self.objective(bound, *batch, history)


class _Buffers:
    """A network's buffers, for instance BatchNorm's running statistics, copied before each step.

    A forward pass changes them even if its loss is not finite. A skipped step puts the copies back.
    """

    def __init__(self, net: nn.Module) -> None:
        # Not `named_buffers`, which leaves out a buffer that is None until the first forward pass.
        self._places = [(module, name) for module in net.modules() for name in module._buffers]

    def keep(self) -> None:
        """Copy the present values."""
        self._kept = [getattr(module, name) for module, name in self._places]
        self._values = [None if buffer is None else buffer.clone() for buffer in self._kept]

    def restore(self) -> None:
        """Put values and tensor objects back: a module may have assigned a new tensor."""
        for place, buffer, value in zip(self._places, self._kept, self._values, strict=True):
            setattr(*place, None if buffer is None else buffer.copy_(value))


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(net.parameters()).device


def network_seed(net: nn.Module, seed: int, n: int) -> AbstractContextManager[None]:
    """Seed torch's global generators, from which dropout draws, for step n, inside a block."""
    value = int(generator(seed, n, "dropout").integers(2**31))
    return seeded(value, [device] if (device := device_of(net)).type == "cuda" else [])


def _diverged(net: nn.Module, step: TrainStep) -> str:
    norm = float(torch.stack([p.detach().norm() for p in net.parameters()]).norm())
    return (
        f"training diverged at step {step.step}: loss {step.loss}, gradient norm "
        f"{step.grad_norm}, parameter norm {norm:.6g}; the last checkpoint is intact, try a lower "
        "learning_rate or clip"
    )
