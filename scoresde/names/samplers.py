"""Samplers from text, for the command line and the benchmarks.

ddim                      a name
ddim:eta=0.5              with a parameter
edm:churn=20:s_noise=1    with two parameters
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from .. import samplers
from ..plain import ConfigError, construct_named

__all__ = ["SAMPLERS", "parse_sampler", "sampler_text"]


def _predictor_corrector(
    predictor: str = "reverse-diffusion", snr: float = 0.16, steps: int = 1, norm: str = "exact"
) -> samplers.PredictorCorrector:
    """Predictor–corrector with Langevin steps.

    Args:
        predictor: A one-step sampler by name.
        snr: r of the Langevin steps, above 0.
        steps: Langevin steps at each time, at least 1.
        norm: "exact" or "batch", the norm for the step size; see `Langevin`.
    """
    corrector = samplers.Langevin(snr, steps, norm)
    return samplers.PredictorCorrector(parse_sampler(predictor), corrector)


def _restart(
    inner: str = "heun", low: float = 0.06, high: float = 0.3, steps: int = 2, repeats: int = 2
) -> samplers.Restart:
    """An ODE sampler with restarts: noise is added and removed again within an interval.

    Args:
        inner: A deterministic sampler by name.
        low: Lower end of the interval, in σ/α.
        high: Upper end of the interval, in σ/α.
        steps: Steps within the interval, at least 1.
        repeats: Number of restarts, at least 1.
    """
    interval = samplers.RestartInterval(low, high, steps, repeats)
    return samplers.Restart(parse_sampler(inner), (interval,))


SAMPLERS: dict[str, Callable[..., samplers.Sampler]] = {
    "ancestral": samplers.Ancestral,
    "ddim": samplers.DDIM,
    "dpm-2": partial(samplers.DPMSolverSinglestep, 2, "eps"),
    "dpm-3": partial(samplers.DPMSolverSinglestep, 3, "eps"),
    "dpmpp-2s": partial(samplers.DPMSolverSinglestep, 2, "x0"),
    "dpmpp-3s": partial(samplers.DPMSolverSinglestep, 3, "x0"),
    "dpmpp-2m": partial(samplers.DPMSolverMultistep, 2),
    "dpmpp-3m": partial(samplers.DPMSolverMultistep, 3),
    "dpmpp-3m-copied": partial(samplers.DPMSolverMultistep, 3, copied=True),
    "sde-dpmpp-2m": partial(samplers.DPMSolverMultistep, 2, eta=1.0),
    "sde-dpmpp-3m": partial(samplers.DPMSolverMultistep, 3, eta=1.0),
    "unipc": samplers.UniPC,
    "deis": partial(samplers.ExponentialAB, prediction="eps", variable="t"),
    "deis-rho": partial(samplers.ExponentialAB, prediction="eps", variable="sigma"),
    "exp-ab": samplers.ExponentialAB,
    "ipndm": samplers.IPNDM,
    "angular": samplers.AngularAdams,
    "heun": samplers.EDM,
    "edm": partial(samplers.EDM, churn=10.0),
    "euler-maruyama": samplers.EulerMaruyama,
    "reverse-diffusion": samplers.ReverseDiffusion,
    "annealed-langevin": samplers.AnnealedLangevin,
    "pc": _predictor_corrector,
    "gotta-go-fast": samplers.AdaptiveSDE,
    "dop853": partial(samplers.ProbabilityFlowODE, "dop853", per_sample=True),
    "restart": _restart,
    "sa-solver": samplers.SASolver,
    # The method is given by position, so that `method` is not a key (`rk4:method=dopri5` fails).
    **{
        name: partial(samplers.RungeKutta, name)
        for name in ("euler", "midpoint", "heun2", "heun3", "rk4")
    },
    **{
        name.replace("_", "-"): partial(samplers.ProbabilityFlowODE, name)
        for name in ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
    },
}


def parse_sampler(text: str) -> samplers.Sampler:
    """A sampler from `name` or `name:key=value:key=value`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    return construct_named("sampler", text, SAMPLERS)


def sampler_text(sampler: samplers.Sampler) -> str:
    """The shortest text from which `parse_sampler` makes this sampler; its repr if there is none.

    Args:
        sampler: Any sampler.
    """
    texts = [_text(name, make, sampler) for name, make in SAMPLERS.items()]
    return min((text for text in texts if text is not None), key=len, default=repr(sampler))


def _text(
    name: str, make: Callable[..., samplers.Sampler], sampler: samplers.Sampler
) -> str | None:
    """The text of a sampler under one name; None if this name does not make it."""
    usual = make()
    if type(usual) is not type(sampler):
        return None
    keys = [key for key in inspect.signature(make).parameters if hasattr(sampler, key)]
    values = {key: getattr(sampler, key) for key in keys}
    changed = {key: value for key, value in values.items() if value != getattr(usual, key)}
    words = {k: str(v).lower() if isinstance(v, bool) else f"{v}" for k, v in changed.items()}
    text = ":".join([name, *(f"{key}={word}" for key, word in words.items())])
    try:
        return text if parse_sampler(text) == sampler else None
    except ConfigError:
        return None
