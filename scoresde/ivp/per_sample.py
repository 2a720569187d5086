"""The one loop of per-sample adaptive solvers: own time, step and verdict for each sample."""

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

# Steps are rounded down to so many bits, 1 % on the average: else the last bits of an error, which
# come from the order of sums inside a batch, would change the steps and so the result.
STEP_BITS = 6

# A step that would leave less than this part of itself to the end goes to the end.
STRETCH = 1.01

WHY = {
    Status.EVALUATIONS: "{evaluations} evaluations did not suffice",
    Status.UNDERFLOW: "underflow of the step size",
    Status.NOT_FINITE: "every step, however small, leads to infinity or NaN",
}


class Stepper(ABC):
    """How a step is tried: for every sample still running at once, each with its own times.

    Attributes:
        name: The method, for messages.
        evaluations: Evaluations of the right-hand side per attempt.
        exponent: The next step is the last times 0.9 error^−exponent.
    """

    name: str
    evaluations: int
    exponent: float

    def target(self, t: Tensor, t_new: Tensor) -> Tensor:
        """Where the step from t may go at most, if not to t_new; shapes (b,)."""
        return t_new

    @abstractmethod
    def attempt(self, y: Tensor, t: Tensor, t_new: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Try a step.

        Args:
            y: States at t, shape (b, N).
            t: Times, shape (b,), float64.
            t_new: Times to reach, shape (b,), float64.
            rows: Which samples of the batch these are, shape (b,), int64.

        Returns:
            States at t_new, shape (b, N), and their errors, shape (b,); 1 is just good enough.
        """

    @abstractmethod
    def settle(self, accepted: Tensor) -> None:
        """Told which attempts were accepted, shape (b,); the others are repeated."""

    @abstractmethod
    def keep(self, running: Tensor) -> None:
        """Told which samples go on, shape (b,); the others have arrived."""


def march(
    stepper: Stepper,
    y: Tensor,
    t_start: float,
    t_end: float,
    step: Tensor | float,
    *,
    evaluations: int = 0,
    max_evaluations: int | None = None,
    on_step: OnStep | None = None,
    names: Sequence[int] | None = None,
) -> Solution:
    """Step every sample from t_start to t_end, forwards or backwards, each at its own pace.

    An attempt with an error of at most 1 is accepted. The next step is the attempted one times
    0.9 error^−exponent, within [0.2, 10], and not above 1 right after a rejection (Hairer,
    Nørsett & Wanner, vol. I, section II.4). An error that is not finite counts as a large one.
    Samples that have arrived leave the batch, so a sample depends on nobody else, but for
    rounding inside the right-hand side.

    Args:
        stepper: How to try a step.
        y: State at t_start, shape (B, N).
        t_start: First time.
        t_end: Last time, not equal to t_start; met exactly.
        step: Size of the first step, a positive number or one per sample.
        evaluations: How many each sample has used already.
        max_evaluations: How many a sample may use, those included; None = any number.
        on_step: Called with (calls so far, time that every sample has reached, state of shape
            (B, N)) whenever that time has moved; the samples in it are at different times.
        names: What messages call the samples, shape (B,); None = their places in the batch.

    Returns:
        The state at t_end, with the counts.

    Raises:
        SolverError: If a sample needs more than `max_evaluations`, or its step size falls below
            the rounding of the time.
    """
    return _March(
        stepper, y, t_start, t_end, step, evaluations, max_evaluations, on_step, names
    ).run()


class _March:
    """The state of one `march`; t, step, y and refused hold the samples still running."""

    def __init__(
        self,
        stepper: Stepper,
        y: Tensor,
        t_start: float,
        t_end: float,
        step: Tensor | float,
        evaluations: int,
        max_evaluations: int | None,
        on_step: OnStep | None,
        names: Sequence[int] | None,
    ) -> None:
        self.stepper, self.on_step = stepper, on_step
        self.names = range(len(y)) if names is None else names
        self.t_end, self.sign = t_end, math.copysign(1.0, t_end - t_start)
        self.floor = 10 * torch.finfo(torch.float64).eps * max(abs(t_start), abs(t_end))
        self.limit = max_evaluations
        self.counts = Counts.fill(len(y), Status.RUNNING, evaluations=evaluations).to(y.device)
        self.result = y.clone()
        self.reached, self.calls = t_start, 0
        self.rows = torch.arange(len(y), device=y.device)
        self.y = y
        self.t, self.step = self._column(t_start), _rounded(self._column(step))
        self.refused = torch.zeros_like(self.rows, dtype=torch.bool)
        self.spent = evaluations  # of every running sample: they are tried together

    def run(self) -> Solution:
        """Until nobody is running."""
        while len(self.rows):
            self._check_budget()
            t_new = self._target()
            y_new, error = self.stepper.attempt(self.y, self.t, t_new, self.rows)
            self._advance(t_new, y_new, error)
            self._drop_arrived()
            self._report()
        return Solution(self.result, self.counts.to("cpu"))

    def _column(self, value: Tensor | float) -> Tensor:
        """One float64 number per running sample."""
        value = torch.as_tensor(value, dtype=torch.float64, device=self.y.device)
        return value.expand(len(self.rows)).clone()

    def _check_budget(self) -> None:
        if self.limit is not None and self.spent + self.stepper.evaluations > self.limit:
            self._fail(torch.ones_like(self.refused), Status.EVALUATIONS)

    def _target(self) -> Tensor:
        """Where this round's steps go; no sliver is left before the end."""
        arrives = STRETCH * self.step >= self.sign * (self.t_end - self.t)
        t_new = torch.where(arrives, self.t_end, self.t + self.sign * self.step)
        return self.stepper.target(self.t, t_new)

    def _advance(self, t_new: Tensor, y_new: Tensor, error: Tensor) -> None:
        """Accept or reject each attempt, count it, and choose the next step."""
        finite = torch.isfinite(y_new).all(1)
        error = torch.where(finite, error.to(torch.float64), math.inf)
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

    def _drop_arrived(self) -> None:
        running = self.t != self.t_end
        if bool(running.all()):
            return
        arrived = self.rows[~running]
        self.result[arrived] = self.y[~running]
        self.counts.status[arrived] = int(Status.DONE)
        for name in ("rows", "y", "t", "step", "refused"):
            setattr(self, name, getattr(self, name)[running])
        self.stepper.keep(running)

    def _report(self) -> None:
        """Tell `on_step` if the last of the samples has moved."""
        if self.on_step is None:
            return
        times = self.sign * self.t
        slowest = self.sign * float(times.min()) if len(times) else self.t_end
        if slowest != self.reached:
            self.reached, self.calls = slowest, self.calls + 1
            self.on_step(self.calls, slowest, self.result.index_copy(0, self.rows, self.y))

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
