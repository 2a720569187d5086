"""`LinearMultistep`: the common step of all linear multistep solvers; they differ in weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import GridSampler
from .weights import Prediction, output

__all__ = ["LinearMultistep", "StepWeights"]


class StepWeights(NamedTuple):
    """Coefficients of one step: x_s = carry x_t + Σ_j weights[j] m_j + std z, newest output first.

    With `corrector`, the next step computes x_s once more from the output m_s at the first x_s:
    x_s = carry x_t + corrector[0] m_s + Σ_j corrector[j + 1] m_j + std z.
    """

    carry: float
    weights: tuple[float, ...]
    std: float = 0.0
    corrector: tuple[float, ...] = ()


class _History(NamedTuple):
    """The state between two steps.

    Attributes:
        rows: The coefficients of all steps.
        depth: Number of outputs to keep.
        i: Number of steps done.
        outputs: The last outputs, newest first.
        carried: carry x_t + std z of the last step if that step is still to be corrected, or None.
    """

    rows: list[StepWeights]
    depth: int
    i: int = 0
    outputs: tuple[Tensor, ...] = ()
    carried: Tensor | None = None


@dataclass(frozen=True)
class LinearMultistep(GridSampler):
    """x_s = carry x_t + Σ_j w_j m_j + std z over the newest outputs m of the model.

    A subclass defines the output, `prediction`, and the coefficients for a grid, `rows`. There is
    one evaluation per step, with or without corrector: the evaluation that corrects x_t also serves
    the step from t. x at the last time is not corrected, because this would cost one more
    evaluation.
    """

    multistep: ClassVar[bool] = True

    @property
    @abstractmethod
    def prediction(self) -> Prediction:
        """The output m that the solver uses; most solvers define it as a field."""

    @abstractmethod
    def rows(self, sde: SDE, nodes: list[Node]) -> list[StepWeights]:
        """The coefficients of each of the N steps between N + 1 nodes."""

    def output(self, model: ScoreModel, x: Tensor, t: Node) -> Tensor:
        """The output m at x, one evaluation: the model's `prediction`, by default."""
        return output(model, x, t, self.prediction)

    def start(self, sde: SDE, nodes: list[Node]) -> _History:
        """The coefficients for this grid, and no outputs yet."""
        rows = self.rows(sde, nodes)
        return _History(rows, max(len(w) for row in rows for w in (row.weights, row.corrector)))

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: _History, noise: Noise
    ) -> tuple[Tensor, _History]:
        """One step; x of shape (B, *D)."""
        row, previous = state.rows[state.i], state.rows[state.i - 1]
        m = self.output(model, x, t)
        outputs = (m, *state.outputs[: state.depth - 1])
        if state.carried is not None:
            x = _combined(state.carried, previous.corrector, outputs)
        carried = row.carry * x
        if row.std > 0:
            carried.add_(noise.increment(x, t.t, s.t), alpha=row.std)
        if row.corrector:
            x_s, to_correct = _combined(carried, row.weights, outputs), carried
        else:
            x_s, to_correct = _add(carried, row.weights, outputs), None
        return x_s, _History(state.rows, state.depth, state.i + 1, outputs, to_correct)


def _combined(carried: Tensor, weights: tuple[float, ...], outputs: tuple[Tensor, ...]) -> Tensor:
    """carried + Σ_j weights[j] outputs[j]; there may be more outputs than weights."""
    return _add(torch.add(carried, outputs[0], alpha=weights[0]), weights[1:], outputs[1:])


def _add(out: Tensor, weights: tuple[float, ...], outputs: tuple[Tensor, ...]) -> Tensor:
    """Add Σ_j weights[j] outputs[j] to `out`, in place."""
    for weight, m in zip(weights, outputs, strict=False):
        out.add_(m, alpha=weight)
    return out
