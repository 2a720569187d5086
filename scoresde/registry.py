"""Samplers and grids by name, as the command line and the benchmark say them.

ddim                      a name
ddim:eta=0.5              with a parameter
edm:churn=20:s_noise=1    with two
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .grid import GRIDS
from .plain import ConfigError, construct, nearest
from .samplers import (
    DDIM,
    EDM,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP2M,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseDiffusion,
    Sampler,
)

__all__ = ["SAMPLERS", "NamedSampler", "parse_grid", "parse_sampler"]


def _predictor_corrector(
    predictor: str = "reverse-diffusion", snr: float = 0.16, steps: int = 1, norm: str = "exact"
) -> PredictorCorrector:
    return PredictorCorrector(parse_sampler(predictor).sampler, Langevin(snr, steps, norm))


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "dpmpp-2m": DPMSolverPP2M,
    "heun": EDM,
    "edm": partial(EDM, churn=10.0),
    "euler-maruyama": EulerMaruyama,
    "reverse-diffusion": ReverseDiffusion,
    "annealed-langevin": AnnealedLangevin,
    "pc": _predictor_corrector,
    **{
        # by position, so that `rk4:method=dopri5` is an unknown key
        name.replace("_", "-"): partial(ProbabilityFlowODE, name)
        for name in (
            *("euler", "midpoint", "heun2", "heun3", "rk4"),
            *("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"),
        )
    },
}


@dataclass(frozen=True)
class NamedSampler:
    """A sampler with the text that asked for it, which labels it in tables and figures."""

    text: str
    sampler: Sampler

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps, so that tolerances and not steps set its cost."""
        return isinstance(self.sampler, ProbabilityFlowODE) and self.sampler.adaptive


def parse_sampler(text: str) -> NamedSampler:
    """A sampler from `name` or `name:key=value:key=value`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    name, *pairs = text.strip().split(":")
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown; {nearest(name, SAMPLERS)}")
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"sampler {text!r}: write parameters as key=value, got {pair!r}")
        if key in arguments:
            raise ConfigError(f"sampler {text!r}: {key} is given twice")
        arguments[key] = _value(value)
    return NamedSampler(text.strip(), construct(SAMPLERS[name], arguments, f"sampler {name}"))


def parse_grid(name: str) -> Callable[..., Any]:
    """A grid function of `scoresde.grid` by name.

    Raises:
        ConfigError: If the name is unknown (with the nearest one).
    """
    if name not in GRIDS:
        raise ConfigError(f"grid {name!r} is unknown; {nearest(name, GRIDS)}")
    return GRIDS[name]


def _value(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
