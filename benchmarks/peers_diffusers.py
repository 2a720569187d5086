"""The deterministic schedulers of diffusers on a scoresde model.

The schedulers use a table of β and an index i. The model is evaluated at exactly the noise level
that the scheduler assumes: index i is t = (i + 1)/L of a table with the ᾱ of the SDE, and between
indices log(σ/α) is linear, as in the schedulers. For variance-preserving SDEs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from paired import BORROWED, LEVELS, Levels, Setting
from torch import Tensor

from scoresde.grid import GRIDS

__all__ = ["diffusers_settings"]

# The arguments of a constructor that choose its grid.
_SPACINGS = {name: {"timestep_spacing": name} for name in ("linspace", "leading", "trailing")}
_SIGMAS = {name: {f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")}
_GRIDS = _SPACINGS | _SIGMAS


def _product(**choices: Sequence) -> Iterator[dict[str, Any]]:
    """Every combination of the choices, as keyword arguments."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


# Families whose state is x/α rather than x.
_SCALED = {"HeunDiscrete", "KDPM2Discrete", "LMSDiscrete", "EulerDiscrete"}


def _schedulers() -> Iterator[tuple[str, dict[str, dict], dict[str, Any]]]:
    """Each family of diffusers with its grids and combinations of its options."""
    for options in _product(
        algorithm_type=("dpmsolver++", "dpmsolver"),
        solver_order=(2, 3),
        solver_type=("midpoint", "heun"),
        lower_order_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
    ):
        if options["algorithm_type"] == "dpmsolver" and options["final_sigmas_type"] == "zero":
            continue  # the scheduler refuses this combination
        yield "DPMSolverSinglestep", {"linspace": {}} | _SIGMAS, options
        for last in ({}, {"euler_at_final": True}) if options["lower_order_final"] else ({},):
            yield "DPMSolverMultistep", _GRIDS | {"lu": {"use_lu_lambdas": True}}, options | last
    for options in _product(
        solver_order=(1, 2, 3),
        solver_type=("bh1", "bh2"),
        predict_x0=(True, False),
        lower_order_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
    ):
        if options["predict_x0"] or options["final_sigmas_type"] == "sigma_min":
            yield "UniPCMultistep", _GRIDS, options
    for options in _product(solver_order=(1, 2, 3), lower_order_final=(True, False)):
        yield "DEISMultistep", _GRIDS, options
    for order, more in itertools.product((1, 2, 3), (0, 1)):
        for algorithm in ("data_prediction", "noise_prediction"):
            orders = {"predictor_order": order, "corrector_order": order + more}
            options = {"algorithm_type": algorithm, "tau_func": _no_noise}
            yield "SASolver", _GRIDS, orders | options
    for options in _product(set_alpha_to_one=(True, False)):
        yield "DDIM", _SPACINGS, options | {"clip_sample": False}
        yield "PNDM", _SPACINGS, options | {"skip_prk_steps": True}
        yield "PNDM", _SPACINGS, options | {"skip_prk_steps": False}
    for options in _product(final_sigmas_type=("zero", "sigma_min")):
        yield "EulerDiscrete", _GRIDS, options
    for family in ("HeunDiscrete", "KDPM2Discrete", "LMSDiscrete"):
        yield family, _GRIDS, {}


def _no_noise(t: float) -> float:
    return 0.0


def _label(grid: str, options: dict[str, Any]) -> str:
    said = {key: value for key, value in options.items() if not callable(value)}
    return " ".join([grid, *(f"{key}={value}" for key, value in said.items())])


def diffusers_settings() -> list[Setting]:
    """Every deterministic scheduler of diffusers for this kind of model × its grids × options.

    Schedulers for flow matching, schedulers for distilled models, and copies are left out.
    """
    settings = [
        Setting("diffusers", family, _label(grid, options), _Scheduler(family, spacing | options))
        for family, grids, options in _schedulers()
        for grid, spacing in grids.items()
    ]
    for options in _product(
        solver_order=(2, 3),
        solver_type=("midpoint", "heun"),
        sigma_schedule=("karras", "exponential"),
        sigma_min=(0.002, 0.03, 0.1),
        final_sigmas_type=("zero", "sigma_min"),
    ):
        label, solve = _label("", options).strip(), _EDMScheduler(options)
        settings.append(Setting("diffusers", "EDMDPMSolverMultistep", label, solve))
    for grid, t_min in itertools.product(("arctan", "uniform", "quadratic"), (1e-6, 1e-3, 1e-2)):
        library = "diffusers" if grid == "arctan" else BORROWED
        settings.append(Setting(library, "IPNDM", f"{grid} t_min={t_min:g}", _IPNDM(grid, t_min)))
    return settings


@cache
def _diffusers() -> Any:
    """The library, with its message for every corrected setting switched off."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    return diffusers


@dataclass(frozen=True)
class _Scheduler:
    """A scheduler that gets β and needs ε at an index."""

    family: str
    options: dict[str, Any]

    def __call__(self, levels: Levels, x: Tensor, nfe: int) -> Tensor | None:
        kind = getattr(_diffusers(), f"{self.family}Scheduler")
        scheduler = kind(num_train_timesteps=LEVELS, trained_betas=levels.betas, **self.options)
        if not _fit(scheduler, nfe):
            return None
        if self.family in _SCALED:
            x = x * math.sqrt(1 + float(scheduler.sigmas[0]) ** 2)
        for t in scheduler.timesteps:
            inside = scheduler.scale_model_input(x, t)
            eps = levels.model.eps(inside, levels.at_index(float(t)))
            x = scheduler.step(eps, t, x).prev_sample
        return x


def _fit(scheduler: Any, nfe: int) -> bool:
    """Set the most steps within `nfe` evaluations, one evaluation for each of `timesteps`."""
    for steps in range(nfe, 0, -1):
        try:
            scheduler.set_timesteps(steps)
        except (IndexError, ValueError, ZeroDivisionError):
            continue  # too few steps for this scheduler
        if len(scheduler.timesteps) <= nfe:
            return True
    return False


@dataclass(frozen=True)
class _EDMScheduler:
    """EDM's form of DPM-Solver++, which chooses its own σ/α and needs a preconditioned F.

    At σ_data = 1 its F is −v, its input under VP is x, and its time label is log(σ/α)/4.
    """

    options: dict[str, Any]

    def __call__(self, levels: Levels, x: Tensor, nfe: int) -> Tensor:
        top = levels.top
        scheduler = _diffusers().EDMDPMSolverMultistepScheduler(
            sigma_max=math.exp(-top.lam), sigma_data=1.0, **self.options
        )
        scheduler.set_timesteps(nfe)
        x = x / top.alpha
        for t in scheduler.timesteps:
            node = levels.at_lam(-4 * float(t))
            out = -levels.model.v(scheduler.scale_model_input(x, t), node)
            x = scheduler.step(out, t, x).prev_sample
        return x


@dataclass(frozen=True)
class _IPNDM:
    """iPNDM uses a table of σ as its β, and v as the network's output; its time is 2θ/π.

    Its own table has equal steps in θ from σ = 1, where α = 0; `arctan` begins at the model's σ.
    """

    grid: str
    t_min: float

    def __call__(self, levels: Levels, x: Tensor, nfe: int) -> Tensor:
        nodes = levels.model.sde.nodes(GRIDS[self.grid](levels.model.sde, nfe, self.t_min))
        scheduler = _diffusers().IPNDMScheduler(nfe, trained_betas=[n.sigma for n in nodes])
        scheduler.set_timesteps(nfe)
        for t, node in zip(scheduler.timesteps, nodes[:-1], strict=True):
            x = scheduler.step(levels.model.v(x, node), t, x).prev_sample
        return x
