"""Initial value problems dy/dt = rate(y, t): adaptive solvers that do not depend on SDEs.

Samplers solve the probability-flow ODE from noise to data with them, and likelihoods from data to
noise. `Adaptive` has one step size for the whole batch, by torchdiffeq; `AdaptivePerSample` has one
for each sample. Both end exactly at the end of the interval, never evaluate the rate outside it,
and raise `SolverError` if they fail.
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
