"""Score-based SDE/ODE generative models.

    import scoresde
    checkpoint = scoresde.load("digits-vp")
    ts = scoresde.grid.log_snr(checkpoint.model.sde, 20)
    out = scoresde.sample(checkpoint.model, scoresde.DDIM(), ts, (16, 1, 8, 8), seed=0)

Names are imported when first used, so that `import scoresde` alone is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "SDE": "sde",
    "VP": "sde",
    "SubVP": "sde",
    "VE": "sde",
    "CosineVP": "sde",
    "TabulatedVP": "sde",
    "cosine_betas": "sde",
    "ScoreModel": "score",
    "NetworkScore": "score",
    "FunctionScore": "score",
    "Preconditioning": "score",
    "count_nfe": "score",
    "reverse_drift": "score",
    "GaussianMixture": "exact",
    "FiniteData": "exact",
    "SampleNoise": "noise",
    "BatchNoise": "noise",
    "BrownianNoise": "noise",
    "Objective": "loss",
    "sample": "samplers",
    "Samples": "samplers",
    "Ancestral": "samplers",
    "AnnealedLangevin": "samplers",
    "DDIM": "samplers",
    "AngularAdams": "samplers",
    "DPMSolverMultistep": "samplers",
    "DPMSolverSinglestep": "samplers",
    "ExponentialAB": "samplers",
    "IPNDM": "samplers",
    "RungeKutta": "samplers",
    "UniPC": "samplers",
    "EDM": "samplers",
    "EulerMaruyama": "samplers",
    "Langevin": "samplers",
    "PredictorCorrector": "samplers",
    "ProbabilityFlowODE": "samplers",
    "Restart": "samplers",
    "RestartInterval": "samplers",
    "ReverseDiffusion": "samplers",
    "SASolver": "samplers",
    "log_likelihood": "likelihood",
    "Likelihood": "likelihood",
    "DataSpec": "data",
    "load_dataset": "data",
    "load": "loading",
    "load_config": "config",
}
_MODULES = ("config", "data", "exact", "grid", "likelihood", "metrics", "nets", "samplers")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'scoresde' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
