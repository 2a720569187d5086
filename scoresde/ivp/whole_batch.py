"""torchdiffeq's adaptive solvers; here they end exactly at t_end, and raise if they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

from .._tensor import check_choice, check_integer, check_number, plain_numbers
from .outcome import Counts, OnStep, Solution, SolverError, Status, error_norm

__all__ = ["WHOLE_BATCH_METHODS", "Adaptive"]

WHOLE_BATCH_METHODS = ("dopri8", "dopri5", "bosh3", "adaptive_heun", "fehlberg2")


@dataclass(frozen=True)
class Adaptive:
    """An adaptive Runge–Kutta method with one step size for the whole batch, by torchdiffeq.

    Args:
        method: "dopri8", "dopri5", "bosh3", "adaptive_heun" or "fehlberg2", of orders 8, 5, 3, 2
            and 2. fehlberg2 estimates its error as 1/512 of a difference of stages, and needs a
            far smaller tolerance than the other methods.
        rtol: Relative tolerance, in (0, 1).
        atol: Absolute tolerance, greater than 0.
        max_steps: Largest number of attempted steps; None = no limit.

    Raises:
        ValueError: On an argument out of range.
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-6
    max_steps: int | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("method", self.method, WHOLE_BATCH_METHODS)
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0)
        if self.max_steps is not None:
            check_integer("max_steps", self.max_steps, minimum=1)

    def solve(
        self,
        rate: Callable[[Tensor, float], Tensor],
        y: Tensor,
        t_start: float,
        t_end: float,
        *,
        dims: int | None = None,
        share: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Solution:
        """Integrate dy/dt = rate(y, t) from t_start to t_end, forwards or backwards.

        The samples share one step size. With `dims`, a step is accepted only if the error of each
        sample, by `error_norm`, is small enough. Without `dims`, torchdiffeq's own norm decides:
        the root mean square over the whole batch, in which many easy samples hide the error of a
        hard one.

        Args:
            rate: Maps (y, t) to dy/dt like y; never called outside the interval.
            y: State at t_start, shape (B, *D), B ≥ 1; (B, N) with `dims`. torchdiffeq passes
                float32 times for a float32 state.
            t_start: First time.
            t_end: Last time, not equal to t_start; met exactly.
            dims: The first `dims` ≤ N numbers of a sample are a point in space.
            share: Share of these numbers that exist, shape (B,), as for `error_norm`.
            on_step: Called after each accepted step with (steps done, time, state).

        Returns:
            The state at t_end, with the counts, which are the same for every sample.

        Raises:
            SolverError: If the solver fails, with the time reached.
        """
        problem = _Problem(self, rate, len(y), t_start, t_end, on_step)
        times = torch.tensor([t_start, t_end], dtype=torch.float64, device=y.device)
        # With `step_t` the solver steps exactly to the end. Otherwise it would step beyond it,
        # where no network was trained, and interpolate back with a lower order.
        options: dict[str, Any] = {"step_t": times[1:]}
        if dims is not None:
            options["norm"] = lambda error: error_norm(error, dims, share).max()
        elif share is not None:
            present = share.mean().sqrt().to(y)
            options["norm"] = lambda error: error.square().mean().sqrt() / present
        try:
            path = odeint(
                problem,
                y,
                times,
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=options,
            )
        except AssertionError as error:  # torchdiffeq fails with an assertion
            raise problem.failure(str(error), Status.UNDERFLOW) from error
        problem.report(t_end, path[-1])
        return Solution(path[-1], problem.counts(Status.DONE))


class _Problem:
    """The right-hand side, with torchdiffeq's call-backs for each step.

    torchdiffeq checks its steps by `assert`. Under `python -O` it would loop for ever without the
    checks made here.
    """

    def __init__(
        self,
        solver: Adaptive,
        rate: Callable[[Tensor, float], Tensor],
        samples: int,
        t_start: float,
        t_end: float,
        on_step: OnStep | None,
    ) -> None:
        self.solver, self.rate, self.on_step = solver, rate, on_step
        self.samples = samples
        self.low, self.high = sorted((t_start, t_end))
        self.sign = 1.0 if t_end > t_start else -1.0
        self.reached = t_start
        self.accepted = self.rejected = self.evaluations = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        # The choice of the first step may go beyond the end, and so may a rounded float32 time.
        self.evaluations += 1
        return self.rate(y, min(max(float(t), self.low), self.high))

    def callback_step(self, t: Tensor, y: Tensor, step: Tensor) -> None:
        """Called before each attempted step of size `step`, a positive number."""
        now = float(t)
        self.report(now, y)
        if not self.sign * (now + self.sign * float(step)) > self.sign * now:
            raise self.failure("underflow of the step size", Status.UNDERFLOW)
        limit = self.solver.max_steps
        if limit is not None and self.accepted + self.rejected >= limit:
            raise self.failure(f"{limit} steps did not suffice", Status.EVALUATIONS)

    def callback_accept_step(self, t: Tensor, y: Tensor, step: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, y: Tensor, step: Tensor) -> None:
        self.rejected += 1

    def report(self, t: float, y: Tensor) -> None:
        """Tell `on_step` of the state at t if it is new."""
        if t != self.reached:
            self.reached = t
            if self.on_step is not None:
                self.on_step(self.accepted, t, y)

    def counts(self, status: Status) -> Counts:
        """The same for every sample."""
        return Counts.fill(self.samples, status, self.accepted, self.rejected, self.evaluations)

    def failure(self, why: str, status: Status) -> SolverError:
        return SolverError(
            f"{self.solver.method} gave up at t={self.reached:.6g} ({why}): the right-hand side "
            "is not smooth enough there; loosen rtol and atol, raise max_steps or t_min, or "
            "compute in float64 and without dropout",
            self.counts(status),
        )
