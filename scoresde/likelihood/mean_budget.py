"""The mean likelihood of a data set with its error budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .._tensor import float64
from .budget import Budget
from .method import student_t

__all__ = ["MeanBudget", "mean_budget"]


@dataclass(frozen=True)
class MeanBudget:
    """The mean of −log p per dimension over a data set with its errors; plain numbers.

    The unit is nats/dim or bits/dim, chosen in `mean_budget`. None stands for an unknown number.

    Attributes:
        value: The mean.
        std_error: Standard error of `value` as the mean of the population, from the spread of the
            values. Its three parts follow.
        set_error: The part from the finite test set.
        probe_error: The part from probes and nodes.
        draw_error: The part from the dequantization.
        solver: Mean change with the refined solver, measured on `solver_n` of the data.
        solver_error: Standard error of `solver`.
        solver_n: Number of data on which `solver` was measured; 0 if it was not.
        rounding: Mean change in float64, measured on `rounding_n` of the data.
        rounding_n: Number of data on which `rounding` was measured; 0 if it was not.
        cut_off: Mean of the cut-off at t_min, as a change of the value; None if it could not be
            estimated for every datum.
        prior_mismatch: Mean of the prior mismatch, as a change of the value; None likewise.
        half_width: Half of the 95 % interval: Student's t · std_error + |solver|
            + 2 · solver_error + |rounding|.
        n: Number of data.
        nfe: Mean number of evaluations.
        nfe_derivative: Mean number of derivative passes.
    """

    value: float
    std_error: float | None
    set_error: float | None
    probe_error: float | None
    draw_error: float | None
    solver: float | None
    solver_error: float | None
    solver_n: int
    rounding: float | None
    rounding_n: int
    cut_off: float | None
    prior_mismatch: float | None
    half_width: float | None
    n: int
    nfe: float
    nfe_derivative: float


def mean_budget(
    budget: Budget,
    dims: int,
    *,
    bits: bool,
    refined: Budget | None = None,
    precise: Budget | None = None,
) -> MeanBudget:
    """The mean over a data set, per dimension, with its errors.

    Args:
        budget: Budget of n data.
        dims: Dimension D of a datum.
        bits: Bits/dim instead of nats/dim.
        refined: Budget of the first few data with the refined solver; None if not measured.
        precise: Budget of the first few data in float64; None if not measured.

    Returns:
        The mean with its errors.
    """
    unit = dims * (math.log(2) if bits else 1)
    n = len(budget.log_prob)
    std_error = _error(budget.log_prob) if n > 1 else None
    parts = [
        _number(part.square().sum().sqrt() / n) for part in (budget.probe_error, budget.draw_error)
    ]
    solver, rounding = (_change(budget, other) for other in (refined, precise))
    solver_error = None
    if refined is not None and len(refined.log_prob) > 1:
        solver_error = _error(refined.log_prob - budget.log_prob[: len(refined.log_prob)])
    half_width = None
    if std_error is not None:
        half_width = float(student_t(float64([n - 1.0]), 0.95))
        half_width *= std_error
        half_width += abs(solver or 0) + 2 * (solver_error or 0) + abs(rounding or 0)
    set_error = None
    if std_error is not None:
        others = sum(part**2 for part in parts if part is not None)
        set_error = math.sqrt(max(std_error**2 - others, 0.0))
    cut_off, mismatch = (_number(v.mean()) for v in (budget.cut_off, budget.prior_mismatch))

    def scaled(value: float | None, sign: int = 1) -> float | None:
        return None if value is None else sign * value / unit

    return MeanBudget(
        value=-float(budget.log_prob.mean()) / unit,
        std_error=scaled(std_error),
        set_error=scaled(set_error),
        probe_error=scaled(parts[0]),
        draw_error=scaled(parts[1]),
        solver=scaled(solver, -1),
        solver_error=scaled(solver_error),
        solver_n=0 if refined is None else len(refined.log_prob),
        rounding=scaled(rounding, -1),
        rounding_n=0 if precise is None else len(precise.log_prob),
        cut_off=scaled(cut_off, -1),
        prior_mismatch=scaled(mismatch, -1),
        half_width=scaled(half_width),
        n=n,
        nfe=float(budget.nfe.mean()),
        nfe_derivative=float(budget.nfe_derivative.mean()),
    )


def _change(budget: Budget, other: Budget | None) -> float | None:
    """Mean change of log p from `budget` to `other`, which holds its first data."""
    if other is None:
        return None
    return float((other.log_prob - budget.log_prob[: len(other.log_prob)]).mean())


def _error(values: Tensor) -> float:
    """Standard error of the mean."""
    return float(values.std() / math.sqrt(len(values)))


def _number(value: Tensor) -> float | None:
    """A number, or None for NaN."""
    return None if math.isnan(float(value)) else float(value)
