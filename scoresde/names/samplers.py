"""Samplers from text, for the command line and the benchmarks.

ddim                      a name
ddim:eta=0.5              with a parameter
edm:churn=20:s_noise=1    with two parameters
package.module:Name       a class of your own, perhaps with parameters; its module is imported
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import Any

from .. import samplers
from ..plain import ConfigError, construct_named, is_class_path
from .importing import construct_imported

__all__ = ["SAMPLERS", "is_own", "parse_sampler", "sampler_label"]


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
    "consistency": samplers.Consistency,
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


def is_own(text: str) -> bool:
    """Whether a text is the place of a class of the user, and not one of our names."""
    return text.strip().partition(":")[0] not in SAMPLERS and is_class_path(text)


def parse_sampler(text: str) -> samplers.Sampler:
    """A sampler from `name` or `name:key=value:key=value`, or from the place of a class.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), a value is wrong, or
            the class cannot be imported.
    """
    if is_own(text):
        return construct_imported("sampler", text, samplers.Sampler)
    return construct_named("sampler", text, SAMPLERS)


def sampler_label(sampler: samplers.Sampler) -> str:
    """The shortest text from which `parse_sampler` makes an equal sampler, otherwise a description.

    Example: `ddim:eta=0.5` for DDIM(0.5), and `Mine(order=2)` for a sampler of the user.
    """
    texts = []
    for name, usual in _usual_samplers().items():
        if type(usual) is not type(sampler):
            continue
        changed = [f"{k}={_plain(v)}" for k, v in _changes(sampler, usual).items()]
        text = ":".join([name, *changed])
        try:
            if parse_sampler(text) == sampler:
                texts.append(text)
        except ConfigError:  # a field that the name does not allow to change
            continue
    if texts:
        return min(texts, key=len)
    values = [f"{f.name}={getattr(sampler, f.name)}" for f in fields(sampler) if f.init]
    return f"{type(sampler).__name__}({', '.join(values)})" if values else type(sampler).__name__


@cache
def _usual_samplers() -> dict[str, samplers.Sampler]:
    """The sampler of each name without parameters; samplers are immutable."""
    return {name: parse_sampler(name) for name in SAMPLERS}


def _changes(sampler: samplers.Sampler, usual: samplers.Sampler) -> dict[str, Any]:
    pairs = {f.name: (getattr(sampler, f.name), getattr(usual, f.name)) for f in fields(sampler)}
    return {name: new for name, (new, old) in pairs.items() if new != old}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
