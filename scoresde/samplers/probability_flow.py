"""The probability-flow ODE by adaptive solvers: one step size for the batch, or one per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .._tensor import check_choice, check_integer, plain_numbers
from ..ivp import (
    PER_SAMPLE_METHODS,
    WHOLE_BATCH_METHODS,
    Adaptive,
    AdaptivePerSample,
    OnStep,
    Solution,
)
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from ..score.sets import share_present
from .base import Sampler, check_rtol

__all__ = ["ProbabilityFlowODE"]


@dataclass(frozen=True)
class ProbabilityFlowODE(Sampler):
    """dx/dt = f x − g²/2 score, integrated in t from ts[0] down to ts[-1].

    The solver chooses its own steps and uses only the two ends of the grid. There are two kinds of
    step size control:

    - Whole batch, by torchdiffeq: there is one step size, and the root mean square over the whole
      batch of error/(atol + rtol |x|) is kept below 1. A sample depends on its batch mates within
      the tolerance, and a hard sample among easy ones may be less accurate.
    - Per sample: each sample has its own times, step size and error, and leaves the batch when it
      is finished. Its result is the same alone and in any batch. This is not differentiable.

        method          order  NFE per attempted step      control
        dopri8              8  13                          whole batch
        dop853              8  12                          per sample
        dopri5              5  6                           either
        bosh3               3  3                           either
        fehlberg2           2  2                           whole batch
        adaptive_heun       2  1                           whole batch

    The start costs 2 more evaluations. (fehlberg2 estimates its error as 1/512 of a difference of
    stages, and needs a far smaller tolerance than the other methods.)

    Deterministic. Times are float64, but torchdiffeq passes float32 times for a float32 state.
    Song et al. 2021, arXiv:2011.13456, eq. (13).

    Args:
        method: One of the above.
        rtol: Relative tolerance in (0, 1); at least 1e-7 in float32.
        atol: Absolute tolerance, greater than 0.
        max_steps: Largest number of attempted steps; with `per_sample`, of each sample.
        per_sample: Whether each sample has its own step size, instead of one for the batch.

    Raises:
        ValueError: On an argument out of range, or a method without this kind of control; from
            `run`, if rtol is too small for float32.
        SolverError: From `run`, a RuntimeError, if the solver does not reach the end.
    """

    adaptive: ClassVar[bool] = True

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    per_sample: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        methods = PER_SAMPLE_METHODS if self.per_sample else WHOLE_BATCH_METHODS
        check_choice(f"method with per_sample={self.per_sample}", self.method, methods)
        check_integer("max_steps", self.max_steps, minimum=1)
        self._solver()  # checks the tolerances

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Solution:
        """Solve; `on_step` is called after each accepted step.

        With `per_sample`, `on_step` is called whenever the time that all samples have reached has
        moved. Arguments are those of `Sampler.run`.
        """
        check_rtol(self.rtol, x.dtype)

        def rate(x_t: Tensor, t: Tensor | float, rows: Tensor | slice = slice(None)) -> Tensor:
            return reverse_drift(model.take(rows), x_t, t, eta=0.0)

        share = share_present(model, x)
        return self._solver().solve(
            rate, x, float(ts[0]), float(ts[-1]), share=share, on_step=on_step
        )

    def _solver(self) -> Adaptive | AdaptivePerSample:
        if not self.per_sample:
            return Adaptive(self.method, self.rtol, self.atol, self.max_steps)
        # The 2 evaluations at the start are covered by those of one more step.
        limit = (self.max_steps + 1) * PER_SAMPLE_METHODS[self.method]
        return AdaptivePerSample(self.method, self.rtol, self.atol, limit)
