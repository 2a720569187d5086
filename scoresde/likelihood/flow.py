"""The probability-flow ODE of one batch, optionally with the integral of its divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._deferred import checked_at_end
from ..batches import Batch
from ..evaluation import count_nfe, evaluating
from ..exact import GaussianMixture
from ..ivp import Adaptive, AdaptivePerSample, Counts, Solution, Status
from ..score import ScoreModel, reverse_drift
from ..score.sets import only_present, present_rows, share_present
from .method import check_data, check_exact, check_no_sets
from .trace.control import check_control, drift_control
from .trace.jacobian import flat_rows, linearize
from .trace.rules import ExactTrace, TraceRule

__all__ = ["Flow", "FlowEnd", "check_points", "log_prior"]


@dataclass(frozen=True)
class FlowEnd:
    """The final states of a batch of solutions, and their cost.

    Attributes:
        x: State at the last time, shape (B, *D), float64.
        integrals: ∫ tr ∂h/∂x dt from the first time to the last, one column per estimate, shape
            (B, K), float64; no column without a trace rule.
        counts: Status, steps and evaluations of each sample.
        nfe: Network evaluations per sample, counted.
        nfe_derivative: Derivative passes per sample, counted.
    """

    x: Tensor
    integrals: Tensor
    counts: Counts
    nfe: int
    nfe_derivative: int


class Flow:
    """dx/dt = h(x, t) = f x − ½ g² score(x, t), with ∫ tr ∂h/∂x dt as part of the state.

    Song et al. 2021, arXiv:2011.13456, eq. (13). The solver's state is float64, but the network
    sees x in its own dtype. Probes are drawn once and kept: with new probes at each time the ODE
    would not be smooth. At the padding of sets h is 0, and so are its derivatives.

    Args:
        batch: Model, source of the probes and indices of the samples.
        x: First state, shape (B, *D).
        rule: The trace rule; None = no trace is computed.
        control: A Gaussian whose Jacobian is subtracted before and added after each estimate.
    """

    def __init__(
        self,
        batch: Batch,
        x: Tensor,
        rule: TraceRule | None = None,
        control: GaussianMixture | None = None,
    ) -> None:
        self.model, self.names, self.x, self.rule = batch.model, batch.names, x, rule
        self.dims = math.prod(x.shape[1:])
        self.probes = None if rule is None else rule.draw(batch.noise, x)
        # an exact trace has no variance that a control could reduce
        self.control = None if isinstance(rule, ExactTrace) else control

    def solve(
        self,
        solver: Adaptive | AdaptivePerSample,
        t_start: float,
        t_end: float,
        max_nfe: int | None,
    ) -> FlowEnd:
        """Carry x from t_start to t_end, up or down.

        Args:
            solver: Method and tolerances; one step size for the batch, or one for each sample.
            t_start: First time.
            t_end: Last time.
            max_nfe: Give up after so many evaluations per sample; None = never.

        Raises:
            RuntimeError: If the network or its derivative is not finite, the solver gives up or
                `max_nfe` is exceeded. The message names the time reached, and the sample if
                each sample has its own steps.
        """
        columns = self.rule.columns if self.rule else 0
        integrals = self.x.new_zeros((len(self.x), columns), dtype=torch.float64)
        state = torch.cat([flat_rows(self.x).to(torch.float64), integrals], dim=1)
        solution = Solution(state, Counts.fill(0, Status.DONE))  # an empty batch
        settings = {"dims": self.dims, "share": share_present(self.model, self.x)}
        if isinstance(solver, AdaptivePerSample):
            settings["names"] = self.names
        counting = count_nfe(self.model, max_nfe)
        with evaluating(self.model), counting as counted, checked_at_end():
            if len(state) > 0:
                solution = solver.solve(self._rate, state, t_start, t_end, **settings)
        return FlowEnd(
            solution.state[:, : self.dims].reshape(self.x.shape),
            solution.state[:, self.dims :],
            solution.counts,
            counted.forward,
            counted.derivative,
        )

    def _rate(self, state: Tensor, t: Tensor | float, rows: Tensor | None = None) -> Tensor:
        """(h, estimates of tr ∂h/∂x) for some rows of the batch, or all."""
        point = state[:, : self.dims].reshape(-1, *self.x.shape[1:]).to(self.x.dtype)
        model = self.model if rows is None else self.model.take(rows)
        node = model.sde.at(t, point)

        def drift(x: Tensor) -> Tensor:
            return only_present(model, reverse_drift(model, x, node, eta=0.0))

        if self.rule is None:
            return flat_rows(drift(point)).to(state.dtype)
        jacobian = linearize(drift, point, model.nfe, t)
        if self.control is not None:
            jacobian = jacobian.minus(drift_control(self.control, node, point))
        probes = self.probes if rows is None else self.probes[:, rows]
        traces = self.rule.estimate(jacobian, probes)
        return torch.cat([flat_rows(jacobian.value).to(state.dtype), traces], dim=1)


def check_points(model: ScoreModel, x: Tensor, control: GaussianMixture | None = None) -> None:
    """Raise unless the model can give a likelihood of the points x.

    Args:
        model: Score model.
        x: The points.
        control: A Gaussian for such points, or None.

    Raises:
        TypeError: If x is not a tensor of float32 or float64, or the control is not a mixture.
        ValueError: If x has a wrong shape or is not finite, the model's labels are rounded, or the
            control is not a Gaussian of this shape.
    """
    check_exact(model)
    check_data(x)
    if control is not None:
        check_no_sets(model, "control must be None")
        check_control(control, x)


def log_prior(x: Tensor, std: float, model: ScoreModel | None = None) -> Tensor:
    """log N(x; 0, std² I) in nats for x of shape (B, *D), shape (B,).

    For padded sets `model` says by its condition which numbers exist; the others do not count.
    """
    squares = flat_rows(x / std) ** 2
    terms = -0.5 * squares - math.log(std) - 0.5 * math.log(2 * math.pi)
    rows = None if model is None else present_rows(model, x)
    return (terms if rows is None else terms * rows).sum(1)
