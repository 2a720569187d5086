"""torchdiffeq's adaptive solvers, made safe: they end at the end, and fail with an exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from .._tensor import check_number

__all__ = ["METHODS", "Adaptive", "Solution"]

# Without torchdiffeq's fehlberg2: its estimate of the error is some hundred times too small.
METHODS = ("dopri8", "dopri5", "bosh3", "adaptive_heun")


@dataclass(frozen=True)
class Solution:
    """The end of a solve.

    Attributes:
        state: State at the last time, shape (B, N), float64.
        accepted: Steps taken.
        rejected: Steps tried and not taken.
    """

    state: Tensor
    accepted: int
    rejected: int


@dataclass(frozen=True)
class Adaptive:
    """An adaptive Runge-Kutta method with its tolerances per step, atol + rtol |y|.

    Args:
        method: One of `METHODS`; orders 8, 5, 3, 2.
        rtol: Relative tolerance, in (0, 1).
        atol: Absolute tolerance, in (0, 1).
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-6

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0, below=1)

    def solve(
        self,
        rate: Callable[[Tensor, float], Tensor],
        state: Tensor,
        t_start: float,
        t_end: float,
        *,
        dims: int,
    ) -> Solution:
        """Integrate dy/dt = rate(y, t) from t_start up to t_end.

        The samples share one step size. A step is accepted only if it is good enough for each of
        them: torchdiffeq's own norm averages over the batch, where many easy samples hide the
        error of a hard one. The error of a sample is the larger of the root mean square over its
        first `dims` numbers, a point in space, and the greatest of the others, integrals.

        Args:
            rate: Maps (y, t) to dy/dt like y; never asked outside [t_start, t_end].
            state: y at t_start, shape (B, N), float64, B ≥ 1.
            t_start: First time.
            t_end: Last time, above t_start.
            dims: D ≤ N, how many numbers of a sample are a point in space.

        Returns:
            The state at t_end and the number of steps.

        Raises:
            RuntimeError: If the solver gives up, with the time reached.
        """
        problem = _Problem(rate, t_start, t_end, self.method)
        times = torch.tensor([t_start, t_end], dtype=torch.float64, device=state.device)
        # As a time to step on, the end is met exactly; else the solver would step beyond, where
        # no network was trained, and interpolate back at a lower order.
        options = {"norm": _norm(dims), "step_t": times[1:]}
        try:
            path = odeint(
                problem,
                state,
                times,
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=options,
            )
        except AssertionError as error:  # how torchdiffeq says that it failed
            raise problem.failure(str(error)) from error
        return Solution(path[-1], problem.accepted, problem.rejected)


class _Problem:
    """The right-hand side, with the call-backs by which torchdiffeq tells of its steps."""

    def __init__(
        self, rate: Callable[[Tensor, float], Tensor], t_start: float, t_end: float, method: str
    ) -> None:
        self.rate, self.t_start, self.t_end, self.method = rate, t_start, t_end, method
        self.reached = t_start
        self.accepted = self.rejected = 0

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        # The guess of the first step may look beyond the end.
        return self.rate(state, min(max(float(t), self.t_start), self.t_end))

    def callback_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        """Stop at a step that does not advance: under `python -O` torchdiffeq loops on it."""
        self.reached = float(t)
        if not self.reached + float(step) > self.reached:
            raise self.failure("underflow of the step size")

    def callback_accept_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        self.rejected += 1

    def failure(self, why: str) -> RuntimeError:
        return RuntimeError(
            f"{self.method} gave up at t={self.reached:.6g} ({why}): the ODE is not smooth there; "
            "loosen rtol and atol, or use a network in float64 and without dropout"
        )


def _norm(dims: int) -> Callable[[Tensor], Tensor]:
    """max over samples of max(RMS of the first `dims` numbers, |each of the others|)."""

    def norm(error: Tensor) -> Tensor:
        rms = error[:, :dims].square().mean(1, keepdim=True).sqrt()
        return torch.cat([rms, error[:, dims:].abs()], dim=1).max()

    return norm
