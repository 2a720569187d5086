"""Common parts of exponential integrators: linear part of a step, φ functions, Lagrange weights.

In λ = log(α/σ) the linear part of the probability-flow ODE can be solved exactly, whether the rest
is written with x0 or with ε (Lu et al. 2022, arXiv:2211.01095, proposition 4.1, and
arXiv:2206.00927, proposition 3.1). The linear part of the SDE with noise η can be solved exactly
too (Xue et al. 2023, "SA-Solver", arXiv:2309.05019):

    x_s = (σ_s/σ_t) e^{−η²h} x_t + α_s (1 + η²) ∫ e^{−(1 + η²)(λ_s − λ)} x0 dλ
                                 + σ_s √(1 − e^{−2η²h}) z
    x_s = (α_s/α_t) x_t          − σ_s (1 + η²) ∫ e^{λ_s − λ} ε dλ  + σ_s η √(e^{2h} − 1) z

with h = λ_s − λ_t > 0 and integrals from λ_t to λ_s. Both have the form

    x_s = carry x_t + gain ∫ e^{−rate (λ_s − λ)} m dλ + std z

and solvers differ in how they approximate the model's output m between λ_t and λ_s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from ..score import ScoreModel
from ..sde import Node

__all__ = [
    "Interval",
    "Prediction",
    "interval",
    "lagrange_weights",
    "output",
    "past_knots",
    "phi",
    "step_orders",
]

Prediction = Literal["x0", "eps", "v"]

# Exact to rounding for e^{10 θ} times a cubic on [0, 1], and for cubics in t(λ), whose nearest
# singularities are at λ = ± iπ/2, on steps of up to h = 4.
_POINTS, _QUADRATURE = np.polynomial.legendre.leggauss(24)
_THETA, _QUADRATURE = 0.5 * (1 + _POINTS), 0.5 * _QUADRATURE


class Interval(NamedTuple):
    """The linear part of one step: x_s = carry x_t + gain ∫ e^{−rate (λ_s − λ)} m dλ + std z.

    With z = −rate h and m = Σ_k m^{(k)} (λ − λ_t)^k/k! the integral is Σ_k m^{(k)} h^{k+1}
    φ_{k+1}(z).
    """

    carry: float
    gain: float
    rate: float
    std: float
    h: float

    @property
    def z(self) -> float:
        """The argument −rate h of the φ functions."""
        return -self.rate * self.h


def interval(t: Node, s: Node, prediction: Prediction, eta: float = 0.0) -> Interval:
    """The linear part of the step from t to s in terms of "x0" or "eps", with noise η ≥ 0."""
    h, total = s.lam - t.lam, 1 + eta**2
    if prediction == "x0":
        std = s.sigma * math.sqrt(-math.expm1(-2 * eta**2 * h))
        carry = s.sigma / t.sigma * math.exp(-(eta**2) * h)
        return Interval(carry, s.alpha * total, total, std, h)
    std = s.sigma * eta * math.sqrt(math.expm1(2 * h)) if eta else 0.0
    return Interval(s.alpha / t.alpha, -s.sigma * total, -1.0, std, h)


def output(model: ScoreModel, x: Tensor, t: Node, prediction: Prediction) -> Tensor:
    """x0(x, t), ε(x, t) or v(x, t)."""
    if prediction == "x0":
        return model.x0(x, t)
    return model.eps(x, t) if prediction == "eps" else model.v(x, t)


def phi(k: int, z: float) -> float:
    """φ_k(z) = ∫_0^1 e^{(1 − θ) z} θ^{k−1}/(k − 1)! dθ, and φ_0 = e^z, to rounding.

    φ_{k+1} = (φ_k − 1/k!)/z cancels for small z, where the series Σ_j z^j/(j + k)! does not.
    """
    if k == 0:
        return math.exp(z)
    if k == 1:
        return math.expm1(z) / z if z else 1.0
    if abs(z) > 2:
        return (phi(k - 1, z) - 1 / math.factorial(k - 1)) / z
    # z^25/25! is 2e-18 of the first term at |z| = 2
    return math.fsum(z**j / math.factorial(j + k) for j in range(25))


def lagrange_weights(
    lam: np.ndarray,
    rates: np.ndarray | float,
    orders: Sequence[int],
    newest: int = 0,
    variable: Callable[[np.ndarray], np.ndarray] = lambda lam: lam,
) -> list[np.ndarray]:
    """w_ij = ∫_{λ_t}^{λ_s} e^{−rate (λ_s − λ)} ℓ_ij(u(λ)) dλ, for the steps i of a grid.

    ℓ_ij is the Lagrange polynomial of degree k − 1 in u that is 1 at knot j and 0 at the others.
    The integral is computed by Gauss–Legendre quadrature in λ, exact to rounding.

    Args:
        lam: λ of the grid, shape (N + 1,).
        rates: The kernel's rate, one number or one per step, shape (N,).
        orders: Number of outputs used by each step, k_i ≥ 0.
        newest: As for `past_knots`.
        variable: u(λ), the variable in which the outputs are a polynomial.

    Returns:
        The weights of each step, shape (k_i,), newest output first.
    """
    knots = past_knots(variable(lam), orders, newest)
    h, rates = lam[1:, None] - lam[:-1, None], np.reshape(rates, (-1, 1))
    u = variable(lam[:-1, None] + h * _THETA)  # (N, Q)
    kernel = h * np.exp(rates * h * (_THETA - 1)) * _QUADRATURE
    present = ~np.isnan(knots)
    product = present[:, :, None] * kernel[:, None]  # (N, k, Q)
    for m in range(knots.shape[1]):
        gap = knots - knots[:, m : m + 1]
        gap[:, m] = np.nan  # ℓ_j has no factor for its own knot or for an absent knot
        with np.errstate(invalid="ignore"):
            factor = (u - knots[:, m : m + 1])[:, None] / gap[:, :, None]
        product *= np.where(np.isnan(factor), 1.0, factor)
    return [w[:order] for w, order in zip(product.sum(-1), orders, strict=True)]


def past_knots(u: np.ndarray, orders: Sequence[int], newest: int) -> np.ndarray:
    """Knots of `lagrange_weights`: for step i, u[i + newest] and the orders[i] − 1 values before.

    The other knots of a shorter step are NaN. `newest` is 0 for a predictor, and 1 for a
    corrector, which uses the output at the step's end.
    """
    knots = np.full((len(orders), max(1, *orders)), np.nan)
    for i, order in enumerate(orders):
        last = i + newest + 1
        knots[i, :order] = u[last - order : last][::-1]
    return knots


def step_orders(steps: int, order: int, lower_order_final: bool) -> list[int]:
    """The order of each step of a multistep method: 1, 2, ... up to `order`, as history grows.

    With `lower_order_final` the order falls again to ..., 2, 1 at the end, because extrapolation
    over long steps near the data is unstable.
    """
    left = [steps - i if lower_order_final else order for i in range(steps)]
    return [min(order, i + 1, left[i]) for i in range(steps)]
