"""The probability-flow ODE, solved by torchdiffeq."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from .._tensor import check_number
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from .base import OnStep, Sampler

__all__ = ["ADAPTIVE_METHODS", "FIXED_METHODS", "ProbabilityFlowODE"]

ADAPTIVE_METHODS = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_METHODS = ("euler", "midpoint", "heun2", "heun3", "rk4")

# Rounding of a float32 state is 6e-8 of it: below this the step size control measures noise.
FLOAT32_RTOL = 1e-7


@dataclass(frozen=True)
class ProbabilityFlowODE(Sampler):
    """dx/dt = f x − g²/2 score, integrated in t from ts[0] down to ts[-1].

    Adaptive methods choose their own steps and use nothing of the grid but its ends. They hold
    the local error, the root mean square over the whole batch of error/(atol + rtol |x|), below
    1, so a sample depends on its batch mates within the tolerance. Fixed methods take exactly
    the grid's steps, and a sample depends on nothing else.

        method          order  NFE per step      method    order  NFE per step
        dopri8              8  13                rk4           4  4  (the 3/8 rule)
        dopri5              5  6                 heun3         3  3
        bosh3               3  3                 heun2         2  2
        fehlberg2           2  2                 midpoint      2  2
        adaptive_heun       2  1                 euler         1  1

    (NFE per attempted step of an adaptive method, besides 2 at the start. fehlberg2 judges its
    error as 1/512 of a difference of stages and needs a far smaller tolerance than the others.)

    Deterministic. Times
    are float64; the state keeps its dtype, and torchdiffeq hands a float32 state's times over in
    float32. Song et al. 2021, arXiv:2011.13456, eq. (13).

    Args:
        method: One of the above.
        rtol: Relative tolerance in (0, 1), for adaptive methods; at least 1e-7 in float32.
        atol: Absolute tolerance, greater than 0, for adaptive methods.
        max_steps: Attempted steps after which an adaptive method gives up.

    Raises:
        ValueError: On an argument out of range; from `run`, if rtol is too small for float32.
        RuntimeError: From `run`, if the solver gives up.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        methods = ADAPTIVE_METHODS + FIXED_METHODS
        if self.method not in methods:
            raise ValueError(f"method must be one of {', '.join(methods)}, got {self.method!r}")
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0)
        check_number("max_steps", self.max_steps, at_least=1)

    @property
    def adaptive(self) -> bool:
        """Whether the method chooses its own steps."""
        return self.method in ADAPTIVE_METHODS

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Tensor:
        """Solve; `on_step` is called after each accepted step. Arguments as in `Sampler.run`."""
        if self.adaptive and x.dtype != torch.float64 and self.rtol < FLOAT32_RTOL:
            raise ValueError(
                f"rtol must be at least {FLOAT32_RTOL:g} in float32, got {self.rtol:g}; "
                "use float64 for more"
            )
        ts = ts.to(x.device, torch.float64)
        ends = ts[[0, -1]]
        field = _Field(model, float(ts[0]), float(ts[-1]), self, on_step)
        if self.adaptive:
            options = {"step_t": ends[1:]}  # land on the end: the score beyond it is undefined
        else:
            # the grid goes in by the back door, because odeint stores a state per time it is given
            options = {"grid_constructor": lambda _field, _x, _ends: ts}
        path = odeint(
            field, x, ends, rtol=self.rtol, atol=self.atol, method=self.method, options=options
        )
        field.report(float(ts[-1]), path[-1])
        return path[-1]


class _Field:
    """The vector field as torchdiffeq calls it, with the checks that it makes by `assert`.

    Those vanish under `python -O`, and the solver then never returns.
    """

    def __init__(
        self,
        model: ScoreModel,
        t_max: float,
        t_min: float,
        solver: ProbabilityFlowODE,
        on_step: OnStep | None,
    ) -> None:
        self.model = model
        self.t_max, self.t_min = t_max, t_min
        self.solver = solver
        self.on_step = on_step
        self.reached = t_max
        self.accepted = self.attempted = 0

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        # A float32 time may round to beyond the ends, and the solver's first trial step may lie
        # anywhere.
        return reverse_drift(self.model, x, min(max(float(t), self.t_min), self.t_max), eta=0.0)

    def callback_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        """Called by torchdiffeq before each attempted step from t to t − dt."""
        self.report(float(t), x)
        if not self.solver.adaptive:
            return
        method, where = self.solver.method, f"t={self.reached:.6g}"
        if not bool(t - dt < t):
            raise RuntimeError(
                f"{method} gave up at {where}: its step size fell below rounding; loosen rtol and "
                "atol, raise t_min, or use float64"
            )
        self.attempted += 1
        if self.attempted > self.solver.max_steps:
            raise RuntimeError(
                f"{method} gave up at {where} after {self.solver.max_steps} steps; loosen rtol "
                "and atol or raise max_steps"
            )

    def report(self, t: float, x: Tensor) -> None:
        """Tell `on_step` of the state at t if it is new."""
        if t < self.reached:
            self.reached = t
            self.accepted += 1
            if self.on_step is not None:
                self.on_step(self.accepted, t, x)
