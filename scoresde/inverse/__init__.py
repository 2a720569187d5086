"""Inverse problems: samples given a measurement y = A x + noise.

Operators say what A is. `DPS`, `PiGDM` and `DDNM` are score models that any sampler runs;
`Replacement`, `RePaint`, `DDRM` and `TwistedSMC` are samplers for a `Measured` model. `posterior`
is the exact answer for Gaussian mixtures, with which all of them are compared.
"""

from .ddrm import DDRM
from .foreign import Foreign
from .measured import Measured
from .operators import Downsample, Grey, Mask, Operator
from .posterior import posterior
from .replacement import RePaint, Replacement
from .spectral import Blur, Projection
from .twisted import TwistedSMC
from .wrappers import DDNM, DPS, PiGDM

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "Blur",
    "Downsample",
    "Foreign",
    "Grey",
    "Mask",
    "Measured",
    "Operator",
    "PiGDM",
    "Projection",
    "RePaint",
    "Replacement",
    "TwistedSMC",
    "posterior",
]
