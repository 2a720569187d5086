"""Initial value problems dy/dt = rate(y, t): adaptive solvers that know nothing of SDEs.

Samplers run the probability-flow ODE from noise to data with them, likelihoods from data to
noise. `Adaptive` gives the whole batch one step size, by torchdiffeq; `AdaptivePerSample` gives
each sample its own. Either ends exactly at the end, never asks for a rate outside the interval,
and fails with a `SolverError`, never with a number.
"""

from .outcome import Counts, OnStep, Solution, SolverError, Status, error_norm
from .per_sample import Stepper, march
from .runge_kutta import PER_SAMPLE_METHODS, AdaptivePerSample
from .whole_batch import WHOLE_BATCH_METHODS, Adaptive

__all__ = [
    "PER_SAMPLE_METHODS",
    "WHOLE_BATCH_METHODS",
    "Adaptive",
    "AdaptivePerSample",
    "Counts",
    "OnStep",
    "Solution",
    "SolverError",
    "Status",
    "Stepper",
    "error_norm",
    "march",
]
