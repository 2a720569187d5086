"""Score models that are moved towards a measurement: `DPS`, `PiGDM` and `DDNM`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._tensor import check_number
from ..score import ScoreModel
from ..score.combining import cast
from ..sde import Node
from .measured import Differentiated, Problem, correction, posterior_variance

__all__ = ["DDNM", "DPS", "PiGDM"]


class DPS(Differentiated):
    """Diffusion posterior sampling: the score gets −scale ∇_x |y − A x0(x)|.

    So p(y | x_t) is taken as proportional to exp(−scale |y − A x0(x_t)|). The gradient of the norm
    itself, not of its square, is the authors' choice; but they subtract a multiple of it from x
    after every one of 1000 steps. As a part of the score it does not depend on the number of steps.
    The noise of the measurement is not used. It is not exact, for any data.

    For noise σ_y in M numbers, |y − A x0| is about σ_y √M at the end, and scale = √M/σ_y gives the
    slope of −|y − A x0|²/(2σ_y²) there.

    One evaluation and one derivative pass. Chung et al. 2022, arXiv:2209.14687, section 3 and
    algorithm 1.

    Args:
        model: The score model of all samples; see `Problem`.
        operator: The measurement A.
        scale: A number in units of 1/y, at least 0.

    Raises:
        TypeError: As for `Problem`.
        ValueError: As for `Problem`, or if the scale is negative or not finite.
    """

    def __init__(self, model: ScoreModel, operator: Any, scale: float = 1.0) -> None:
        super().__init__(model, operator, 0.0)
        self.scale = float(check_number("scale", scale, at_least=0))

    def _direction(self, x0: Tensor, node: Node) -> Tensor:
        residual = self.residual(x0)
        length = residual.flatten(1).norm(dim=1).clamp(min=torch.finfo(x0.dtype).tiny)
        unit = residual / length.reshape(-1, *[1] * (residual.ndim - 1))
        return self.scale * self.operator.A_adjoint(unit)


class PiGDM(Differentiated):
    """Pseudo-inverse guidance: p(y | x_t) is taken as N(A x0(x_t), r² A Aᵀ + σ_y² I).

        score + (∂x0/∂x)ᵀ Aᵀ (r² A Aᵀ + σ_y² I)⁻¹ (y − A x0),   r² = v σ̂²/(v + σ̂²),   σ̂ = σ/α

    It is exact for data N(m, v I). For σ_y = 0 the inverse becomes A⁺, so that noise 0 is allowed.
    One evaluation and one derivative pass. Song et al. 2023, "Pseudoinverse-Guided Diffusion
    Models for Inverse Problems", ICLR 2023, whose r² is that of v = 1.

    Args:
        model: The score model of all samples; see `Problem`.
        operator: The measurement A.
        noise: σ_y, at least 0.
        data_var: v, the variance of the data around their mean, above 0.

    Raises:
        TypeError: As for `Problem`.
        ValueError: As for `Problem`, or if `data_var` is not above 0.
    """

    def __init__(
        self, model: ScoreModel, operator: Any, noise: float, data_var: float = 1.0
    ) -> None:
        super().__init__(model, operator, noise)
        self.data_var = float(check_number("data_var", data_var, above=0))

    def _direction(self, x0: Tensor, node: Node) -> Tensor:
        variance = posterior_variance(node, self.data_var)
        return correction(self.operator, self.residual(x0), variance, self.noise)


class DDNM(Problem):
    """Null-space model: x0 is moved to the measurement within the range of Aᵀ.

        x0 + A⁺ (y − A x0)                                   for σ_y = 0
        x0 + r² Aᵀ (r² A Aᵀ + σ_y² I)⁻¹ (y − A x0)           otherwise

    The first line is from Wang et al. 2022, arXiv:2212.00490, section 3.1. The second one is our
    choice for noise, in place of their DDNM+: the mean of the posterior, if x_0 given x_t were
    N(x0, r² I) with the r² of `PiGDM`. Both are exact for data N(m, v I). One evaluation, without a
    derivative pass.

    Args:
        model: The score model of all samples; see `Problem`.
        operator: The measurement A.
        noise: σ_y, at least 0.
        data_var: v, the variance of the data around their mean, above 0. It is not used without
            noise.

    Raises:
        TypeError: As for `Problem`.
        ValueError: As for `Problem`, or if `data_var` is not above 0.
    """

    def __init__(
        self, model: ScoreModel, operator: Any, noise: float = 0.0, data_var: float = 1.0
    ) -> None:
        super().__init__(model, operator, noise)
        self.data_var = float(check_number("data_var", data_var, above=0))

    def _estimate(self, x: Tensor, node: Node) -> Tensor:
        self._check_label()
        x0 = self._asked(self.model, "x0", x, node)
        if self.noise == 0:
            return x0 + self.operator.A_dagger(self.residual(x0))
        variance = posterior_variance(node, self.data_var)
        change = correction(self.operator, self.residual(x0), variance, self.noise)
        return x0 + cast(variance, x) * change
