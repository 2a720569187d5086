"""Samplers: methods that carry noise to data with a score model.

A sampler holds its settings only. `sample` runs any of them on any score model and any time grid.
Each family has its own file, and `base` defines what a sampler is.
"""

from .adaptive_sde import AdaptiveSDE
from .ancestral import Ancestral
from .angular_adams import AngularAdams
from .base import Corrector, GridSampler, Sampler
from .consistency import Consistency
from .ddim import DDIM
from .dpm_solver import DPMSolverMultistep, DPMSolverSinglestep
from .edm import EDM
from .exponential_adams import IPNDM, ExponentialAB
from .langevin import AnnealedLangevin, Langevin
from .predictor_corrector import PredictorCorrector
from .probability_flow import ProbabilityFlowODE
from .restart import Restart, RestartInterval
from .reverse_sde import EulerMaruyama, ReverseDiffusion
from .runge_kutta import RungeKutta
from .sa_solver import SASolver
from .sampling import Samples, sample
from .unipc import UniPC

__all__ = [
    "DDIM",
    "EDM",
    "IPNDM",
    "AdaptiveSDE",
    "AnnealedLangevin",
    "Ancestral",
    "AngularAdams",
    "Consistency",
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
