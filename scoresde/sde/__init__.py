"""Forward SDEs: dx = f(t) x dt + g(t) dw with the kernel x_t = α(t) x_0 + σ(t) ε."""

from .base import SDE
from .cosine_vp import CosineVP
from .linear import Linear
from .node import Node
from .tabulated_vp import TabulatedVP, cosine_betas, linear_betas
from .ve import VE
from .vp import VP, SubVP
from .zero_snr import zero_terminal_snr

__all__ = [
    "SDE",
    "VE",
    "VP",
    "CosineVP",
    "Linear",
    "Node",
    "SubVP",
    "TabulatedVP",
    "cosine_betas",
    "linear_betas",
    "zero_terminal_snr",
]
