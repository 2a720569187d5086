"""The base classes: `Sampler`, `GridSampler` with the loop over a grid, and `Corrector`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..ivp import FLOAT32_TOLERANCE, OnStep, Solution
from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from ..sde.reverse import UNLEARNED

__all__ = ["Corrector", "GridSampler", "OnStep", "Sampler", "State", "check_rtol"]

State = Any


@dataclass(frozen=True)
class Sampler(ABC):
    """A sampler: its settings only, without model, grid or state.

    Attributes:
        adaptive: Whether the sampler chooses its steps by the tolerances `rtol` and `atol`. It then
            uses only the two ends of the grid.
        measured: Whether it uses the measurement of an `inverse.Measured` model.
    """

    adaptive: ClassVar[bool] = False
    measured: ClassVar[bool] = False

    @abstractmethod
    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Solution:
        """Carry x from ts[0] down to ts[-1].

        Args:
            model: Score model.
            x: State at ts[0], shape (B, *D).
            ts: Decreasing float64 times, shape (N + 1,).
            noise: Source of the draws.
            on_step: Called with (steps done, time reached, state), after each step on a grid.

        Returns:
            The state at ts[-1], in the dtype of x, and the counts of each sample, which are None
            unless the sampler is adaptive.
        """

    @property
    def reaches_data(self) -> bool:
        """Whether the sampler ends at σ = 0, so that no final denoising follows."""
        return False

    @property
    def starts_in_noise(self) -> bool:
        """Whether the sampler may start where α = 0, because it uses neither f, g nor λ there."""
        return False

    def check_start(self, sde: SDE, t: float) -> None:
        """Raise unless the sampler may start at t.

        Raises:
            ValueError: If α(t) = 0 and f, g or λ are used.
        """
        if not self.starts_in_noise and sde.ends_in_noise and float(sde.alpha(t)) == 0:
            raise ValueError(
                f"{type(self).__name__} cannot start at t = {t:g}, where {type(sde).__name__} has "
                f"α = 0 and an infinite λ; start at t = {sde.t_regular:.6g}, which is "
                "sde.t_regular and the default t_max of the grids"
            )

    @property
    def off_grid(self) -> bool:
        """Whether the sampler evaluates the model at times that are not in the grid."""
        return self.adaptive

    @property
    def learned_variance(self) -> bool:
        """Whether the sampler needs a model with a learned variance."""
        return False

    def counted_on(self, model: ScoreModel) -> ScoreModel:
        """The model on which the evaluations of this sampler are counted, made of a free one.

        Args:
            model: A score model of single numbers that costs nothing.
        """
        return model

    def refusal(self, snapped: bool, learned_variance: bool) -> str | None:
        """The reason why this sampler cannot run, or None; `sample` asks before any evaluation.

        Args:
            snapped: Whether the model is exact only at the discrete times of its ladder.
            learned_variance: Whether the model has a learned variance.
        """
        if self.learned_variance and not learned_variance:
            return UNLEARNED
        if snapped and self.off_grid:
            return (
                "it evaluates the model between the times of the grid, where rounded labels are "
                "wrong; take one that does not, such as ddim or a multistep method"
            )
        return None


@dataclass(frozen=True)
class GridSampler(Sampler):
    """A sampler that takes one `step` per grid interval; `run` is the one loop.

    Attributes:
        multistep: True if a step uses results of earlier steps. Nothing else may then change x
            between two steps.
    """

    multistep: ClassVar[bool] = False

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Solution:
        """Step through the grid, then `finish`."""
        nodes = self.nodes(model.sde, ts)
        state = self.start(model.sde, nodes)
        for i, (t, s) in enumerate(zip(nodes[:-1], nodes[1:], strict=True)):
            x, state = self.step(model, x, t, s, state, noise)
            if on_step is not None:
                on_step(i + 1, s.t, x)
        return Solution(self.finish(model, x, nodes[-1], noise))

    def nodes(self, sde: SDE, ts: Tensor) -> list[Node]:
        """The nodes of a run: those of the grid, by default."""
        return sde.nodes(ts)

    def start(self, sde: SDE, nodes: list[Node]) -> State:
        """The state for the first step, computed from the whole grid; None by default."""
        return None

    @abstractmethod
    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """Carry x of shape (B, *D) from t to s < t.

        Args:
            model: Score model.
            x: State at t.
            t: The present time.
            s: The next time.
            state: From `start` at the first step, from the previous step afterwards.
            noise: Source of the draws.

        Returns:
            The state x at s, and the state for the next step.
        """

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """What follows the last step, at the last time t; x unchanged by default."""
        return x


@dataclass(frozen=True)
class Corrector(ABC):
    """Moves the distribution of x closer to p_t at a fixed time."""

    @abstractmethod
    def correct(self, model: ScoreModel, x: Tensor, t: Node, s: Node, noise: Noise) -> Tensor:
        """Correct x at time s, just reached from t.

        Args:
            model: Score model.
            x: State at s, shape (B, *D).
            t: The time at which the last step began. Some correctors take their step size from it.
            s: The present time.
            noise: Source of the draws.
        """


def check_rtol(rtol: float, dtype: torch.dtype) -> None:
    """Raise unless the relative tolerance is above the rounding of the dtype.

    Raises:
        ValueError: If rtol is below 1e-7 and the dtype is not float64.
    """
    if dtype != torch.float64 and rtol < FLOAT32_TOLERANCE:
        raise ValueError(
            f"rtol must be at least {FLOAT32_TOLERANCE:g} in float32, got {rtol:g}; use float64 "
            "for more"
        )
