"""Sampling as a scheduler of diffusers does it: its timesteps, its solver, its clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._tensor import check_choice, check_integer, check_number
from ..samplers import DDIM, Ancestral, DPMSolverMultistep, RungeKutta, Sampler
from ..score import Clipped, ScoreModel
from .diffusers_flow import flow_times, is_flow
from .diffusers_scheduler import complete

__all__ = ["ScheduledRun", "as_scheduled"]

_DDPM, _DDIM = "DDPMScheduler", "DDIMScheduler"
_MULTISTEP = "DPMSolverMultistepScheduler"
_VARIANCES = {
    **{"fixed_small": "beta_tilde", "fixed_small_log": "beta_tilde", "fixed_large": "beta"},
    "learned_range": "learned",
}
_OTHER_GRIDS = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas", "flow_sigmas")


@dataclass(frozen=True)
class ScheduledRun:
    """What `sample` needs to repeat a pipeline of diffusers.

        run = as_scheduled(model, config, steps=50)
        x = sample(run.model, run.sampler, run.ts, x_init=x, denoise=run.denoise).x

    A pipeline clamps its images to the range of the data at the end; `x` is not clamped here. (So
    after DDIM with clipping, x is clamped to that range before it equals the scheduler's.)

    Attributes:
        model: The model, clipped if the scheduler clips x0 and ε.
        sampler: The sampler.
        ts: The times of the scheduler's timesteps, and perhaps one more at the end.
        denoise: Whether the last step goes to x0.
    """

    model: ScoreModel
    sampler: Sampler
    ts: Tensor
    denoise: bool


def as_scheduled(
    model: ScoreModel, config: Mapping[str, Any], steps: int, eta: float = 0.0
) -> ScheduledRun:
    """The sampler and the times of a scheduler's config.

    With the same noise, samples equal those of the pipeline up to rounding: of DDPMScheduler with a
    fixed variance or one between β̃ and β, of DDIMScheduler, of DPMSolverMultistepScheduler of order
    1 or 2, and of FlowMatchEulerDiscreteScheduler without dynamic shifting.

    Args:
        model: A model with the labels of the scheduler's table of β, or of flow matching, such as
            an imported one.
        config: The content of scheduler_config.json; an imported checkpoint holds its own as
            `checkpoint.metadata["provenance"]["scheduler"]`.
        steps: `num_inference_steps`, at least 2, the number of evaluations.
        eta: η of DDIM, in [0, 1]; other schedulers have none.

    Raises:
        ValueError: If the scheduler is another one, has a setting that no sampler here has, or the
            SDE has no discrete labels.
    """
    if is_flow(config):
        return _flow_run(model, config, steps, eta)
    values = complete(config)
    name = values["_class_name"]
    check_choice("_class_name", name, (_DDPM, _DDIM, _MULTISTEP))
    if model.sde.levels is None:
        raise ValueError(f"the SDE must have discrete labels, got {type(model.sde).__name__}")
    if eta != 0 and name != _DDIM:
        raise ValueError(f"eta must be 0 for {name}, got {eta}")
    if values.get("thresholding"):
        raise ValueError("thresholding must be false: no sampler here does it")
    labels = _labels(values, check_integer("steps", steps, minimum=2))
    clip = math.inf
    if name != _MULTISTEP and values["clip_sample"]:
        clip = check_number("clip_sample_range", values["clip_sample_range"], above=0)
    denoise = name != _DDIM or values["set_alpha_to_one"]
    if not denoise and labels[-1] > 0:
        labels.append(0)
    most = model.sde.levels - 1
    labels = sorted({min(label, most) for label in labels}, reverse=True)
    ts = (torch.tensor(labels, dtype=torch.float64) + 1) / model.sde.levels
    if name == _DDPM:
        clipped = model if clip == math.inf else Clipped(model, -clip, clip)
        check_choice("variance_type", values["variance_type"], _VARIANCES)
        return ScheduledRun(clipped, Ancestral(_VARIANCES[values["variance_type"]]), ts, denoise)
    sampler = DDIM(eta, clip) if name == _DDIM else _multistep(values)
    return ScheduledRun(model, sampler, ts, denoise)


def _flow_run(model: ScoreModel, config: Mapping[str, Any], steps: int, eta: float) -> ScheduledRun:
    """Euler's method in t on dx/dt = ε − x_0, whose last step goes to x0 at t = 0."""
    if eta != 0:
        raise ValueError(f"eta must be 0 for {config['_class_name']}, got {eta}")
    times = flow_times(config, check_integer("steps", steps, minimum=2))
    if float(model.sde.lam(0.5)) != 0 or not model.sde.ends_in_noise:
        raise ValueError(f"the SDE must be Linear, got {type(model.sde).__name__}")
    return ScheduledRun(model, RungeKutta("euler", "t"), times, denoise=True)


def _multistep(values: Mapping[str, Any]) -> DPMSolverMultistep:
    """DPM-Solver++ of order 1 or 2."""
    wanted = {
        "algorithm_type": ("dpmsolver++",),
        "solver_order": (1, 2),
        "solver_type": ("midpoint",),
        "final_sigmas_type": ("zero",),
        "euler_at_final": (False,),
        **{f"use_{name}": (False,) for name in _OTHER_GRIDS},
    }
    defaults = {key: allowed[0] for key, allowed in wanted.items()} | {"solver_order": 2}
    found = {key: values.get(key, defaults[key]) for key in wanted}
    for key, allowed in wanted.items():
        if found[key] not in allowed:
            texts = " or ".join(map(repr, allowed))
            raise ValueError(f"{key} must be {texts} to be repeated here, got {found[key]!r}")
    return DPMSolverMultistep(found["solver_order"])


def _labels(values: Mapping[str, Any], steps: int) -> list[int]:
    """The timesteps: decreasing labels, in 0 … N − 1.

    A multistep scheduler divides the range into one step more, and leaves label 0 out. Lin et al.
    2024, arXiv:2305.08891, table 2.
    """
    levels, kind = values["num_train_timesteps"], values["timestep_spacing"]
    multistep = values["_class_name"] == _MULTISTEP
    number = steps + 1 if multistep else steps
    if not number <= levels:
        raise ValueError(f"steps must be below the {levels} labels, got {steps}")
    if kind == "linspace":
        labels = np.linspace(0, levels - 1, number).round()
    elif kind == "leading":
        labels = np.arange(number) * (levels // number) + values["steps_offset"]
    else:
        check_choice("timestep_spacing", kind, ("linspace", "leading", "trailing"))
        labels = np.arange(levels, 0, -levels / steps).round()[::-1] - 1
    found = [int(label) for label in labels[::-1]]
    if multistep and kind != "trailing":
        found = found[:-1]
    stride = levels // steps
    if values["_class_name"] == _DDIM and any(
        a - b != stride for a, b in zip(found[:-1], found[1:], strict=True)
    ):
        raise ValueError(
            f"DDIMScheduler steps down by {stride} labels, but {kind!r} with {steps} steps has "
            "other distances, so that its steps do not end where the next ones begin"
        )
    return found
