"""Embedded Runge–Kutta methods with a step size for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import DOP853, RK23, RK45
from torch import Tensor

from .._tensor import check_choice, check_integer, check_number, plain_numbers
from .outcome import OnStep, Solution, error_norm
from .per_sample import Stepper, march

__all__ = ["PER_SAMPLE_METHODS", "AdaptivePerSample", "Rate"]

# (y of shape (b, *D), t of shape (b,), rows of shape (b,)) to dy/dt like y.
Rate = Callable[[Tensor, Tensor, Tensor], Tensor]

# scipy.integrate publishes the coefficients as attributes of its solvers.
_EMBEDDED_PAIRS = {"dop853": DOP853, "dopri5": RK45, "bosh3": RK23}

# Evaluations of an attempted step, including the evaluation with which the next step begins.
PER_SAMPLE_METHODS = {name: table.n_stages for name, table in _EMBEDDED_PAIRS.items()}


@dataclass(frozen=True)
class AdaptivePerSample:
    """An embedded Runge–Kutta method: each sample has its own step size, error and acceptance.

        method  order  evaluations per attempted step
        dop853      8  12   Hairer, Nørsett & Wanner, vol. I, section II.10
        dopri5      5   6   Dormand & Prince 1980
        bosh3       3   3   Bogacki & Shampine 1989

    The start costs 2 more evaluations. A step is accepted if the sample's error, measured by
    `error_norm` in units of atol + rtol max(|y|, |y_new|), is at most 1. The first and all later
    steps are chosen as in Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I",
    section II.4. A sample's result is the same in any batch, up to the rounding of the right-hand
    side.

    Args:
        method: One of the above.
        rtol: Relative tolerance, in (0, 1).
        atol: Absolute tolerance, greater than 0.
        max_evaluations: Largest number of evaluations of a sample; None = no limit.

    Raises:
        ValueError: On an argument out of range.
    """

    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-6
    max_evaluations: int | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("method", self.method, _EMBEDDED_PAIRS)
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0)
        if self.max_evaluations is not None:
            check_integer("max_evaluations", self.max_evaluations, minimum=1)

    @torch.no_grad()
    def solve(
        self,
        rate: Rate,
        y: Tensor,
        t_start: float,
        t_end: float,
        *,
        dims: int | None = None,
        share: Tensor | None = None,
        on_step: OnStep | None = None,
        names: Sequence[int] | None = None,
    ) -> Solution:
        """Integrate dy/dt = rate(y, t, rows) from t_start to t_end, forwards or backwards.

        Args:
            rate: Maps y of shape (b, *D), times t (b,) in float64 and `rows` (b,), the positions of
                these samples in the batch, to dy/dt like y; never called outside the interval.
            y: State at t_start, shape (B, *D), float32 or float64; times are float64 in any case.
            t_start: First time.
            t_end: Last time, not equal to t_start; met exactly.
            dims: The first `dims` numbers of a sample are a point in space; None = all.
            share: Share of these numbers that exist, shape (B,), as for `error_norm`.
            on_step: As in `march`.
            names: As in `march`.

        Returns:
            The state at t_end, with the counts of each sample.

        Raises:
            ValueError: If t_start equals t_end.
            SolverError: If a sample needs more than `max_evaluations`, or its step size falls
                below rounding; it names the sample and the time reached.
        """
        if t_start == t_end:
            raise ValueError(f"t_end must differ from t_start, got {t_end} for both")
        return march(
            _Embedded(self, rate, y, dims, share),
            y,
            t_start,
            t_end,
            max_evaluations=self.max_evaluations,
            on_step=on_step,
            names=names,
        )


class _Embedded(Stepper):
    """One attempt of a tableau whose last slope is the first of the next step."""

    first_evaluations = 2  # at t_start, and in the trial that chooses the first step

    def __init__(
        self,
        solver: AdaptivePerSample,
        rate: Rate,
        y: Tensor,
        dims: int | None,
        share: Tensor | None = None,
    ) -> None:
        table = _EMBEDDED_PAIRS[solver.method]
        self.name, self.rate, self.shape = solver.method, rate, y.shape[1:]
        self.dims = self.shape.numel() if dims is None else dims
        self.share = share
        self.rtol, self.atol = solver.rtol, solver.atol
        self.evaluations = table.n_stages
        self.exponent = 1 / (table.error_estimator_order + 1)
        weights = [table.A[i, :i] for i in range(1, table.n_stages)]
        self.a = [_like(row, y) for row in weights]
        self.b, self.c = _like(table.B, y), table.C.tolist()
        errors = (table.E5, table.E3) if table is DOP853 else (table.E,)
        self.errors = [_like(row, y) for row in errors]

    def start(self, y: Tensor, t_start: float, t_end: float) -> Tensor:
        """The first slope, and each sample's first step by Hairer et al., II.4."""
        rows = torch.arange(len(y), device=y.device)
        t = torch.full((len(y),), t_start, dtype=torch.float64, device=y.device)
        self.slopes = y.new_empty(self.evaluations + 1, *y.shape)
        self.slopes[0] = self._slope(y, t, rows)
        scale = self.atol + self.rtol * y.abs()
        d0, d1 = self._norm(y / scale), self._norm(self.slopes[0] / scale)
        h = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        # NaN, where the first slope is not finite, becomes a step of 0, which fails.
        h = h.nan_to_num(nan=0.0).clamp(max=abs(t_end - t_start))
        t_new = torch.lerp(t, torch.full_like(t, t_end), h / abs(t_end - t_start))
        trial = self._slope(self._moved(y, t_new - t, self.a[0].new_ones(1)), t_new, rows)
        d2 = self._norm((trial - self.slopes[0]) / scale) / h
        steepest = torch.maximum(d1, d2)
        curved = (0.01 / steepest) ** self.exponent
        flat = (1e-3 * h).clamp(min=1e-6)
        guess = torch.where(steepest <= 1e-15, flat, curved)
        # If the rate is not finite on the trial, the step must be small.
        return torch.minimum(100 * h, guess.nan_to_num(nan=0.0)).clamp(min=1e-6 * h)

    def attempt(self, y: Tensor, t: Tensor, t_new: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The stages, then the new state with its slope, and the embedded error."""
        h = t_new - t
        for i, row in enumerate(self.a, start=1):
            # lerp, because t + h may round to beyond the end
            stage_time = torch.lerp(t, t_new, self.c[i])
            self.slopes[i] = self._slope(self._moved(y, h, row), stage_time, rows)
        y_new = self._moved(y, h, self.b)
        self.slopes[-1] = self._slope(y_new, t_new, rows)
        scale = self.atol + self.rtol * torch.maximum(y.abs(), y_new.abs())
        return y_new, self._error(h, scale)

    def settle(self, accepted: Tensor) -> None:
        """The last slope of an accepted step is the first of the next."""
        self.slopes[0] = torch.where(accepted[:, None], self.slopes[-1], self.slopes[0])

    def keep(self, running: Tensor) -> None:
        """Keep the first slopes, which are all that the next step needs."""
        first = self.slopes[0][running]
        self.share = None if self.share is None else self.share[running]
        self.slopes = first.new_empty(len(self.slopes), *first.shape)
        self.slopes[0] = first

    def _slope(self, y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The rate, of the shape of the flattened y."""
        return self.rate(y.reshape(len(y), *self.shape), t, rows).reshape(y.shape)

    def _sum(self, weights: Tensor) -> Tensor:
        """Σ_j w_j k_j over the first slopes."""
        flat = self.slopes[: len(weights)].reshape(len(weights), -1)
        # mv, because a matrix product may be done in TF32
        return torch.mv(flat.T, weights).reshape(self.slopes.shape[1:])

    def _moved(self, y: Tensor, h: Tensor, weights: Tensor) -> Tensor:
        """Y + h Σ_j w_j k_j."""
        return torch.addcmul(y, h.to(y.dtype)[:, None], self._sum(weights))

    def _error(self, h: Tensor, scale: Tensor) -> Tensor:
        """Each sample's error over its tolerance, shape (b,), float64."""
        sizes = [h.abs() * self._norm(self._sum(row) / scale) for row in self.errors]
        if len(sizes) == 1:
            return sizes[0]
        fifth, third = sizes  # Hairer et al., section II.10
        return fifth * (fifth / torch.hypot(fifth, 0.1 * third).clamp(min=1e-300))

    def _norm(self, error: Tensor) -> Tensor:
        return error_norm(error, self.dims, self.share).to(torch.float64)


def _like(row: np.ndarray, y: Tensor) -> Tensor:
    """Coefficients in the dtype and on the device of y."""
    return torch.from_numpy(np.ascontiguousarray(row)).to(y)
