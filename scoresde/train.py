"""The training loop: a generator of `TrainStep` records.

Row r of step n is example number n · batch + r of the training. Its dequantization, flip, time,
noise and label dropout are functions of (seed, number of the example). The order of the data in an
epoch is a function of (seed, epoch), and the dropout of step n is a function of (seed, n). Resuming
at step n therefore needs neither a saved generator nor a position in the data: N steps give the
same result as k steps, a new process and N − k steps. Several processes can make rows of one batch
independently.

Held-out data are a function of (seed, number of data); see `split_rows`.

Random numbers that a network draws from torch's global generators are keyed by (seed, n). Random
numbers from NumPy, from Python's `random` or from the network's own generator are not seeded here,
and may differ after a resume.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from ._condition import Condition, bound_rows, map_condition, take_rows
from ._philox import generator, normals, uniforms
from ._tensor import NonFiniteError, check_integer, check_number, check_type, plain_numbers
from .data import Dataset
from .ema import LARGEST_SIGMA_REL
from .error_history import ErrorHistory
from .evaluation import seeded, training
from .loss import Objective
from .noise import check_seed
from .scaling import condition_warning, scale_warning
from .score import NetworkScore
from .score.network import stated_condition

__all__ = [
    "VALIDATED",
    "TrainSettings",
    "TrainStep",
    "Training",
    "check_data",
    "device_of",
    "learning_rate_at",
    "make_optimizer",
    "network_seed",
    "split_rows",
]

VALIDATED = 2048  # most data of which a validation loss is computed: it costs as many evaluations


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop.

    Args:
        steps: Optimizer steps in all.
        batch: Images per step.
        learning_rate: Learning rate of Adam, after warm-up.
        warmup: Steps over which the learning rate rises linearly from 0.
        cooldown: Last steps, over which the learning rate falls linearly to 0.
        clip: Largest gradient norm; larger gradients are scaled down to this norm.
        ema_decay: Decay of the averaged weights, in [0, 1).
        ema_snapshot_every: Steps between snapshots of power-function averages, from which
            `scoresde ema` makes averages of other lengths; 0 stores none.
        ema_sigma_rel: Relative widths of these averages, see `scoresde.ema.power_exponent`.
        autocast: None or "bfloat16": compute the network in this dtype; weights, loss and
            optimizer stay in float32.
        label_dropout: Probability, in [0, 1), that an example is trained without its condition.
            Above 0 the model can also be evaluated without a condition.
        accumulate: Micro-batches of a step, at most `batch`. Their gradients are summed, so that
            the step is that of the whole batch up to rounding, with less memory. Layers that mix
            the examples of a batch (BatchNorm) see a micro-batch; dropout draws other numbers.
        flip: Whether each example is mirrored left to right with probability ½, anew at every
            visit; images only. The model then learns the distribution of the data and of their
            mirror images in equal parts.
        validation: Data on which the loss is measured and which are never trained on: a share of
            the data in [0, 1), chosen by the seed; "test" for the test split; 0 for none.
        max_skipped: How many steps with a non-finite loss or gradient may be skipped, each
            counted and logged, before training stops; counted anew after a resume.
        seed: Integer in [0, 2^64).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    steps: int
    batch: int
    learning_rate: float = 2e-4
    warmup: int = 500
    cooldown: int = 0
    clip: float = 1.0
    ema_decay: float = 0.999
    ema_snapshot_every: int = 0
    ema_sigma_rel: Sequence[float] = (0.05, 0.1)
    autocast: str | None = None
    label_dropout: float = 0.0
    accumulate: int = 1
    flip: bool = False
    validation: float | str = 0.0
    max_skipped: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, minimum in (("steps", 1), ("batch", 1), ("warmup", 0), ("cooldown", 0)):
            check_integer(name, getattr(self, name), minimum=minimum)
        check_integer("max_skipped", self.max_skipped, minimum=0)
        check_integer("ema_snapshot_every", self.ema_snapshot_every, minimum=0)
        self._check_widths()
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("clip", self.clip, above=0)
        check_number("ema_decay", self.ema_decay, at_least=0, below=1)
        check_number("label_dropout", self.label_dropout, at_least=0, below=1)
        check_integer("accumulate", self.accumulate, minimum=1)
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate must be at most the batch of {self.batch}, got {self.accumulate}"
            )
        check_type("flip", self.flip, bool)
        self._check_validation()
        check_seed(self.seed)
        if self.autocast not in (None, "bfloat16"):
            raise ValueError(f"autocast must be bfloat16 or absent, got {self.autocast!r}")

    def _check_widths(self) -> None:
        bounds = {"above": 0, "at_most": LARGEST_SIGMA_REL}
        widths = tuple(
            float(check_number("ema_sigma_rel", width, **bounds)) for width in self.ema_sigma_rel
        )
        object.__setattr__(self, "ema_sigma_rel", widths)
        if not widths or len(set(widths)) < len(widths):
            raise ValueError(f"ema_sigma_rel must be different widths, at least 1, got {widths}")

    def _check_validation(self) -> None:
        value = self.validation
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value != "test" and not (number and 0 <= value < 1):
            raise ValueError(
                f"validation must be 'test' or a share of the data in [0, 1), got {value!r}"
            )

    @property
    def share(self) -> float:
        """Share of the training data that are held out."""
        return 0.0 if self.validation == "test" else self.validation


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


def learning_rate_at(settings: TrainSettings, step: int) -> float:
    """Learning rate of step n = 0, 1, ...: linear warm-up, plateau, linear cool-down."""
    rise = (step + 1) / settings.warmup if settings.warmup else 1.0
    fall = (settings.steps - step) / settings.cooldown if settings.cooldown else 1.0
    return settings.learning_rate * min(1.0, rise, fall)


def split_rows(n: int, settings: TrainSettings) -> tuple[Tensor, Tensor]:
    """Rows of n data that are trained on, and rows that are held out; both in random order.

    Raises:
        ValueError: If fewer than 2 data are held out, of which no standard error could be
            computed, or fewer than a batch are left.
    """
    share, batch = settings.share, settings.batch
    held = round(share * n)
    if share and held < 2:
        raise ValueError(
            f"validation must hold out at least 2 of the {n} data, got {share}, which is {held}"
        )
    if n - held < batch:
        left = f", {held} of which are held out" if held else ""
        raise ValueError(f"batch must be at most the {n - held} data{left}, got {batch}")
    order = torch.from_numpy(generator(settings.seed, 0, "held out").permutation(n))
    return order[held:], order[:held]


@dataclass(frozen=True)
class Training:
    """A training: the model, its data, the loss, and the settings of the loop.

    Args:
        model: The model; its network is trained in place, on its present device. With
            `label_dropout` it becomes `unconditional`.
        data: Training data; integer levels are dequantized uniformly, anew at every step. A share
            of them is held out if the settings say so.
        objective: The loss.
        settings: Steps, batch, learning rate and so on.
        test: The test split, for `validation = "test"`; otherwise None.

    Attributes:
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
    data: Dataset
    objective: Objective
    settings: TrainSettings
    test: Dataset | None = None
    history: ErrorHistory | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        model, data = self.model, self.data
        check_data(data, self.test, self.settings)
        if self.settings.label_dropout:
            self._check_label_dropout()
        model.labelled(data.labels, len(data), "cpu")  # refuses conditions that do not fit
        if self.settings.label_dropout:
            model.unconditional = True
        self.objective.check(model.sde)
        object.__setattr__(self, "history", self.objective.new_history(model))
        empty = _taken(data, self.rows, labels_only=True).empty_class
        if empty is not None:
            left = " outside the held-out data" if self.settings.share else ""
            raise ValueError(
                f"every class must have data, but {empty} of {data.name} has none{left}"
            )

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        return split_rows(len(self.data), self.settings)

    @cached_property
    def rows(self) -> Tensor:
        """The rows of the data that are trained on, ascending."""
        return self._split[0].sort().values

    @cached_property
    def held_out(self) -> Dataset | None:
        """The data of the validation, at most `VALIDATED`, in random order; None without one."""
        if self.settings.validation == "test":
            order = generator(self.settings.seed, 0, "held out").permutation(len(self.test))
            return _taken(self.test, torch.from_numpy(order[:VALIDATED]))
        return _taken(self.data, self._split[1][:VALIDATED]) if self.settings.share else None

    @cached_property
    def compared(self) -> Dataset | None:
        """As many of the data that are trained on, for comparison; None without validation.

        If there are fewer of them than of the held-out data, they are repeated.
        """
        if self.held_out is None:
            return None
        kept = self._split[0]
        return _taken(self.data, kept[torch.arange(len(self.held_out)) % len(kept)])

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
        x0, y, u, eps = self._batch(n)
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

    def _batch(self, n: int) -> tuple[Tensor, Condition | None, Tensor, Tensor]:
        """Data (float32, model's scale), conditions, uniforms for times, and noise of step n."""
        data, seed, batch = self.data, self.settings.seed, self.settings.batch
        examples = np.arange(n * batch, (n + 1) * batch)
        rows = self._rows(n)
        x, size = data.x[rows], math.prod(data.x.shape[1:])
        if data.spec.levels is not None:
            u = uniforms(seed, examples, "training uniform", size)
            x = data.spec.dequantize(x, u.reshape(x.shape))
        y = self._conditions(rows, examples)
        if self.settings.flip:
            mirrored = uniforms(seed, examples, "flip", 1)[:, 0] < 0.5
            x = _mirrored(x, mirrored)
            y = None if y is None else map_condition(lambda leaf: _mirrored(leaf, mirrored), y)
        # Stratified over the batch: one draw in each of B equal intervals.
        u = (torch.arange(len(x)) + uniforms(seed, examples, "training times", 1)[:, 0]) / len(x)
        eps = normals(seed, examples, "training noise", size, dtype=torch.float32).reshape(x.shape)
        return x.float(), y, u, eps

    def _conditions(self, rows: Tensor, examples: np.ndarray) -> Condition | None:
        """The conditions of some rows of the data, left out with probability `label_dropout`."""
        if self.data.labels is None:
            return None
        y = take_rows(self.data.labels, rows)
        if not self.settings.label_dropout:
            return y
        u = uniforms(self.settings.seed, examples, "label dropout", 1)[:, 0]
        y = bound_rows(y, len(rows), "cpu")
        return self.model.condition.without(y, u < self.settings.label_dropout)

    def _rows(self, n: int) -> Tensor:
        """Rows of step n: the data are shuffled anew each epoch, and batches run across epochs."""
        size, batch = len(self.rows), self.settings.batch
        first, last = n * batch, (n + 1) * batch
        parts = []
        for epoch in range(first // size, (last - 1) // size + 1):
            order = generator(self.settings.seed, epoch, "shuffle").permutation(size)
            begin, end = max(first - epoch * size, 0), min(last - epoch * size, size)
            parts.append(torch.from_numpy(order[begin:end]))
        return self.rows[torch.cat(parts)]


def check_data(data: Dataset, test: Dataset | None, settings: TrainSettings) -> None:
    """Raise ValueError unless data and test split are what the settings need; see `Training`.

    Args:
        data: The training data.
        test: The test split, or None.
        settings: The settings.
    """
    split_rows(len(data), settings)
    if settings.flip and len(data.spec.shape) != 3:
        raise ValueError(f"flip must be false for {data.name}, whose data are no images")
    if settings.validation != "test":
        return
    if test is None:
        raise ValueError(
            f"validation must be a share of the data, got 'test': {data.name} has no test split"
        )
    if test.spec.shape != data.spec.shape:
        raise ValueError(
            f"validation must be a share of the data, got 'test': the test split of {data.name} "
            f"has shape {test.spec.shape}, the training data {data.spec.shape}"
        )


def _taken(data: Dataset, rows: Tensor, labels_only: bool = False) -> Dataset:
    """Some rows of the data."""
    y = None if data.labels is None else take_rows(data.labels, rows)
    return replace(data, labels=y) if labels_only else replace(data, x=data.x[rows], labels=y)


def _mirrored(x: Tensor, which: Tensor) -> Tensor:
    """Images, some of them mirrored left to right; class labels and vectors unchanged.

    Args:
        x: Shape (B, C, H, W), or another number of dimensions.
        which: The samples to mirror, bool, shape (B,).
    """
    return torch.where(which[:, None, None, None], x.flip(-1), x) if x.ndim == 4 else x


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
