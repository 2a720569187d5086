"""Predictor–corrector sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..noise import Noise
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import Corrector, GridSampler, State

__all__ = ["PredictorCorrector"]


@dataclass(frozen=True)
class PredictorCorrector(GridSampler):
    """Predict x from t to s, then correct it at s.

    The NFE per step are the sum of those of both parts; the order is the predictor's. Song et al.
    2021, arXiv:2011.13456, algorithm 1. (The authors' code corrects before it predicts.)

    Args:
        predictor: Any sampler whose step uses no earlier step.
        corrector: Any corrector.

    Raises:
        TypeError: If the predictor is not a `GridSampler`, or the corrector is not a `Corrector`.
        ValueError: If the predictor is a multistep method: the corrector changes x, so that the
            outputs of earlier steps would no longer belong to x.
    """

    predictor: GridSampler
    corrector: Corrector

    def __post_init__(self) -> None:
        if not isinstance(self.predictor, GridSampler):
            raise TypeError(f"predictor must be a GridSampler, got {self.predictor!r}")
        if not isinstance(self.corrector, Corrector):
            raise TypeError(f"corrector must be a Corrector, got {self.corrector!r}")
        if self.predictor.multistep:
            raise ValueError(
                "predictor must be a one-step method (a corrector would invalidate its history), "
                f"got {type(self.predictor).__name__}"
            )

    @property
    def learned_variance(self) -> bool:
        """Whether the predictor needs it."""
        return self.predictor.learned_variance

    @property
    def off_grid(self) -> bool:
        """True if the predictor is; a corrector evaluates the model only at the grid's times."""
        return self.predictor.off_grid

    def start(self, sde: SDE, nodes: list[Node]) -> State:
        """The predictor's."""
        return self.predictor.start(sde, nodes)

    def step(
        self, model: ScoreModel, x: Tensor, t: Node, s: Node, state: State, noise: Noise
    ) -> tuple[Tensor, State]:
        """Predict t → s, correct at s; x of shape (B, *D)."""
        x, state = self.predictor.step(model, x, t, s, state, noise)
        return self.corrector.correct(model, x, t, s, noise), state

    def finish(self, model: ScoreModel, x: Tensor, t: Node, noise: Noise) -> Tensor:
        """The predictor's."""
        return self.predictor.finish(model, x, t, noise)
