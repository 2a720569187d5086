"""The probability-flow ODE run from data to prior, with the trace of its Jacobian if wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_number
from ..ivp import Adaptive
from ..noise import Noise, SampleNoise
from ..score import ScoreModel, count_nfe, evaluating, reverse_drift
from .trace import TraceRule

__all__ = ["Flow", "PathEnd"]

# Without fehlberg2: its estimate of the error is some hundred times too small.
METHODS = ("dopri8", "dopri5", "bosh3", "adaptive_heun")

# Below the rounding of a float32 network an error estimate is noise, and a solver spins.
FLOAT32_TOLERANCE = 1e-7


@dataclass(frozen=True)
class PathEnd:
    """Where the paths of a batch end, and what they cost.

    Attributes:
        x: State at t = 1, shape (B, *D), float64.
        integrals: ∫ tr ∂h/∂x dt, one column per estimate, shape (B, K), float64.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
        accepted: Steps the solver took, likewise.
        rejected: Steps it tried and did not take, likewise.
    """

    x: Tensor
    integrals: Tensor
    nfe: int = 0
    nfe_derivative: int = 0
    accepted: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Flow:
    """dx/dt = h(x, t) = f x − ½ g² score(x, t) from t_min to 1, for data x of one shape and dtype.

    Song et al. 2021, arXiv:2011.13456, eq. (13). The solver's state is float64, the network sees
    x in its own dtype.

    Args:
        model: Score model.
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0.
        solver: Method and tolerances.
        batch: Solve so many samples at a time; None = all at once.
        max_nfe: Give up after so many evaluations per sample; None = never.

    Raises:
        ValueError: On an argument out of range.
    """

    model: ScoreModel
    t_min: float
    solver: Adaptive
    batch: int | None
    max_nfe: int | None

    def __post_init__(self) -> None:
        if self.solver.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, got {self.solver.method!r}"
            )
        check_number("t_min", self.t_min, at_least=0, below=1)
        # refuses a time at which σ = 0
        self.model.sde.nodes(torch.tensor([self.t_min], dtype=torch.float64))
        for name in ("batch", "max_nfe"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, at_least=1)

    def run(
        self,
        x: Tensor,
        y: Tensor | None = None,
        rule: TraceRule | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
    ) -> PathEnd:
        """Carry x to t = 1, chunk by chunk.

        Args:
            x: Data, shape (B, *D).
            y: Class labels, shape (B,), or None.
            rule: How to take the trace; None = not at all, and `integrals` has no column.
            seed: Seed of the rule's probes, one stream per sample.
            noise: Source of the rule's probes instead of `seed`; for a single chunk.

        Returns:
            The ends, one per sample.

        Raises:
            TypeError: If x is not float32 or float64.
            ValueError: If x or y is of a wrong shape, x is not finite, the tolerance is below the
                rounding of the dtype, or the model's labels are rounded.
            RuntimeError: If the network or its derivative is not finite, the solver gives up or
                `max_nfe` is exceeded; the time reached is named.
        """
        self._check(x, y)
        n = x.shape[0]
        size = self.batch or max(n, 1)
        ends = []
        for begin in range(0, max(n, 1), size):
            rows = slice(begin, min(begin + size, n))
            source = noise if seed is None else SampleNoise(seed, range(rows.start, rows.stop))
            model = self.model.take(rows) if y is None else self.model.given(y[rows].to(x.device))
            ends.append(self._run_chunk(model, x[rows], rule, source))
        return PathEnd(
            x=torch.cat([end.x for end in ends]),
            integrals=torch.cat([end.integrals for end in ends]),
            nfe=max(end.nfe for end in ends),
            nfe_derivative=max(end.nfe_derivative for end in ends),
            accepted=max(end.accepted for end in ends),
            rejected=max(end.rejected for end in ends),
        )

    def _run_chunk(
        self, model: ScoreModel, x: Tensor, rule: TraceRule | None, noise: Noise | None
    ) -> PathEnd:
        """(x, integrals) as one state of one solve."""
        n, dims = x.shape[0], math.prod(x.shape[1:])
        trace = rule and rule.bind(x, noise, model.nfe)
        integrals = x.new_zeros((n, rule.columns if rule else 0), dtype=torch.float64)
        if n == 0:
            return PathEnd(x.to(torch.float64), integrals)

        def drift(x: Tensor, t: float) -> Tensor:
            return reverse_drift(model, x, t, eta=0.0)

        def rate(state: Tensor, t: float) -> Tensor:
            point = state[:, :dims].reshape(x.shape).to(x.dtype)
            dx, dl = trace(drift, point, t) if trace else (drift(point, t), state[:, dims:])
            return torch.cat([dx.reshape(n, dims).to(state.dtype), dl], dim=1)

        start = torch.cat([x.reshape(n, dims).to(torch.float64), integrals], dim=1)
        with evaluating(model), count_nfe(model, self.max_nfe) as counted:
            solution = self.solver.solve(rate, start, self.t_min, 1.0, dims=dims)
        return PathEnd(
            solution.state[:, :dims].reshape(x.shape),
            solution.state[:, dims:],
            counted.forward,
            counted.derivative,
            int(solution.counts.accepted[0]),  # the same for all
            int(solution.counts.rejected[0]),
        )

    def _check(self, x: Tensor, y: Tensor | None) -> None:
        if self.model.snapped:
            raise ValueError(
                "model must be exact at every time, got one with rounded labels, which are wrong "
                "between its discrete times; use the label 'index'"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"x must be float32 or float64 (levels: dequantize), got {x.dtype}")
        if x.ndim == 0 or math.prod(x.shape[1:]) < 1:
            raise ValueError(f"x must have shape (B, *D) with every D ≥ 1, got {tuple(x.shape)}")
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise ValueError(f"x must be finite, got {bad} non-finite values of {x.numel()}")
        if y is not None and y.shape != x.shape[:1]:
            raise ValueError(f"y must have shape {tuple(x.shape[:1])}, got {tuple(y.shape)}")
        rtol, atol = self.solver.rtol, self.solver.atol
        dtypes = {x.dtype, *(p.dtype for p in self.model.parameters())}
        if dtypes != {torch.float64} and min(rtol, atol) < FLOAT32_TOLERANCE:
            raise ValueError(
                f"rtol and atol must be at least {FLOAT32_TOLERANCE:g} in float32, got {rtol:g} "
                f"and {atol:g}; for more, give x and network in float64"
            )
