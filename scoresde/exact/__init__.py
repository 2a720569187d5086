"""Exact score models: data whose p_t is known in closed form under any SDE.

A Gaussian mixture remains a Gaussian mixture under x_t = α x_0 + σ ε,

    p_t(x) = Σ_k w_k N(x; α m_k, α² Σ_k + σ² I)

and a finite data set is a mixture of points. If (x, y) is a Gaussian mixture, so is x given y.
Samplers, likelihoods and networks are compared with these models. For this reason they compute in
float64, whatever the dtype of x is.
"""

from .conditional_mixture import ConditionalMixture
from .finite_data import FiniteData
from .gaussian_mixture import GaussianMixture

__all__ = ["ConditionalMixture", "FiniteData", "GaussianMixture"]
