"""The probability-flow ODE by adaptive methods: one step size for the batch, or one per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from ..ivp import METHODS, PER_SAMPLE_METHODS, Adaptive, AdaptivePerSample, Counts, Solution
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from .base import OnStep, Sampler, check_rtol

__all__ = ["ProbabilityFlowODE"]


@dataclass(frozen=True)
class ProbabilityFlowODE(Sampler):
    """dx/dt = f x − g²/2 score, integrated in t from ts[0] down to ts[-1].

    The solver chooses its own steps and uses nothing of the grid but its ends. There are two kinds
    of control:

    - for the whole batch, by torchdiffeq: one step size, and the root mean square over the whole
      batch of error/(atol + rtol |x|) is held below 1. A sample depends on its batch mates within
      the tolerance, and a hard one among easy ones may be less accurate.
    - `per_sample`: each sample has its own times, step size and error, and leaves the batch when
      it arrives. It is the same alone and in any batch. Not differentiable.

        method          order  NFE per attempted step      control
        dopri8              8  13                          whole batch
        dop853              8  12                          per sample
        dopri5              5  6                           either
        bosh3               3  3                           either
        fehlberg2           2  2                           whole batch
        adaptive_heun       2  1                           whole batch

    besides 2 at the start. (fehlberg2 judges its error as 1/512 of a difference of stages and
    needs a far smaller tolerance than the others.)

    Deterministic. Times are float64; the state keeps its dtype, and torchdiffeq hands a float32
    state's times over in float32. Song et al. 2021, arXiv:2011.13456, eq. (13).

    Args:
        method: One of the above.
        rtol: Relative tolerance in (0, 1); at least 1e-7 in float32.
        atol: Absolute tolerance, greater than 0.
        max_steps: Attempted steps, of one sample if `per_sample`, after which it gives up.
        per_sample: Whether each sample has a step size of its own, or the batch has one.

    Raises:
        ValueError: On an argument out of range, or a method that has no such control; from `run`,
            if rtol is too small for float32.
        SolverError: From `run`, a RuntimeError, if the solver gives up.
    """

    adaptive: ClassVar[bool] = True

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    per_sample: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        methods = tuple(PER_SAMPLE_METHODS) if self.per_sample else METHODS
        if self.method not in methods:
            raise ValueError(
                f"method must be one of {', '.join(methods)} with per_sample={self.per_sample}, "
                f"got {self.method!r}"
            )
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0)
        check_integer("max_steps", self.max_steps, minimum=1)

    @property
    def off_grid(self) -> bool:
        """Asks the model at times of its own."""
        return True

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Tensor:
        """The state of `run_counted`."""
        return self.run_counted(model, x, ts, noise, on_step)[0]

    def run_counted(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> tuple[Tensor, Counts | None]:
        """Solve; `on_step` is called after each accepted step.

        If `per_sample`, it is called whenever the time that all samples have reached has moved.
        Arguments as in `Sampler.run`.
        """
        check_rtol(self.rtol, x.dtype)
        solve = self._solve_each if self.per_sample else self._solve_together
        solution = solve(model, x, float(ts[0]), float(ts[-1]), on_step)
        return solution.state, solution.counts

    def _solve_together(
        self, model: ScoreModel, x: Tensor, t_start: float, t_end: float, on_step: OnStep | None
    ) -> Solution:
        """The whole batch as one state."""

        def rate(x_t: Tensor, t: float) -> Tensor:
            return reverse_drift(model, x_t, t, eta=0.0)

        solver = Adaptive(self.method, self.rtol, self.atol, self.max_steps)
        return solver.solve(rate, x, t_start, t_end, on_step=on_step)

    def _solve_each(
        self, model: ScoreModel, x: Tensor, t_start: float, t_end: float, on_step: OnStep | None
    ) -> Solution:
        """Each sample for itself, flattened."""

        def shaped(y: Tensor) -> Tensor:
            return y.reshape(len(y), *x.shape[1:])

        def rate(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            # `take` of the whole batch's model, because rows count in the whole batch
            return reverse_drift(model.take(rows), shaped(y), t, eta=0.0).reshape(y.shape)

        def tell(step: int, t: float, y: Tensor) -> None:
            on_step(step, t, shaped(y))

        # one step more than allowed pays for the evaluations at the start
        limit = (self.max_steps + 1) * PER_SAMPLE_METHODS[self.method]
        solver = AdaptivePerSample(self.method, self.rtol, self.atol, limit)
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        solution = solver.solve(rate, flat, t_start, t_end, on_step=on_step and tell)
        return Solution(shaped(solution.state), solution.counts)
