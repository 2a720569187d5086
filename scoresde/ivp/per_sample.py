"""The loop of per-sample adaptive solvers: each sample has its own time, step size and error."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .outcome import Counts, OnStep, Solution, SolverError, Status

__all__ = ["Stepper", "march"]

# Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I", section II.4.
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

# Steps are rounded down to this many bits, by 1 % on average. Otherwise the last bits of an error,
# which depend on the order of sums inside a batch, would change the steps and so the result.
STEP_BITS = 6

# A step is extended to the end if less than 0.01 times the step would remain.
STRETCH = 1.01

WHY = {
    Status.EVALUATIONS: "{evaluations} evaluations did not suffice",
    Status.UNDERFLOW: "underflow of the step size",
    Status.NOT_FINITE: "every step, however small, leads to infinity or NaN",
}


class Stepper(ABC):
    """Attempts a step for all running samples at once, each with its own times.

    Attributes:
        name: The method, for messages.
        evaluations: Evaluations of the right-hand side per attempt.
        first_evaluations: Evaluations of `start`.
        exponent: The next step size is the last one times 0.9 error^−exponent.
    """

    name: str
    evaluations: int
    first_evaluations: int = 0
    exponent: float

    @abstractmethod
    def start(self, y: Tensor, t_start: float, t_end: float) -> Tensor | float:
        """Begin at y, shape (B, N), and return the first step size: a number, or shape (B,)."""

    def target(self, t: Tensor, t_new: Tensor) -> Tensor:
        """The time to which the step from t goes, t_new or earlier; shapes (b,)."""
        return t_new

    @abstractmethod
    def attempt(self, y: Tensor, t: Tensor, t_new: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Attempt a step.

        Args:
            y: States at t, shape (b, N).
            t: Times, shape (b,), float64.
            t_new: Times to reach, shape (b,), float64.
            rows: Positions of these samples in the batch, shape (b,), int64.

        Returns:
            States at t_new, shape (b, N), and their errors, shape (b,). An error of at most 1 is
            accepted.
        """

    @abstractmethod
    def settle(self, accepted: Tensor) -> None:
        """Called after an attempt; `accepted` marks the accepted samples, shape (b,), bool."""

    @abstractmethod
    def keep(self, running: Tensor) -> None:
        """Called when samples finish; `running` marks those that go on, shape (b,), bool."""


def march(
    stepper: Stepper,
    y: Tensor,
    t_start: float,
    t_end: float,
    *,
    max_evaluations: int | None = None,
    on_step: OnStep | None = None,
    names: Sequence[int] | None = None,
) -> Solution:
    """Step every sample from t_start to t_end, forwards or backwards, with its own step sizes.

    An attempt with an error of at most 1 is accepted. The next step size is the attempted one times
    0.9 error^−exponent, where this factor is limited to [0.2, 10], and to at most 1 right after a
    rejection (Hairer, Nørsett & Wanner, vol. I, section II.4). An error that is not finite counts
    as a large one. Samples at the end leave the batch. So a sample depends on no other one, except
    for rounding inside the right-hand side.

    Args:
        stepper: Attempts the steps. It receives each sample flattened.
        y: State at t_start, shape (B, *D).
        t_start: First time.
        t_end: Last time, not equal to t_start; met exactly.
        max_evaluations: Largest number per sample, including those of `start`; None = no limit.
        on_step: Called with (calls so far, time that every sample has reached, state like y)
            whenever that time has changed. The samples in the state are at different times.
        names: Numbers of the samples in messages, shape (B,); None = positions in the batch.

    Returns:
        The state at t_end, like y, with the counts.

    Raises:
        SolverError: If a sample needs more than `max_evaluations`, or its step size becomes less
            than the rounding of the time.
    """
    flat = y.reshape(len(y), y.shape[1:].numel())
    state = _March(stepper, flat, t_start, t_end, range(len(y)) if names is None else names)
    while len(state.rows):
        state.check_budget(max_evaluations)
        state.attempt()
        state.drop_arrived()
        if on_step is not None and state.has_moved():
            on_step(state.moves, state.reached, state.at_present().reshape(y.shape))
    return Solution(state.result.reshape(y.shape), state.counts.to("cpu"))


class _March:
    """The state of one `march`. rows, t, step, y and refused hold the running samples only."""

    def __init__(
        self, stepper: Stepper, y: Tensor, t_start: float, t_end: float, names: Sequence[int]
    ) -> None:
        self.stepper, self.names = stepper, names
        self.t_end, self.sign = t_end, math.copysign(1.0, t_end - t_start)
        self.floor = 10 * torch.finfo(torch.float64).eps * max(abs(t_start), abs(t_end))
        self.spent = stepper.first_evaluations  # per running sample; all are attempted together
        self.counts = Counts.fill(len(y), Status.RUNNING, evaluations=self.spent).to(y.device)
        self.result = y.clone()
        self.reached, self.moves = t_start, 0
        self.rows = torch.arange(len(y), device=y.device)
        self.y = y
        self.t = self._column(t_start)
        first = self._column(stepper.start(y, t_start, t_end) if len(y) else 0.0)
        self.step = _rounded(first.detach())  # steps are constants for gradients
        self.refused = torch.zeros_like(self.rows, dtype=torch.bool)

    def _column(self, value: Tensor | float) -> Tensor:
        """One float64 number per running sample."""
        value = torch.as_tensor(value, dtype=torch.float64, device=self.y.device)
        return value.expand(len(self.rows)).clone()

    def check_budget(self, limit: int | None) -> None:
        """Raise if one more attempt would need too many evaluations."""
        if limit is not None and self.spent + self.stepper.evaluations > limit:
            self._fail(torch.ones_like(self.refused), Status.EVALUATIONS)

    def attempt(self) -> None:
        """Attempt a step of every running sample, accept or reject it, choose the next step."""
        arrives = STRETCH * self.step >= self.sign * (self.t_end - self.t)
        t_new = torch.where(arrives, self.t_end, self.t + self.sign * self.step)
        t_new = self.stepper.target(self.t, t_new)
        y_new, error = self.stepper.attempt(self.y, self.t, t_new, self.rows)
        finite = torch.isfinite(y_new).all(1)
        error = torch.where(finite, error.detach().to(torch.float64), math.inf)
        accepted = error <= 1  # not if NaN
        factor = (SAFETY * error**-self.stepper.exponent).nan_to_num(nan=SHRINK)
        factor = factor.clamp(SHRINK, GROW)
        factor = torch.where(self.refused, factor.clamp(max=1), factor)
        self.step, self.refused = _rounded((t_new - self.t).abs() * factor), ~accepted
        self.t = torch.where(accepted, t_new, self.t)
        self.y = torch.where(accepted[:, None], y_new, self.y)
        self.spent += self.stepper.evaluations
        self.counts.accepted[self.rows] += accepted
        self.counts.rejected[self.rows] += self.refused
        self.counts.evaluations[self.rows] = self.spent
        lost = self.refused & (self.step < self.floor)
        if bool(lost.any()):
            broken = ~torch.isfinite(error[lost][0])
            self._fail(lost, Status.NOT_FINITE if bool(broken) else Status.UNDERFLOW)
        self.stepper.settle(accepted)

    def drop_arrived(self) -> None:
        """Store the samples that have finished, and go on with the others."""
        running = self.t != self.t_end
        if bool(running.all()):
            return
        arrived = self.rows[~running]
        self.result[arrived] = self.y[~running]
        self.counts.status[arrived] = int(Status.DONE)
        for name in ("rows", "y", "t", "step", "refused"):
            setattr(self, name, getattr(self, name)[running])
        self.stepper.keep(running)

    def has_moved(self) -> bool:
        """Whether the time that every sample has reached has changed since the last call."""
        times = self.sign * self.t
        slowest = self.sign * float(times.min()) if len(times) else self.t_end
        moved = slowest != self.reached
        self.reached, self.moves = slowest, self.moves + moved
        return moved

    def at_present(self) -> Tensor:
        """The states of all samples, shape (B, N), each at its own time."""
        return self.result.index_copy(0, self.rows, self.y)

    def _fail(self, failed: Tensor, status: Status) -> None:
        """Raise for the running samples marked in `failed`."""
        self.counts.status[self.rows[failed]] = int(status)
        why = WHY[status].format(evaluations=self.spent)
        first = self.names[int(self.rows[failed][0])]
        raise SolverError(
            f"{self.stepper.name} gave up on {int(failed.sum())} of {len(self.result)} samples, "
            f"first on sample {first} at t={float(self.t[failed][0]):.6g} "
            f"({why}); loosen rtol and atol, allow more steps, or compute in float64",
            self.counts.to("cpu"),
        )


def _rounded(step: Tensor) -> Tensor:
    """The step down to the next number of `STEP_BITS` binary digits."""
    mantissa, exponent = torch.frexp(step)
    return torch.ldexp((mantissa * 2**STEP_BITS).floor(), exponent - STEP_BITS)
