"""Schedulers of diffusers for flow matching: the meaning of the network, and their times.

    x = (1 − σ) x_0 + σ ε,   the network receives N σ and returns dx/dσ = ε − x_0

This is `Linear` with t = σ. With `invert_sigmas` the network's own time is 1 − σ: it receives
N (1 − σ) and returns x_0 − ε. All other keys say at which σ a scheduler stops on its path from
noise to data. They change nothing of the network, whose label is always N times its σ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_integer, check_number, equally_spaced
from ..score import Preconditioning

__all__ = ["EULER", "flow_meaning", "flow_times", "is_flow"]

EULER = "FlowMatchEulerDiscreteScheduler"
_NAMES = (EULER, "FlowMatchHeunDiscreteScheduler")
_MOST_SHIFT = 1e6

# Keys of the times of sampling, and the values at which `flow_times` knows what they do.
_TIMES: dict[str, tuple[Any, ...]] = {
    "use_dynamic_shifting": (False, None),
    "shift_terminal": (None, 0, 0.0),
    "stochastic_sampling": (False, None),
    **{f"use_{name}_sigmas": (False, None) for name in ("karras", "exponential", "beta")},
}
_DYNAMIC = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type")


def is_flow(config: Mapping[str, Any], others: Collection[str] = ()) -> bool:
    """Whether a scheduler's config is one of flow matching that is read here.

    Args:
        config: The scheduler's config.
        others: Schedulers that are of flow matching only if they say `use_flow_sigmas`.
    """
    name = config.get("_class_name")
    return name in _NAMES or (name in others and bool(config.get("use_flow_sigmas")))


def flow_meaning(config: Mapping[str, Any]) -> tuple[Preconditioning, dict[str, str]]:
    """Target and label of the network, and what became of each key.

    Args:
        config: The scheduler's config.

    Raises:
        TypeError: If a value has a wrong type.
        ValueError: If a value is out of its range, or the prediction is no velocity.
    """
    levels = check_integer(
        "num_train_timesteps", config.get("num_train_timesteps", 1000), minimum=1, maximum=10**6
    )
    if config.get("_class_name") not in _NAMES:
        kind = config.get("prediction_type", "epsilon")
        if kind != "flow_prediction":
            raise ValueError(
                f"prediction_type must be 'flow_prediction' with use_flow_sigmas, got {kind!r}"
            )
    data_at = int(_flag(config, "invert_sigmas"))
    meaning = Preconditioning("velocity", "time", False, label_scale=levels, data_at=data_at)
    used = {
        "num_train_timesteps": "preconditioning.label_scale",
        "invert_sigmas": f"preconditioning.data_at = {data_at}",
        "prediction_type": "preconditioning.target = velocity",
        "use_flow_sigmas": "the SDE is Linear",
        "shift": "kept; a choice of times, which scoresde.interop.as_scheduled takes",
        "flow_shift": "kept; a choice of times",
        **{key: "kept; a choice of times" for key in (*_TIMES, *_DYNAMIC)},
        "stochastic_sampling": "kept; the sampler's",
    }
    return meaning, {key: text for key, text in used.items() if key in config}


def _flag(config: Mapping[str, Any], key: str) -> bool:
    """A flag, false if it is not there."""
    value = config.get(key) or False
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be true or false, got {value!r}")
    return value


def flow_times(config: Mapping[str, Any], steps: int) -> Tensor:
    """The times at which the Euler scheduler evaluates the network, without its last one, 0.

        t_i = shifted(u_i),   u_i equally spaced from 1 to shifted(1/N)
        shifted(u) = s u/(1 + (s − 1) u)

    That the last u is shifted twice is how the library does it.

    Args:
        config: The scheduler's config.
        steps: Number of evaluations, at least 2.

    Returns:
        Shape (steps,), float64, decreasing from 1.

    Raises:
        TypeError: If a value has a wrong type.
        ValueError: If the scheduler chooses its times in another way.
    """
    name = config.get("_class_name")
    if name != EULER:
        raise ValueError(f"_class_name must be {EULER} to be repeated here, got {name!r}")
    for key, known in _TIMES.items():
        if config.get(key, known[0]) not in known:
            raise ValueError(
                f"{key} must be {known[0]} to be repeated here, got {config[key]!r}; the model can "
                "be sampled with any grid of scoresde instead"
            )
    shift = check_number("shift", config.get("shift", 1.0), above=0, below=_MOST_SHIFT)
    levels = config.get("num_train_timesteps", 1000)

    def shifted(u: Tensor) -> Tensor:
        return shift * u / (1 + (shift - 1) * u)

    least = float(shifted(torch.tensor(1 / levels, dtype=torch.float64)))
    times = shifted(equally_spaced(1.0, least, steps))
    times[0] = 1.0
    if not math.isfinite(float(times.sum())) or not bool((times.diff() < 0).all()):
        raise ValueError(f"steps must leave distinct times, got {steps} with shift {shift:g}")
    return times
