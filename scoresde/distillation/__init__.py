"""Distillation: students that need 1, 2 or 4 evaluations where their teacher needs many.

Progressive distillation halves the steps again and again. Consistency distillation and training
make one jump to the end of the probability-flow ODE. A student is a score model like its teacher,
with `distilled` set: its x0 is the end of a long step and no posterior mean, so that it has its own
sampler and times, and no likelihood.
"""

from ..score.distilled import Distilled
from .consistency import (
    ConsistencyDistillation,
    ConsistencyLoss,
    ConsistencyTraining,
    consistency_function,
)
from .progressive import Progressive, ProgressiveLoss

__all__ = [
    "ConsistencyDistillation",
    "ConsistencyLoss",
    "ConsistencyTraining",
    "Distilled",
    "Progressive",
    "ProgressiveLoss",
    "consistency_function",
]
