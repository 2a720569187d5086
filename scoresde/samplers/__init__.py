"""Samplers: how to go from noise to data with a score model.

| class | order | NFE per step | stochastic |
|---|---|---|---|
| `Ancestral` | weak 1 | 1 | yes |
| `DDIM` | 1 | 1 | if eta > 0 |
| `DPMSolverPP2M` | 2 | 1 | no |
| `EDM` | 2 | 2 | if churn > 0 |
| `EulerMaruyama` | weak 1 | 1 | if eta > 0 |
| `ReverseDiffusion` | weak 1 | 1 | yes |
| `AnnealedLangevin` | biased | K | yes |
| `PredictorCorrector` | its predictor's | of both parts | with `Langevin`, yes |
| `ProbabilityFlowODE` | 1 to 8 | 1 to 13 | no |
"""

from .ancestral import Ancestral
from .base import Corrector, GridSampler, Sampler, Samples, sample
from .edm import EDM
from .euler import EulerMaruyama, ReverseDiffusion
from .exponential import DDIM, DPMSolverPP2M
from .langevin import AnnealedLangevin, Langevin
from .ode import ProbabilityFlowODE
from .pc import PredictorCorrector

__all__ = [
    "DDIM",
    "EDM",
    "AnnealedLangevin",
    "Ancestral",
    "Corrector",
    "DPMSolverPP2M",
    "EulerMaruyama",
    "GridSampler",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlowODE",
    "ReverseDiffusion",
    "Sampler",
    "Samples",
    "sample",
]
