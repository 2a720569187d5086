"""Restart sampling: add noise to the state in one large step, and run the solver down again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from ..grid import karras
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler, State

__all__ = ["Restart", "RestartInterval"]


@dataclass(frozen=True)
class RestartInterval:
    """An interval of the noise level σ/α in which to restart, and how often.

    Args:
        low: σ/α before noise is added, above 0.
        high: σ/α after noise is added, above `low`.
        steps: Steps of the inner sampler from high to low, at least 1. The paper's N_restart counts
            levels and is one larger.
        repeats: The paper's K, the number of restarts, at least 1.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If one is out of range.
    """

    low: float = 0.06
    high: float = 0.3
    steps: int = 2
    repeats: int = 2

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("low", self.low, above=0)
        check_number("high", self.high, above=self.low)
        check_integer("steps", self.steps, minimum=1)
        check_integer("repeats", self.repeats, minimum=1)


class _Descent(NamedTuple):
    """The inner sampler's run after a restart.

    Attributes:
        nodes: The times of the run; the last one is a node of the main grid.
        state: The inner sampler's first state.
        repeats: Number of runs.
    """

    nodes: list[Node]
    state: State
    repeats: int


class _Progress(NamedTuple):
    """The state between two steps.

    Attributes:
        nodes: The main grid.
        descents: The descents to each time of the main grid.
        inner: The inner sampler's state.
        i: Number of steps done.
    """

    nodes: list[Node]
    descents: dict[float, list[_Descent]]
    inner: State
    i: int = 0


@dataclass(frozen=True)
class Restart(GridSampler):
    """A sampler that repeats some intervals of σ/α: up by the forward SDE, and down again.

    At the time s of the grid whose σ/α is nearest to `low`, it computes `repeats` times

        x_high = (α_high/α_s) x_s + σ_{high|s} z         the forward SDE, exact
        x_s    = inner sampler from high to s, on the grid of equal steps in (σ/α)^{1/7}

    The noise reduces earlier errors. For Gaussian data of variance v, each restart multiplies an
    error of the variance of x/α by (v + low²)/(v + high²). With an exact solver the law of x stays
    p_s. So the order is that of the inner sampler, if `steps` grows with the grid. The paper's
    inner sampler is EDM's, deterministic. A multistep inner sampler begins each descent at order 1,
    so that the order is 2 at most.

    `high` is cut to σ/α at t = 1 (at λ = −6 if α(1) = 0), because no network is trained above it.
    An interval is skipped if the grid ends above it: then the grid's time nearest to `low` (the
    first time excluded) is not below `high`.

    NFE: those of the inner sampler, for the steps of the grid and for `repeats` × `steps` more in
    each interval. Stochastic.

    Xu et al. 2023, "Restart Sampling for Improving Generative Processes", arXiv:2306.14878,
    section 3. The nearest time of the grid and the exponent 1/7 are from the authors' code.
    `RestartInterval()` is their shortest setting for CIFAR-10 under VP.

    Args:
        inner: The sampler for the main grid and for the descents.
        intervals: Restart intervals, at least one. Those with the same time s run in this order.

    Raises:
        TypeError: If `inner` is not a `GridSampler`, or an interval is not a `RestartInterval`.
        ValueError: If there is no interval, or `inner` goes on to σ = 0.
    """

    inner: GridSampler
    intervals: Sequence[RestartInterval] = (RestartInterval(),)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, GridSampler):
            raise TypeError(f"inner must be a GridSampler, got {self.inner!r}")
        if self.inner.reaches_data:
            raise ValueError(f"inner must end at the grid's last time, got {self.inner!r}")
        object.__setattr__(self, "intervals", tuple(self.intervals))
        if not self.intervals:
            raise ValueError("intervals must hold at least 1 interval, got none")
        for interval in self.intervals:
            if not isinstance(interval, RestartInterval):
                raise TypeError(f"intervals must hold RestartInterval, got {interval!r}")

    @property
    def multistep(self) -> bool:
        """Whether the inner sampler is a multistep method."""
        return self.inner.multistep

    @property
    def learned_variance(self) -> bool:
        """Whether the inner sampler needs it."""
        return self.inner.learned_variance

    @property
    def off_grid(self) -> bool:
        """Yes: the times of the descents are not in the grid."""
        return True

    def start(self, sde: SDE, nodes: list[Node]) -> _Progress:
        """The descents of this grid, and the inner sampler's first state."""
        descents: dict[float, list[_Descent]] = {}
        for interval in self.intervals:
            s = min(nodes[1:], key=lambda node: abs(math.exp(-node.lam) - interval.low))
            # rounding in the inverse may give a time above 1
            t_high = min(float(sde.t_of_lam(-math.log(interval.high))), sde.t_regular)
            if t_high > s.t:
                down = sde.nodes(karras(sde, interval.steps, s.t, t_high))
                down[-1] = s
                state = self.inner.start(sde, down)
                descents.setdefault(s.t, []).append(_Descent(down, state, interval.repeats))
        return _Progress(nodes, descents, self.inner.start(sde, nodes))

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _Progress, noise: Noise
    ) -> tuple[Tensor, _Progress]:
        """One step of the inner sampler, and the restarts from s; x of shape (B, *D)."""
        x, inner = self.inner.step(model, x, t, s, state.inner, noise)
        descents = state.descents.get(s.t, [])
        for descent in descents:
            for _ in range(descent.repeats):
                x = self._restarted(model, x, descent, noise)
        left = state.nodes[state.i + 1 :]
        if descents and self.inner.multistep and len(left) > 1:
            # Outputs of earlier steps do not belong to the restarted x.
            inner = self.inner.start(model.sde, left)
        return x, state._replace(inner=inner, i=state.i + 1)

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """`finish` of the inner sampler."""
        return self.inner.finish(model, x, t, noise)

    def _restarted(self, model: ScoreModel, x: Tensor, descent: _Descent, noise: Noise) -> Tensor:
        """x after one restart: noise up to the beginning of the descent, then its steps down."""
        high, low = descent.nodes[0], descent.nodes[-1]
        a, b = model.sde.transition(high, low)
        x = (a * x).add_(noise.fresh(x), alpha=b)
        state = descent.state
        for t, s in pairwise(descent.nodes):
            x, state = self.inner.step(model, x, t, s, state, noise)
        return x
