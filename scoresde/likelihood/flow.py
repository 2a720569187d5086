"""The probability-flow ODE run from data to prior, with the trace of its Jacobian if wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._tensor import check_integer, plain_numbers
from ..evaluation import NFE, count_nfe, evaluating
from ..exact import GaussianMixture
from ..ivp import Adaptive, AdaptivePerSample, Counts, Solution, Status
from ..noise import Noise, SampleNoise
from ..score import ScoreModel, reverse_drift
from .control import check_control, drift_control
from .jacobian import flat_rows, linearize
from .trace import ExactTrace, TraceRule

__all__ = ["Flow", "PathEnd", "Solver", "adaptive_solver", "check_points"]

Solver = Adaptive | AdaptivePerSample

# Without fehlberg2: its estimate of the error is some hundred times too small.
METHODS = ("dopri8", "dopri5", "bosh3", "adaptive_heun")

# Below the rounding of a float32 network an error estimate is noise, and a solver spins.
FLOAT32_TOLERANCE = 1e-7


def adaptive_solver(method: str, rtol: float, atol: float, per_sample: bool) -> Solver:
    """The solver that these settings name: `AdaptivePerSample` or `Adaptive`."""
    return (AdaptivePerSample if per_sample else Adaptive)(method, rtol, atol)


@dataclass(frozen=True)
class PathEnd:
    """Where the paths of a batch end, and what they cost.

    Attributes:
        x: State at the last time, shape (B, *D), float64.
        integrals: ∫ tr ∂h/∂x dt from the first time to the last, one column per estimate, shape
            (B, K), float64.
        counts: What the solver took for each sample.
        nfe: Network evaluations per sample, counted; the largest if chunks of the batch differ.
        nfe_derivative: Vector-Jacobian products per sample, likewise.
    """

    x: Tensor
    integrals: Tensor
    counts: Counts
    nfe: int = 0
    nfe_derivative: int = 0

    @property
    def accepted(self) -> int:
        """Steps taken for the sample that took most of them."""
        return max(self.counts.accepted.tolist(), default=0)

    @property
    def rejected(self) -> int:
        """Steps not taken for the sample with most of them."""
        return max(self.counts.rejected.tolist(), default=0)


@dataclass(frozen=True)
class Flow:
    """dx/dt = h(x, t) = f x − ½ g² score(x, t) from t_min to 1, for data x of one shape and dtype.

    Song et al. 2021, arXiv:2011.13456, eq. (13). The solver's state is float64, the network sees
    x in its own dtype.

    Args:
        model: Score model.
        t_min: First time, in [0, 1); 0 only for an SDE with σ(0) > 0; None for the model's own,
            see `ScoreModel.first_time`.
        solver: Method and tolerances; one step size for the batch, or one for each sample.
        batch: Solve so many samples at a time; None = all at once.
        max_nfe: Give up after so many evaluations per sample; None = never.

    Raises:
        ValueError: On an argument out of range.
    """

    model: ScoreModel
    t_min: float | None
    solver: Solver
    batch: int | None
    max_nfe: int | None

    def __post_init__(self) -> None:
        if isinstance(self.solver, Adaptive) and self.solver.method not in METHODS:
            raise ValueError(
                f"method must be one of {', '.join(METHODS)}, got {self.solver.method!r}"
            )
        object.__setattr__(self, "t_min", self.model.first_time(self.t_min))
        plain_numbers(self)
        for name in ("batch", "max_nfe"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value, minimum=1)

    def run(
        self,
        x: Tensor,
        y: Tensor | None = None,
        rule: TraceRule | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        control: GaussianMixture | None = None,
        down: bool = False,
    ) -> PathEnd:
        """Carry x to t = 1, chunk by chunk.

        Args:
            x: Data, shape (B, *D).
            y: Class labels, shape (B,), or None.
            rule: How to take the trace; None = not at all, and `integrals` has no column.
            seed: Seed of the rule's probes, one stream per sample.
            noise: Source of the rule's probes instead of `seed`; for a single chunk.
            control: A Gaussian whose Jacobian is subtracted before and added after an estimate.
            down: Carry x from t = 1 down to t_min instead.

        Returns:
            The ends, one per sample.

        Raises:
            TypeError: If x is not float32 or float64, or y does not hold integers.
            ValueError: If x is of a wrong shape or not finite, the class labels are not those the
                model needs, the tolerance is below the rounding of the dtype, the model's time
                labels are rounded, or `control` is no Gaussian of this shape.
            RuntimeError: If the network or its derivative is not finite, the solver gives up or
                `max_nfe` is exceeded; the time reached is named, and the sample where each has
                its own steps.
        """
        self._check(x)
        labelled = self.model.labelled(y, len(x), x.device)
        if control is not None:
            check_control(control, x)
        n = x.shape[0]
        size = self.batch or max(n, 1)
        ends = []
        for begin in range(0, max(n, 1), size):
            rows = range(begin, min(begin + size, n))
            source = noise if seed is None else SampleNoise(seed, rows)
            part = slice(rows.start, rows.stop)
            names = source.indices if isinstance(source, SampleNoise) else rows
            path = _Path(labelled.take(part), x[part], rule, source, control)
            ends.append(self._solve(path, names, down))
        return PathEnd(
            x=torch.cat([end.x for end in ends]),
            integrals=torch.cat([end.integrals for end in ends]),
            counts=Counts.cat([end.counts for end in ends]),
            nfe=max(end.nfe for end in ends),
            nfe_derivative=max(end.nfe_derivative for end in ends),
        )

    def _solve(self, path: _Path, names: Sequence[int], down: bool) -> PathEnd:
        """(x, integrals) as one state of one solve; `names` are the samples' numbers."""
        start, dims = path.start(), path.dims
        if len(start) == 0:
            return path.end(Solution(start, Counts.fill(0, Status.DONE)), NFE())
        ends = (1.0, self.t_min) if down else (self.t_min, 1.0)
        with evaluating(path.model), count_nfe(path.model, self.max_nfe) as counted:
            if isinstance(self.solver, Adaptive):
                solution = self.solver.solve(path.rate, start, *ends, dims=dims)
            else:
                limit = self.max_nfe or self.solver.max_evaluations
                solver = replace(self.solver, max_evaluations=limit)
                solution = solver.solve(path.rate, start, *ends, dims=dims, names=names)
        return path.end(solution, counted)

    def _check(self, x: Tensor) -> None:
        check_points(self.model, x)
        rtol, atol = self.solver.rtol, self.solver.atol
        dtypes = {x.dtype, *(p.dtype for p in self.model.parameters())}
        if dtypes != {torch.float64} and min(rtol, atol) < FLOAT32_TOLERANCE:
            raise ValueError(
                f"rtol and atol must be at least {FLOAT32_TOLERANCE:g} in float32, got {rtol:g} "
                f"and {atol:g}; for more, give x and network in float64"
            )


def check_points(model: ScoreModel, x: Tensor) -> None:
    """Raise unless x are points that have a likelihood under the model.

    Raises:
        TypeError: If x is not a tensor of float32 or float64.
        ValueError: If x is of a wrong shape or not finite, or the model's labels are rounded.
    """
    if model.snapped:
        raise ValueError(
            "model must be exact at every time, got one with rounded labels, which are wrong "
            "between its discrete times; use the label 'index'"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64 (levels: dequantize), got {x.dtype}")
    if x.ndim == 0 or math.prod(x.shape[1:]) < 1:
        raise ValueError(f"x must have shape (B, *D) with every D ≥ 1, got {tuple(x.shape)}")
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(f"x must be finite, got {bad} non-finite values of {x.numel()}")


class _Path:
    """The right-hand side for one chunk: state (x, integrals) to (h, estimates of tr ∂h/∂x)."""

    def __init__(
        self,
        model: ScoreModel,
        x: Tensor,
        rule: TraceRule | None,
        noise: Noise | None,
        control: GaussianMixture | None,
    ) -> None:
        self.model, self.x, self.rule = model, x, rule
        self.dims = math.prod(x.shape[1:])
        # Kept along the path: with new probes at each time the ODE would not be smooth.
        self.probes = None if rule is None else rule.draw(noise, x)
        # an exact trace has no variance to be reduced
        self.control = None if isinstance(rule, ExactTrace) else control

    def start(self) -> Tensor:
        """The state before any step, shape (B, D + columns), float64."""
        columns = self.rule.columns if self.rule else 0
        integrals = self.x.new_zeros((len(self.x), columns), dtype=torch.float64)
        return torch.cat([flat_rows(self.x).to(torch.float64), integrals], dim=1)

    def rate(self, state: Tensor, t: Tensor | float, rows: Tensor | None = None) -> Tensor:
        """The state's derivative for some rows of the chunk, or all."""
        point = state[:, : self.dims].reshape(-1, *self.x.shape[1:]).to(self.x.dtype)
        model = self.model if rows is None else self.model.take(rows)
        node = model.sde.at(t, point)

        def drift(x: Tensor) -> Tensor:
            return reverse_drift(model, x, node, eta=0.0)

        if self.rule is None:
            return flat_rows(drift(point)).to(state.dtype)
        jacobian = linearize(drift, point, model.nfe, t)
        if self.control is not None:
            jacobian = jacobian.minus(drift_control(self.control, node, point))
        probes = self.probes if rows is None else self.probes[:, rows]
        traces = self.rule.estimate(jacobian, probes)
        return torch.cat([flat_rows(jacobian.value).to(state.dtype), traces], dim=1)

    def end(self, solution: Solution, counted: NFE) -> PathEnd:
        """The last state taken apart."""
        return PathEnd(
            solution.state[:, : self.dims].reshape(self.x.shape),
            solution.state[:, self.dims :],
            solution.counts,
            counted.forward,
            counted.derivative,
        )
