"""Sources of random numbers. The global generators are never used.

Every draw has a *purpose*, so that a change of one part of a computation does not change the draws
of another: `prior` for x_T, `increment` for Brownian increments of a solver, `probe` for the probes
of a trace estimator, `uniform` for dequantization, `times` for random times, and `fresh` for all
other normal draws (correctors, churn).

The k-th draw of a purpose for a sample is a function of seed, sample index, purpose and k. It does
not depend on the other draws or on their sizes. `_philox` defines the numbers.
"""

from .base import NOISE_VERSION, BatchNoise, Noise, SampleNoise, check_seed
from .brownian import BrownianNoise
from .present import PresentNoise

__all__ = [
    "NOISE_VERSION",
    "BatchNoise",
    "BrownianNoise",
    "Noise",
    "PresentNoise",
    "SampleNoise",
    "check_seed",
]
