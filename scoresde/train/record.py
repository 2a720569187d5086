"""The record of a training step, and the count of the steps that were skipped.

An accelerator computes a step after the host has asked for it. The numbers of the record are copied
to the host without waiting for them, and reading one waits for this copy. So the host can ask for
the next steps while the accelerator is still busy with this one.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._deferred import on_accelerator

__all__ = ["Found", "TrainStep", "Watch"]

# Records that may wait for their numbers, also if none of them has arrived: a run that has diverged
# ends at most so many steps later.
_WAITING = 8


class Found(NamedTuple):
    """What a step has computed, on the device of the network.

    Attributes:
        loss: Mean weighted loss of the batch, shape (), float64.
        grad_norm: Gradient norm before clipping, shape ().
        t: Times of the batch, shape (B,); empty if the network gave no finite numbers.
        errors: Unweighted errors |ε̂ − ε|²/D of the batch, shape (B,), or empty.
        skipped: Whether the step is left out because it is not finite, bool, shape ().
        bad: Whether it counts against `max_skipped`, bool, shape ().
    """

    loss: Tensor
    grad_norm: Tensor
    t: Tensor
    errors: Tensor
    skipped: Tensor
    bad: Tensor


class TrainStep:
    """One optimizer step. Numbers from an accelerator arrive later, and reading one waits for it.

    Attributes:
        step: Steps done, counting this one.
        learning_rate: The rate used.
        left_out: What `WeightAverage.update` takes: whether the step was skipped, a bool on the
            CPU. On an accelerator it is a bool tensor of shape (), which stays there.
    """

    def __init__(self, step: int, learning_rate: float, found: Found) -> None:
        """Begin to copy the numbers of a step to the host.

        Args:
            step: Steps done, counting this one.
            learning_rate: The rate used.
            found: What the step has computed.
        """
        self.step, self.learning_rate = step, learning_rate
        later = on_accelerator(found.loss)
        self.left_out = found.skipped if later else bool(found.skipped)
        cuda = found.loss.device.type == "cuda"
        self._numbers = Found(*(value.to("cpu", non_blocking=cuda) for value in found))
        self._copied = None
        if cuda:
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(found.loss.device))

    @property
    def arrived(self) -> bool:
        """Whether the numbers can be read without waiting."""
        return self._copied is None or self._copied.query()

    @property
    def numbers(self) -> Found:
        """All numbers, on the CPU."""
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None
        return self._numbers

    @property
    def loss(self) -> float:
        """Mean weighted loss of the batch."""
        return float(self.numbers.loss)

    @property
    def grad_norm(self) -> float:
        """Gradient norm before clipping."""
        return float(self.numbers.grad_norm)

    @property
    def t(self) -> Tensor:
        """Times of the batch, shape (B,); empty if the network gave no finite numbers."""
        return self.numbers.t

    @property
    def errors(self) -> Tensor:
        """Unweighted errors |ε̂ − ε|²/D of the batch, shape (B,); empty like `t`."""
        return self.numbers.errors

    @property
    def skipped(self) -> bool:
        """Whether the step was left out because it was not finite."""
        return bool(self.numbers.skipped)

    @property
    def bad(self) -> bool:
        """Whether it was skipped, and not only because float16 needs a smaller scale."""
        return bool(self.numbers.bad)


class Watch:
    """Counts bad steps when their records arrive, and ends a training that has too many.

    Args:
        net: The network, for the message.
        most: Number of bad steps that are allowed.
    """

    def __init__(self, net: nn.Module, most: int) -> None:
        self._net, self._most = net, most
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self._bad, self._waiting = 0, deque[TrainStep]()

    def add(self, step: TrainStep) -> None:
        """Take a record, and count those that have arrived, in the order of the steps.

        Raises:
            RuntimeError: If more steps are bad than allowed; the message names the last of them.
        """
        self._waiting.append(step)
        while self._waiting and (self._waiting[0].arrived or len(self._waiting) > _WAITING):
            self._count(self._waiting.popleft())

    def settle(self) -> None:
        """Wait for all records and count them.

        Raises:
            RuntimeError: As for `add`.
        """
        while self._waiting:
            self._count(self._waiting.popleft())

    def _count(self, step: TrainStep) -> None:
        self._bad += step.bad
        if self._bad > self._most:
            self._waiting.clear()
            raise RuntimeError(_diverged(self._net, step))


def _diverged(net: nn.Module, step: TrainStep) -> str:
    norm = float(torch.stack([p.detach().norm() for p in net.parameters()]).norm())
    return (
        f"training diverged at step {step.step}: loss {step.loss}, gradient norm "
        f"{step.grad_norm}, parameter norm {norm:.6g}; the last checkpoint is intact, try a lower "
        "learning_rate or clip"
    )
