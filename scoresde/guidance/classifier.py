"""`ClassifierGuided`: guidance by the gradient of a classifier of noisy data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec
from .._deferred import check_finite
from .._tensor import check_type
from ..evaluation import name_time
from ..score import ScoreModel
from ..score.combining import cast
from ..score.preconditioning import Quantity
from ..sde import SDE, Node
from .base import Guided, Scale

__all__ = ["ClassifierGuided"]


class ClassifierGuided(Guided):
    """Classifier guidance: score = ∇ log p_t(x) + w ∇ log p_t(y | x).

    Dhariwal and Nichol 2021, arXiv:2105.05233, section 4. With w = 1 and an exact classifier it is
    the score of p_t(x | y). An evaluation costs one of the model, and one derivative pass for the
    gradient of the classifier.

    Args:
        model: The score model; it receives the condition as well if it takes one.
        classifier: log p_t(y | x), up to a number that does not depend on x: called as
            `classifier(x, t, y)` with x of shape (B, *D), the times t, float64 of shape (B,), and
            the condition y; returns shape (B,). It must be differentiable in x. A `NoisyClassifier`
            is one.
        scale: w, a number, or a `Scale` that depends on the noise level. Outside the interval of a
            `Scale` the model is conditional without guidance: w is 0 if the score model takes the
            condition itself, and 1 if it takes none.
        condition: What the classifier takes as y, such as `ConditionSpec(classes=10)`; None for the
            attribute `condition` of the classifier. Without it y is not checked.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a number is out of range, or if the classifier has an attribute `sde` or
            `data` that differs from that of the model.
    """

    def __init__(
        self,
        model: ScoreModel,
        classifier: Callable[[Tensor, Tensor, Condition], Tensor],
        scale: float | Scale = 1.0,
        condition: ConditionSpec | None = None,
    ) -> None:
        super().__init__(model)
        if not callable(classifier):
            raise TypeError(f"classifier must be callable, got {type(classifier).__name__}")
        stated = getattr(classifier, "condition", None)
        if condition is not None:
            check_type("condition", condition, ConditionSpec)
        elif isinstance(stated, ConditionSpec):
            condition = stated
        _check_alike(model, classifier)
        self.classifier = classifier
        self.scale = scale if isinstance(scale, Scale) else Scale(scale)
        self._taken, self.needs_labels = condition, True

    @property
    def condition(self) -> ConditionSpec | None:
        """The conditions of the classifier."""
        return self._taken

    @property
    def snapped(self) -> bool:
        """Whether model or classifier are exact only at the discrete times of the ladder."""
        return self.model.snapped or getattr(self.classifier, "snapped", False)

    @property
    def t_least(self) -> float:
        """Least time at which model and classifier may be evaluated."""
        return max(self.model.t_least, getattr(self.classifier, "t_least", 0.0))

    @property
    def t_most(self) -> float:
        """Largest time with α > 0, by which the gradient is divided."""
        most = getattr(self.classifier, "t_most", 1.0)
        return min(self.model.t_most, self.sde.t_regular, most)

    def _check_label(self) -> None:
        if self.y is None:
            raise ValueError("y must be given: guidance moves samples towards a condition")

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        self._check_label()
        takes = self.model.condition is None or bool(self.model.condition)
        model = self.model.given(self.y) if takes else self.model
        w = self.scale.at(node, 0.0 if takes else 1.0)
        found = self._asked(model, quantity, x, node)
        if not isinstance(w, Tensor) and w == 0:
            return found
        # A change of the score by G changes ε by −σ G, x0 by σ²/α G, v by −σ (α² + σ²)/α G, and
        # the velocity α′ x0 + σ′ ε by −σ (α σ′ − α′ σ)/α G.
        a, s = node.alpha, node.sigma
        parts = {"eps": a, "x0": -s, "v": a**2 + s**2, "velocity": node.determinant}
        factor = -s * parts[quantity] / a
        return found + cast(w * factor, x) * self._gradient(x, node)

    def _gradient(self, x: Tensor, node: Node) -> Tensor:
        """∇_x log p_t(y | x), like x; differentiable if gradients are on."""
        t = torch.as_tensor(node.t, dtype=torch.float64, device=x.device)
        t = t.flatten().expand(x.shape[0])
        further = torch.is_grad_enabled()
        self.nfe.add_derivative()
        with torch.enable_grad():
            own = further and x.requires_grad
            point = x if own else x.detach().clone().requires_grad_()
            value = self.classifier(point, t, self.y)
            if not isinstance(value, Tensor) or value.shape != (x.shape[0],):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise RuntimeError(f"classifier must return shape ({x.shape[0]},), got {shape}")
            if not value.requires_grad:
                raise RuntimeError(
                    "classifier must be differentiable in x (computed under torch.no_grad, "
                    "detached or in numpy?)"
                )
            (slope,) = torch.autograd.grad(value.sum(), point, create_graph=further)
        check_finite(slope, lambda: f"gradient of the classifier at {name_time(node.t)}")
        return slope


def _check_alike(model: ScoreModel, classifier: object) -> None:
    """Raise ValueError if a classifier says that it is of another SDE or other data."""
    sde = getattr(classifier, "sde", None)
    if isinstance(sde, SDE) and sde != model.sde:
        raise ValueError(f"classifier must have the SDE of the model, {model.sde}, got {sde}")
    shapes = [getattr(getattr(each, "data", None), "shape", None) for each in (model, classifier)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise ValueError(
            f"classifier must be of data of shape {shapes[0]}, as the model, got {shapes[1]}"
        )
    own, other = model.condition, getattr(classifier, "condition", None)
    if own and isinstance(other, ConditionSpec) and own != other:
        raise ValueError(f"classifier must take the condition of the model, {own}, got {other}")
