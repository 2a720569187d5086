"""`Measured`, a score model with a measurement: what samplers of inverse problems run on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition, ConditionSpec, bound_rows, leaves
from .._reachable import float_parameters
from .._tensor import check_number
from ..guidance import Guided
from ..samplers.recommended import data_shape
from ..score import ScoreModel
from ..score.combining import cast, combine
from ..score.preconditioning import Preconditioning, Quantity
from ..sde import Node
from .foreign import as_operator
from .operators import Mask, Operator, like_rows

__all__ = [
    "Differentiated",
    "Measured",
    "Problem",
    "correction",
    "measured_in",
    "of_nothing",
    "posterior_variance",
]

_OF_X0 = Preconditioning("x0", scale_input=False)  # quantities from x0


class Problem(Guided):
    """A model of samples whose measurement y = A x + σ_y n, n ~ N(0, I), is its condition.

    A acts on samples at the model's scale, `Samples.scaled`. The condition y has one row for each
    sample, or one row for all: shape (n, *measured) or (1, *measured).

    Args:
        model: The score model of all samples. If it is conditional, its own condition must be bound
            to it by `given`, one for all samples.
        operator: A: an `Operator`, or any object with linear `A(x)` and `A_adjoint(y)`, such as
            deepinv's `LinearPhysics`.
        noise: σ_y, at least 0.

    Raises:
        TypeError: If the model is no score model, or the operator lacks a method.
        ValueError: If the shapes do not fit, the noise is negative or not finite, or the model's
            own condition is missing.
    """

    def __init__(self, model: ScoreModel, operator: Any, noise: float) -> None:
        super().__init__(model)
        shape = data_shape(model)
        self.operator: Operator = as_operator(operator, shape)
        self.noise = float(check_number("noise", noise, at_least=0))
        self.shape = self.operator.shape
        if model.needs_labels and model.y is None:
            raise ValueError(
                "model must have its condition bound, model.given(y): the condition of this model "
                "is the measurement"
            )
        rows = [] if model.y is None else [leaf.shape[0] for _, leaf in leaves(model.y)]
        if any(n != 1 for n in rows):
            raise ValueError(
                f"model must have one condition for all samples, of leading dimension 1, got "
                f"{max(rows)} rows"
            )
        if model.y is not None:
            device = next(leaf.device for _, leaf in leaves(model.y))
            model.labelled(model.y, 1, device)  # refuses unknown classes
        self.y, self.needs_labels = None, True

    @property
    def condition(self) -> ConditionSpec | None:
        """The measurement as a condition: a vector, or an array; None for more than 4 axes."""
        measured = self.operator.measured
        if len(measured) == 1:
            return ConditionSpec(vector=measured[0])
        return ConditionSpec(array=measured) if len(measured) <= 4 else None

    def labelled(self, y: Condition | None, n: int, device: torch.device | str) -> ScoreModel:
        """This model with the measurements of n samples bound, after they have been checked.

        Args:
            y: Measurements, shape (n, *measured), or (1, *measured) for one of all samples.
            n: Number of samples.
            device: Where the samples are.

        Raises:
            TypeError: If it holds no floating numbers.
            ValueError: If it is missing, of another shape, or not finite.
        """
        y = self.y if y is None else y
        self._check_given(y)
        y, measured = bound_rows(y, n, device), self.operator.measured
        if not isinstance(y, Tensor) or not y.is_floating_point():
            found = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"y must be a tensor of floating numbers, the measurement, got {found}")
        if tuple(y.shape[1:]) != measured:
            wanted = ", ".join(map(str, ("n", *measured)))
            raise ValueError(
                f"y must have shape ({wanted}), as the operator measures, or 1 in place of n, got "
                f"{tuple(y.shape)}"
            )
        if not bool(y.isfinite().all()):
            raise ValueError("y must be finite, got NaN or infinity")
        return self.given(y)

    def without(self) -> ScoreModel:
        """The model of all samples."""
        return self.model

    def _check_label(self) -> None:
        self._check_given(self.y)

    def _check_given(self, y: Condition | None) -> None:
        if y is None:
            wanted = ", ".join(map(str, ("n", *self.operator.measured)))
            raise ValueError(f"y must be given: the measurement, of shape ({wanted})")

    def measurement(self, x: Tensor) -> Tensor:
        """The bound measurement for the samples x, shape (B, *measured), in the dtype of x."""
        self._check_label()
        return bound_rows(self.y, x.shape[0], x.device).to(x.dtype)

    def residual(self, x0: Tensor) -> Tensor:
        """y − A x0, shape (B, *measured)."""
        return self.measurement(x0) - self.operator.A(x0)

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        """The quantity that follows from x0."""
        c_skip, c_out = _OF_X0.skip_and_out(quantity, node)
        return combine(c_skip, x, c_out, self._estimate(x, node))

    @abstractmethod
    def _estimate(self, x: Tensor, node: Node) -> Tensor:
        """The x0 of this model, like x, in new memory."""


class Measured(Problem):
    """Another model with its measurement, for samplers that use it: `DDRM`, `TwistedSMC` and so on.

    Its ε and x0 are those of the model itself; the measurement is used by the sampler alone. Other
    samplers would draw samples that know nothing of y, and `sample` refuses them.

        scoresde.sample(Measured(model, operator, noise=0.1), DDRM(), n=64, y=y)

    Args:
        model: As for `Problem`.
        operator: As for `Problem`.
        noise: σ_y, at least 0.
    """

    for_measured = True  # `sample` takes only samplers that use the measurement

    @property
    def guided(self) -> bool:
        """As the model inside."""
        return self.model.guided

    def _guided(self, quantity: Quantity, x: Tensor, node: Node) -> Tensor:
        return self._asked(self.model, quantity, x, node)

    def _estimate(self, x: Tensor, node: Node) -> Tensor:
        return self._asked(self.model, "x0", x, node)


def measured_in(model: ScoreModel, sampler: object) -> Measured:
    """The `Measured` model that a sampler runs on, itself or directly inside another model.

    Raises:
        ValueError: If there is none.
    """
    inner = model if isinstance(model, Problem) else getattr(model, "model", None)
    if not isinstance(inner, Measured):
        raise ValueError(
            f"{type(sampler).__name__} needs a model with a measurement that it does not use "
            f"itself, Measured(model, operator, noise), got {type(model).__name__}"
        )
    return inner


def of_nothing(model: ScoreModel) -> Measured:
    """A measurement of a free model of single numbers, for counting evaluations."""
    operator = Mask(torch.ones(1, dtype=torch.bool))
    return Measured(model, operator, 1.0).given(torch.zeros(1, 1))


class Differentiated(Problem):
    """A model that changes the score by the gradient of a function of x0(x).

    The score gets  G = (∂x0/∂x)ᵀ u,  and so  x0 + (σ²/α) G.  It costs one evaluation and one
    derivative pass.
    """

    @property
    def t_most(self) -> float:
        """Largest time with α > 0, by which the gradient is divided."""
        return min(self.model.t_most, self.sde.t_regular)

    @abstractmethod
    def _direction(self, x0: Tensor, node: Node) -> Tensor:
        """u, the gradient with respect to x0, shape (B, *D)."""

    def _estimate(self, x: Tensor, node: Node) -> Tensor:
        x0, gradient = self.with_gradient(x, node)
        return x0 + cast(node.sigma**2 / node.alpha, x) * gradient

    def with_gradient(self, x: Tensor, node: Node) -> tuple[Tensor, Tensor]:
        """x0 of the model inside, and (∂x0/∂x)ᵀ u; differentiable if gradients are needed."""
        self._check_label()
        further = torch.is_grad_enabled() and self._has_gradients(x)
        with torch.enable_grad():
            point = x if x.requires_grad and further else x.detach().clone().requires_grad_()
            x0 = self._asked(self.model, "x0", point, node)
            kept = x0 if further else x0.detach()
            u = self._direction(kept, node)
            self.nfe.add_derivative()
            (gradient,) = torch.autograd.grad(x0, point, u, create_graph=further)
        return kept, gradient

    def _has_gradients(self, x: Tensor) -> bool:
        """Whether x, the measurement or a weight requires gradients."""
        return any(tensor.requires_grad for tensor in (x, self.y, *float_parameters(self.model)))


def posterior_variance(node: Node, data_var: float) -> float | Tensor:
    """r² = v σ̂²/(v + σ̂²), σ̂ = σ/α: the variance of x_0 given x_t, if x_0 ~ N(m, v I).

    Args:
        node: The time; α may be 0.
        data_var: v.
    """
    return data_var * node.sigma**2 / (node.alpha**2 * data_var + node.sigma**2)


def correction(
    operator: Operator, residual: Tensor, variance: float | Tensor, noise: float
) -> Tensor:
    """Aᵀ (r² A Aᵀ + σ_y² I)⁻¹ (y − A x0); for σ_y = 0 its limit A⁺ (y − A x0)/r².

    It is the gradient, with respect to x0, of log N(y; A x0, r² A Aᵀ + σ_y² I).

    Args:
        operator: A.
        residual: y − A x0, shape (B, *measured).
        variance: r², a number, or one for each sample.
        noise: σ_y.
    """
    if noise == 0:
        x = operator.A_dagger(residual)
        return x / like_rows(variance, x)
    return operator.A_adjoint(operator.solve(residual, variance, noise**2))
