"""The scheduler config of a diffusers folder as SDE, target and label of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._tensor import check_choice, check_integer, check_number, equally_spaced
from ..plain import nearest
from ..score import Preconditioning
from ..sde import (
    SDE,
    VE,
    Linear,
    TabulatedVP,
    cosine_betas,
    linear_betas,
    zero_terminal_snr,
)
from .diffusers_flow import flow_meaning, is_flow

__all__ = ["Scheduled", "complete", "scheduled"]

# Schedulers of a table of β, and the values of their keys in `_DEFAULTS` that are others there.
_SMALL = {"beta_start": 0.00085, "beta_end": 0.012}
_LINSPACE = {"timestep_spacing": "linspace"}
_TABLES: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {},
    "DDPMParallelScheduler": {},
    "DDIMScheduler": {},
    "DDIMParallelScheduler": {},
    "DDIMInverseScheduler": {},
    "PNDMScheduler": {"set_alpha_to_one": False, "clip_sample": False},
    "RePaintScheduler": {},
    "DPMSolverMultistepScheduler": _LINSPACE,
    "DPMSolverMultistepInverseScheduler": _LINSPACE,
    "DPMSolverSinglestepScheduler": _LINSPACE,
    "DEISMultistepScheduler": _LINSPACE,
    "UniPCMultistepScheduler": _LINSPACE,
    "SASolverScheduler": _LINSPACE,
    "DPMSolverSDEScheduler": _SMALL | _LINSPACE,
    "LMSDiscreteScheduler": _LINSPACE,
    "EulerDiscreteScheduler": _LINSPACE,
    "EulerAncestralDiscreteScheduler": _LINSPACE,
    "HeunDiscreteScheduler": _SMALL | _LINSPACE,
    "KDPM2DiscreteScheduler": _SMALL | _LINSPACE,
    "KDPM2AncestralDiscreteScheduler": _SMALL | _LINSPACE,
}
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_VE = "ScoreSdeVeScheduler"
_CONSISTENCY = "a network of it predicts the end of a trajectory, which gives no score"
_FLOW = "of flow matching only FlowMatchEuler- and FlowMatchHeunDiscreteScheduler are read"
# What networks of the other schedulers are, by how the names begin.
_NO_SCORES = {
    **dict.fromkeys(
        ("CMStochasticIterative", "LCM", "TCD", "SCM", "FlowMap", "FlowMatchLCM"), _CONSISTENCY
    ),
    **dict.fromkeys(("FlowMatch", "LTXEulerAncestralRF", "Piflow", "Helios"), _FLOW),
}

_DEFAULTS: dict[str, Any] = {
    **{"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
    **{"beta_schedule": "linear", "trained_betas": None, "prediction_type": "epsilon"},
    **{"rescale_betas_zero_snr": False, "timestep_spacing": "leading", "steps_offset": 0},
    **{"clip_sample": True, "clip_sample_range": 1.0, "set_alpha_to_one": True},
    "variance_type": "fixed_small",
}
_TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

# Keys that say how diffusers samples, and not what the network was trained for.
_SAMPLING = {
    "clip_sample": "kept; scoresde.Clipped does it, and a likelihood ignores it",
    "thresholding": "kept; no sampler here does it, and a likelihood ignores it",
    "timestep_spacing": "kept; scoresde.interop.as_scheduled takes it",
    "steps_offset": "kept; scoresde.interop.as_scheduled takes it",
    "variance_type": "kept; the variance of the reverse step is the sampler's",
}


@dataclass(frozen=True)
class Scheduled:
    """What a scheduler config says of the network.

    Attributes:
        sde: The forward process.
        preconditioning: Target and label of the network.
        low: Value of the lowest level of the data.
        high: Value of the highest level.
        used: Key -> what became of it.
    """

    sde: SDE
    preconditioning: Preconditioning
    low: float
    high: float
    used: dict[str, str]


def scheduled(config: Mapping[str, Any], label: str) -> Scheduled:
    """The meaning of a scheduler config.

    Args:
        config: The content of scheduler_config.json.
        label: "index" or "rounded_index", for a table of β.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If the scheduler is not one of a diffusion that is known here, or a value is
            out of its range.
    """
    name = config.get("_class_name")
    known = (*_TABLES, _VE, *_EDM)
    if is_flow(config, known):
        meaning, used = flow_meaning(config)
        return Scheduled(Linear(), meaning, -1.0, 1.0, used)
    if name not in known:
        _refuse(str(name), known)
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(f"timestep_type must be 'discrete', got {config['timestep_type']!r}")
    if name == _VE:
        return _variance_exploding(config)
    made = _edm(config) if name in _EDM else _of_table(config, label)
    kept = {k: text for k, text in _SAMPLING.items() if k in config and k not in made.used}
    made.used.update(kept)
    return made


def _refuse(name: str, known: Sequence[str]) -> NoReturn:
    """Raise the ValueError of a scheduler that is not read."""
    for start, reason in _NO_SCORES.items():
        if name.startswith(start):
            raise ValueError(f"_class_name: {name!r} cannot be read: {reason}")
    raise ValueError(f"_class_name: {name[:100]!r} is unknown; {nearest(name, known)}")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config of a table of β, with the defaults of keys that are not there."""
    return _DEFAULTS | _TABLES.get(config.get("_class_name"), {}) | dict(config)


def _variance_exploding(config: Mapping[str, Any]) -> Scheduled:
    """NCSN++'s: the network of x and σ predicts the score, and the data are in [0, 1]."""
    values = {"sigma_min": 0.01, "sigma_max": 1348.0, **config}
    sde = VE(
        check_number("sigma_min", values["sigma_min"], above=0, below=1e9),
        check_number("sigma_max", values["sigma_max"], above=0, below=1e9),
    )
    meaning = Preconditioning("score", "sigma", scale_input=False)
    used = {"sigma_min": "sde.sigma_min", "sigma_max": "sde.sigma_max"}
    used["snr"] = used["correct_steps"] = "kept; of the sampler pc"
    return Scheduled(sde, meaning, 0.0, 1.0, used)


def _edm(config: Mapping[str, Any]) -> Scheduled:
    """EDM's preconditioning, in σ between the two ends."""
    values = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5} | dict(config)
    kind = values.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise ValueError(
            f"prediction_type must be 'epsilon' for {config['_class_name']}, got {kind!r}"
        )
    ends = [
        check_number(key, values[key], above=0, below=1e9) for key in ("sigma_min", "sigma_max")
    ]
    data_std = check_number("sigma_data", values["sigma_data"], above=0, below=1e9)
    used = {key: f"sde.{key}" for key in ("sigma_min", "sigma_max")}
    used |= {"sigma_data": "preconditioning.sigma_data", "prediction_type": "EDM's skip form"}
    return Scheduled(VE(*ends), Preconditioning("edm", "edm", True, data_std), -1.0, 1.0, used)


def _of_table(config: Mapping[str, Any], label: str) -> Scheduled:
    """A table of β, with the index of the level as label."""
    values = complete(config)
    target = values["prediction_type"]
    check_choice("prediction_type", target, _TARGETS)
    betas = _betas(values)
    used = {
        "prediction_type": f"preconditioning.target = {_TARGETS[target]}",
        "num_train_timesteps": "the number of levels",
        **{
            key: "sde.betas" for key in ("beta_schedule", "beta_start", "beta_end") if key in config
        },
        "trained_betas": "none" if values["trained_betas"] is None else "sde.betas",
    }
    if values["rescale_betas_zero_snr"]:
        betas = zero_terminal_snr(betas)
        used["rescale_betas_zero_snr"] = "sde.betas, of which the last one is 1"
        if target == "epsilon":
            used["rescale_betas_zero_snr"] += "; ε says nothing of x0 at α = 0"
    sde = TabulatedVP(tuple(betas.tolist()))
    return Scheduled(sde, Preconditioning(_TARGETS[target], label, False), -1.0, 1.0, used)


def _betas(values: Mapping[str, Any]) -> Tensor:
    """The table of β, float64."""
    n = check_integer(
        "num_train_timesteps", values["num_train_timesteps"], minimum=2, maximum=10**6
    )
    given = values["trained_betas"]
    if given is not None:
        if not isinstance(given, list) or len(given) != n:
            raise ValueError(f"trained_betas must be a list of {n} numbers")
        numbers = [check_number("each entry of trained_betas", b, above=0) for b in given]
        return torch.tensor(numbers, dtype=torch.float64)  # `TabulatedVP` checks that β ≤ 1
    kind = values["beta_schedule"]
    if kind == "squaredcos_cap_v2":
        return cosine_betas(n)
    if kind in _ALPHA_BARS:
        alpha_bar = _ALPHA_BARS[kind](equally_spaced(0, 1, n + 1))
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    first, last = (
        check_number(key, values[key], above=0, below=1) for key in ("beta_start", "beta_end")
    )
    if kind == "linear":
        return linear_betas(n, first, last)
    if kind == "scaled_linear":
        return equally_spaced(first**0.5, last**0.5, n) ** 2
    if kind == "sigmoid":
        return equally_spaced(-6, 6, n).sigmoid() * (last - first) + first
    raise ValueError(
        "beta_schedule must be one of linear, scaled_linear, squaredcos_cap_v2, sigmoid, "
        f"{', '.join(_ALPHA_BARS)}, got {kind!r}"
    )


def _laplace(t: Tensor) -> Tensor:
    """√(1/(1 + e^{−λ})),  λ = −0.5 sgn(0.5 − t) log(1 − 2|0.5 − t|), the log SNR.

    The Laplace schedule of Hang et al. 2024, arXiv:2407.03297, with μ = 0 and b = 0.5. The root,
    which is α and not ᾱ, and the 1e-6 that the logarithm needs at both ends are diffusers'.
    """
    lam = -0.5 * torch.copysign(torch.ones(()), 0.5 - t) * (1 - 2 * (0.5 - t).abs() + 1e-6).log()
    return lam.sigmoid().sqrt()


_ALPHA_BARS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda t: torch.exp(-12 * t),
    "laplace": _laplace,
}
