"""Classifier-free guidance and autoguidance: from a weak model to a strong one."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from .._tensor import check_number, check_type
from ..score import ScoreModel
from ..score.combining import cast, combine
from ..score.preconditioning import Preconditioning, Quantity
from ..sde import Node
from .base import WITHOUT, Guided, Scale

__all__ = ["AutoGuided", "ClassifierFree"]

_OF_V = Preconditioning("v", scale_input=False)  # quantities from v


class _Extrapolated(Guided):
    """weak + w (strong − weak), the same w for ε, x0 and v.

    Args:
        model: The strong model.
        scale: w, a number, or a `Scale`.
        rescale: See `ClassifierFree`.
    """

    def __init__(self, model: ScoreModel, scale: float | Scale, rescale: float = 0.0) -> None:
        super().__init__(model)
        self.scale = scale if isinstance(scale, Scale) else Scale(scale)
        self.rescale = check_number("rescale", rescale, at_least=0, at_most=1)

    @property
    def guided(self) -> bool:
        """Whether the score is no gradient of a log-density: it is one for w = 1."""
        return self.scale.scale != WITHOUT or self.model.guided

    @property
    def evaluations(self) -> int:
        """Those of both models, and of the strong one alone if the scale is always 1."""
        strong, weak = (model.evaluations for model in self._pair())
        return strong if self.scale.scale == WITHOUT else strong + weak

    @abstractmethod
    def _pair(self) -> tuple[ScoreModel, ScoreModel]:
        """The strong and the weak model, with their conditions."""

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        strong, weak = self._pair()
        w = self.scale.at(node)
        if not isinstance(w, Tensor) and w in (0.0, WITHOUT):
            return self._asked(strong if w == WITHOUT else weak, quantity, x, node)
        if self.rescale == 0:
            return self._mixed(strong, weak, w, quantity, x, node)[1]
        strong, mixed = self._mixed(strong, weak, w, "v", x, node)
        factor = 1 - self.rescale + self.rescale * _std(strong) / _std(mixed)
        c_skip, c_out = _OF_V.skip_and_out(quantity, node)
        return combine(c_skip, x, c_out, factor * mixed)

    def _mixed(
        self, strong: ScoreModel, weak: ScoreModel, w: float | Tensor, *where: object
    ) -> tuple[Tensor, Tensor]:
        """A quantity of the strong model, and weak + w (strong − weak)."""
        first, second = (self._asked(model, *where) for model in (strong, weak))
        return first, second + cast(w, first) * (first - second)


class ClassifierFree(_Extrapolated):
    """Classifier-free guidance: ε = ε(x) + w (ε(x | y) − ε(x)), with w = 1 for no guidance.

    Ho and Salimans 2022, arXiv:2207.12598, eq. (6), whose w is ours minus 1. It costs two
    evaluations, and one where w is 0 or 1.

    With `rescale` φ > 0 the guided v of each sample is multiplied by 1 − φ + φ s, where s is the
    standard deviation over the entries of the strong v, divided by that of the guided v: Lin et
    al. 2023, arXiv:2305.08891, section 3.4.

    Args:
        model: A conditional model that can be evaluated without a condition as well: it was trained
            with `label_dropout`, or is exact.
        scale: w, a number, or a `Scale` that depends on the noise level.
        rescale: φ in [0, 1].

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the model takes no condition, cannot be evaluated without one, or a number is
            out of range.
    """

    needs_labels = True

    def __init__(self, model: ScoreModel, scale: float | Scale, rescale: float = 0.0) -> None:
        super().__init__(model, scale, rescale)
        if model.condition is not None and not model.condition:
            raise ValueError(
                "model must be conditional for classifier-free guidance, got "
                f"{type(model).__name__}, which takes no condition"
            )
        self.needs_labels = True
        model.without()  # refuses a model that was not trained so

    def _pair(self) -> tuple[ScoreModel, ScoreModel]:
        return self.model.given(self.y), self.model.without()

    def _check_label(self) -> None:
        if self.y is None:
            raise ValueError("y must be given: guidance moves samples towards a condition")


class AutoGuided(_Extrapolated):
    """Autoguidance: ε = ε_weak + w (ε − ε_weak), where the weak model is a worse model.

    The weak model is smaller, or was trained for a shorter time, on the same data. Karras et al.
    2024, arXiv:2406.02507, eq. (3).

    Args:
        model: The strong model.
        weak: The weak model, of the same SDE.
        scale: w, a number, or a `Scale` that depends on the noise level.
        rescale: φ in [0, 1], as in `ClassifierFree`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the models have different SDEs or shapes, or a number is out of range.
    """

    def __init__(
        self,
        model: ScoreModel,
        weak: ScoreModel,
        scale: float | Scale,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(model, scale, rescale)
        check_type("weak", weak, ScoreModel)
        if weak.sde != model.sde:
            raise ValueError(f"weak must have the SDE of model, {model.sde}, got {weak.sde}")
        shapes = [None if m.data is None else m.data.shape for m in (model, weak)]
        if None not in shapes and shapes[0] != shapes[1]:
            raise ValueError(f"weak must be of data of shape {shapes[0]}, got {shapes[1]}")
        self.weak = weak

    @property
    def snapped(self) -> bool:
        """Whether a model is exact only at the discrete times of its SDE's ladder."""
        return self.model.snapped or self.weak.snapped

    @property
    def t_least(self) -> float:
        """Least time at which both models may be evaluated."""
        return max(self.model.t_least, self.weak.t_least)

    @property
    def t_most(self) -> float:
        """Largest time at which every quantity of both models can be computed."""
        return min(self.model.t_most, self.weak.t_most)

    def _pair(self) -> tuple[ScoreModel, ScoreModel]:
        takes = self.weak.condition is None or bool(self.weak.condition)
        weak = self.weak.given(self.y) if takes and self.y is not None else self.weak
        return self.model.given(self.y), weak


def _std(x: Tensor) -> Tensor:
    """Standard deviation over the entries of each sample, shape (B, 1, …, 1)."""
    return x.flatten(1).std(1, correction=0).reshape(-1, *[1] * (x.ndim - 1))
