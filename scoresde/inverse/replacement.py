"""`Replacement` and `RePaint`: the measured part of the state is replaced after each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, NamedTuple

from torch import Tensor

from .._tensor import check_integer, plain_numbers
from ..noise import Noise
from ..samplers.base import GridSampler, State
from ..samplers.ddim import DDIM
from ..score import ScoreModel
from ..sde import SDE, Node
from .measured import Measured, measured_in, of_nothing

__all__ = ["RePaint", "Replacement"]

_ANCESTRAL = DDIM(eta=1.0)  # DDPM's step, with the variance β̃


@dataclass(frozen=True)
class _Replacing(GridSampler):
    """Steps of another sampler, each followed by  x ← x + A⁺ (α_s y + σ_s A z − A x)."""

    measured: ClassVar[bool] = True

    inner: GridSampler = field(default=_ANCESTRAL, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, GridSampler):
            raise TypeError(f"inner must be a GridSampler, got {self.inner!r}")
        if self.inner.multistep or self.inner.reaches_data:
            raise ValueError(
                "inner must be a one-step method that ends at the grid's last time, got "
                f"{self.inner!r}: its state is changed between the steps"
            )

    @property
    def learned_variance(self) -> bool:
        """Whether the inner sampler needs it."""
        return self.inner.learned_variance

    @property
    def off_grid(self) -> bool:
        """As the inner sampler."""
        return self.inner.off_grid

    @property
    def starts_in_noise(self) -> bool:
        """As the inner sampler."""
        return self.inner.starts_in_noise

    def counted_on(self, model: ScoreModel) -> ScoreModel:
        """A model with a measurement."""
        return of_nothing(model)

    def _down(
        self, model: ScoreModel, x: Tensor, nodes: list[Node], state: State, noise: Noise
    ) -> Tensor:
        """x carried along some nodes, its measured part replaced at each of them but the first."""
        problem = measured_in(model, self)
        for t, s in pairwise(nodes):
            x, state = self.inner.step(model, x, t, s, state, noise)
            x = _replaced(problem, x, s, noise)
        return x

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """`finish` of the inner sampler."""
        return self.inner.finish(model, x, t, noise)


@dataclass(frozen=True)
class Replacement(_Replacing):
    """Each step is followed by replacing what is measured by the measurement with noise of x_s.

        x_s ← x_s + A⁺ (α_s y + σ_s A z − A x_s)

    The measurement is taken as exact, whatever its noise. For a mask its entries of x_s become
    α_s y + σ_s z. The rest never learns more of y than the next step tells it, so that the samples
    are biased for every number of steps: their measured and other parts fit together badly.

    The NFE of the inner sampler; stochastic. Song et al. 2021, arXiv:2011.13456, appendix I.2
    (imputation) and I.3 (colourization).

    Args:
        inner: The sampler that takes the steps; DDPM's, `DDIM(eta=1)`, by default. Not a multistep
            method.

    Raises:
        TypeError: If `inner` is not a `GridSampler`.
        ValueError: If it is a multistep method, or goes on to σ = 0.
    """

    def start(self, sde: SDE, nodes: list[Node]) -> State:
        """The first state of the inner sampler."""
        return self.inner.start(sde, nodes)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """One step of the inner sampler and the replacement; x of shape (B, *D)."""
        return self._down(model, x, [t, s], state, noise), state


class _Progress(NamedTuple):
    """The grid, the first state of the inner sampler, and the number of steps done."""

    nodes: list[Node]
    inner: State
    i: int = 0


@dataclass(frozen=True)
class RePaint(_Replacing):
    """`Replacement` that repeats its steps, so that the rest fits the measured part better.

    After every `jump` steps from t to s, noise is added to x_s by the forward SDE up to t, and
    these steps are done again, `repeats` times in all. The steps that are left at the end of the
    grid are repeated likewise. The bias decreases with `repeats`, and stays.

    NFE: those of the inner sampler times `repeats`; stochastic. Lugmayr et al. 2022,
    arXiv:2201.09865, algorithm 1 (jump = 1) and section 4.2.

    Args:
        repeats: How often a step is done, at least 1; 1 is `Replacement`.
        jump: Steps between two repetitions, at least 1.
        inner: As for `Replacement`.

    Raises:
        TypeError: If `inner` is not a `GridSampler`, or a number no integer.
        ValueError: If a number is less than 1, or as for `Replacement`.
    """

    repeats: int = 10
    jump: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_numbers(self)
        check_integer("repeats", self.repeats, minimum=1)
        check_integer("jump", self.jump, minimum=1)

    def start(self, sde: SDE, nodes: list[Node]) -> _Progress:
        """The grid, and the first state of the inner sampler."""
        return _Progress(nodes, self.inner.start(sde, nodes))

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _Progress, noise: Noise
    ) -> tuple[Tensor, _Progress]:
        """One step down, and the repetitions that begin at s; x of shape (B, *D)."""
        x = self._down(model, x, [t, s], state.inner, noise)
        done = state.i + 1
        whole = done % self.jump == 0
        if whole or done == len(state.nodes) - 1:
            back = self.jump if whole else done % self.jump
            part = state.nodes[done - back : done + 1]
            a, b = model.sde.transition(part[0], part[-1])
            for _ in range(self.repeats - 1):
                x = (a * x).add_(noise.fresh(x), alpha=b)
                x = self._down(model, x, part, state.inner, noise)
        return x, state._replace(i=done)


def _replaced(problem: Measured, x: Tensor, s: Node, noise: Noise) -> Tensor:
    """x + A⁺ (α_s y + σ_s A z − A x)."""
    operator, z = problem.operator, noise.fresh(x)
    gap = operator.A(s.sigma * z - x).add(problem.measurement(x), alpha=s.alpha)
    return x + operator.A_dagger(gap)
