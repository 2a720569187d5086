"""Score models: one network gives four quantities.

For x_t = α x_0 + σ ε a model of the noise ε(x_t, t) = E[ε | x_t] also gives

    score  = ∇ log p_t(x_t)  = −ε/σ
    x0     = E[x_0 | x_t]    = (x_t − σ ε)/α
    v      = α ε − σ x0                           (Salimans & Ho 2022, arXiv:2202.00512)

`eps` is the basic one, because it is O(1) for all t.
"""

from ..evaluation import count_nfe
from .base import FIRST_TIME, ScoreModel, Time
from .call import Call
from .clipping import Clipped
from .drift import reverse_drift
from .function import FunctionScore
from .latent_decoder import LatentDecoder
from .network import NetworkScore
from .preconditioning import Label, Preconditioning, Target
from .wrapping import wrap

__all__ = [
    "FIRST_TIME",
    "Call",
    "Clipped",
    "FunctionScore",
    "Label",
    "LatentDecoder",
    "NetworkScore",
    "Preconditioning",
    "ScoreModel",
    "Target",
    "Time",
    "count_nfe",
    "reverse_drift",
    "wrap",
]
