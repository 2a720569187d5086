"""Samplers: how to go from noise to data with a score model.

| class | order | NFE per step | stochastic |
|---|---|---|---|
| `Ancestral` | weak 1 | 1 | yes |
| `DDIM` | 1 | 1 | if eta > 0 |
| `DPMSolverSinglestep` | 1, 2, 3 | 1, 2, 3 | no |
| `DPMSolverMultistep` | 1, 2, 3 | 1 | if eta > 0 |
| `UniPC` | 1 to 4 | 1 | no |
| `ExponentialAB` | 1 to 4 | 1 | no |
| `IPNDM` | 1 | 1 | no |
| `AngularAdams` | 1 to 3 | 1 | no |
| `RungeKutta` | 1 to 4 | 1 to 4 | no |
| `EDM` | 2 | 2 | if churn > 0 |
| `EulerMaruyama` | weak 1 | 1 | if eta > 0 |
| `ReverseDiffusion` | weak 1 | 1 | yes |
| `AnnealedLangevin` | biased | K | yes |
| `PredictorCorrector` | its predictor's | of both parts | with `Langevin`, yes |
| `Restart` | its inner sampler's | of it, and of the restarts | yes |
| `SASolver` | weak 2, strong 1 if eta > 0 | 1 | if eta > 0 |
| `AdaptiveSDE` | by tolerance | 2 | if eta > 0 |
| `ProbabilityFlowODE` | by tolerance | 1 to 13 | no |
"""

from .adams import IPNDM, ExponentialAB
from .adaptive_sde import AdaptiveSDE
from .ancestral import Ancestral
from .angular import AngularAdams
from .base import Corrector, GridSampler, Sampler, Samples, sample
from .dpm_solver import DPMSolverMultistep, DPMSolverSinglestep
from .edm import EDM
from .euler import EulerMaruyama, ReverseDiffusion
from .exponential import DDIM
from .langevin import AnnealedLangevin, Langevin
from .ode import ProbabilityFlowODE
from .pc import PredictorCorrector
from .restart import Restart, RestartInterval
from .runge_kutta import RungeKutta
from .sa_solver import SASolver
from .unipc import UniPC

__all__ = [
    "DDIM",
    "EDM",
    "IPNDM",
    "AdaptiveSDE",
    "AnnealedLangevin",
    "Ancestral",
    "AngularAdams",
    "Corrector",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "EulerMaruyama",
    "ExponentialAB",
    "GridSampler",
    "Langevin",
    "PredictorCorrector",
    "ProbabilityFlowODE",
    "Restart",
    "RestartInterval",
    "ReverseDiffusion",
    "RungeKutta",
    "SASolver",
    "Sampler",
    "Samples",
    "UniPC",
    "sample",
]
