"""Schedulers of diffusers: `set_timesteps`, then `scale_model_input` and `step` in a loop.

A scheduler makes its noise levels from a table of β and an index. It gets a fine table, whose first
and last σ/α are the given ones, and keeps its own spacing of indices. The model is evaluated at
exactly the noise level that the scheduler's arithmetic uses, not at its time label, which some
schedulers round. So rounding of labels is no part of the result.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...plain import nearest
from .base import Denoiser, End, ForeignSampler, Levels, NotMeasured, Start
from .flow_match import FlowSpace, flow_scheduler, is_flow_match

__all__ = ["DiffusersScheduler", "is_scheduler"]

# Least length of the table of β. It is a multiple of the number of steps, because some schedulers
# step by the integer part of their ratio.
TABLE = 3_000


def is_scheduler(kind: type) -> bool:
    """Whether a class has the interface of a scheduler."""
    return all(callable(getattr(kind, name, None)) for name in ("set_timesteps", "step"))


@dataclass(frozen=True)
class DiffusersScheduler(ForeignSampler):
    """A scheduler for networks that predict ε, x_0 or v.

    Attributes:
        kind: The class.
        options: Keyword arguments of its constructor, or of `step`, such as eta of DDIM.
    """

    kind: type
    options: Mapping[str, Any] = field(default_factory=dict)
    keeps_levels: ClassVar[bool] = False
    _ready: dict[tuple[Levels, int], Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = [inspect.signature(f).parameters for f in (self.kind.__init__, self.kind.step)]
        for key in self.options:
            if not any(key in parameters for parameters in known):
                allowed = nearest(key, list(known[0])[1:])
                raise ValueError(f"{key!r} is no option of {self.kind.__name__}; {allowed}")

    @classmethod
    def of_object(cls, name: str, scheduler: Any) -> DiffusersScheduler:
        """The scheduler with the options of an object; only its table of β is replaced."""
        known = inspect.signature(type(scheduler).__init__).parameters
        replaced = {"trained_betas", "num_train_timesteps", "beta_start", "beta_end"}
        replaced |= {"beta_schedule"}
        options = {k: v for k, v in scheduler.config.items() if k in known and k not in replaced}
        return cls(name, type(scheduler), options)

    @property
    def takes_generator(self) -> bool:
        """Whether `step` has a parameter `generator`."""
        return "generator" in inspect.signature(self.kind.step).parameters

    def run(
        self,
        denoiser: Denoiser,
        start: Start,
        levels: Levels,
        steps: int,
        generator: torch.Generator,
    ) -> End:
        """The loop of a pipeline."""
        if (levels, steps) not in self._ready:  # some constructors take a second
            self._ready[levels, steps] = self._scheduler(levels, steps)
        scheduler = copy.deepcopy(self._ready[levels, steps])
        known = inspect.signature(scheduler.step).parameters
        given = {key: value for key, value in self.options.items() if key in known}
        given |= {"generator": generator} if "generator" in known else {}
        space = _space(scheduler)
        x = space.first(start)
        for t in scheduler.timesteps:
            inside = space.inside(x, t)
            sigma = space.level(t)
            state = space.denoised_state(x, inside, sigma)
            out = space.output(denoiser(state, sigma), state, x, sigma)
            x = scheduler.step(out, t, x, **given).prev_sample
        return space.end(x.double())

    def _scheduler(self, levels: Levels, steps: int) -> Any:
        """A scheduler whose noise levels lie between the two ends, ready for `steps` steps."""
        known = inspect.signature(self.kind.__init__).parameters
        options = {key: value for key, value in self.options.items() if key in known}
        if "trained_betas" not in known:
            return self._without_table(levels, steps, options)
        if "beta_schedule" not in known:  # the table holds σ itself, at equal steps of the angle
            ends = math.atan(levels.sigma_max), math.atan(levels.sigma_min)
            angles = torch.linspace(*ends, steps + 1, dtype=torch.float64)
            table = (levels.sigmas(steps).atan() if levels.uneven else angles).sin().tolist()
            return _ready(self.kind(len(table), trained_betas=table, **options), steps)
        length = steps * math.ceil(TABLE / steps)
        make = partial(self.kind, length, **options)
        scheduler = _ready(make(trained_betas=_betas(levels, length)), steps)
        if levels.uneven:
            ts = scheduler.timesteps
            knots = ts[::2] if hasattr(scheduler, "sigmas_interpol") else ts  # between: stages
            betas = _betas(levels, length, knots.tolist())
            scheduler = _ready(make(trained_betas=betas), steps)
        return scheduler

    def _without_table(self, levels: Levels, steps: int, options: dict[str, Any]) -> Any:
        """A scheduler of flow matching, or of EDM, which gets the two ends of σ."""
        if is_flow_match(self.kind):
            return flow_scheduler(self.kind, levels, steps, options)
        if "sigma_data" not in inspect.signature(self.kind.__init__).parameters:
            raise NotMeasured(f"{self.kind.__name__} takes neither a table of β nor ends")
        if levels.uneven:
            raise NotMeasured(f"{self.kind.__name__} has equal steps only")
        options = {"sigma_schedule": "exponential"} | options
        ends = {"sigma_min": levels.sigma_min, "sigma_max": levels.sigma_max}
        return _ready(self.kind(**options | ends), steps)


def _ready(scheduler: Any, steps: int) -> Any:
    scheduler.set_timesteps(steps)
    return scheduler


def _betas(levels: Levels, length: int, knots: Sequence[float] | None = None) -> list[float]:
    """A table of β whose λ falls linearly with the index, or h, 3h, … between given indices."""
    index = np.arange(length)
    if knots is None:
        lam = np.interp(index, [0, length - 1], [-levels.log_min, -levels.log_max])
    else:
        knots = sorted({0.0, length - 1.0, *knots})
        lam = np.interp(index, knots, -levels.sigmas(len(knots) - 1).log().numpy()[::-1])
    alpha_bar = 1 / (1 + np.exp(-2 * lam))
    return (1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])).tolist()


class _TableSpace:
    """States and noise levels of DDIM, DDPM and PNDM: x with ᾱ of the table at index t."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def first(self, start: Start) -> Tensor:
        """The scheduler's state at its first noise level."""
        sigma = self.level(self.scheduler.timesteps[0])
        return start(sigma) / math.sqrt(1 + sigma**2)

    def inside(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's input."""
        return self.scheduler.scale_model_input(x, t)

    def level(self, t: Tensor) -> float:
        """σ/α of the next evaluation."""
        return _sigma_of(float(self.scheduler.alphas_cumprod[int(t)]))

    def denoised_state(self, x: Tensor, inside: Tensor, sigma: float) -> Tensor:
        """y of the network's input: it always has variance 1 for data of variance 1."""
        return inside.double() * math.sqrt(1 + sigma**2)

    def output(self, x0: Tensor, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """What the network returns for a denoised x0."""
        kind, eps = self.scheduler.config.get("prediction_type", "epsilon"), (y - x0) / sigma
        if kind == "sample":
            return x0
        if kind == "v_prediction":
            return (eps - sigma * x0) / math.sqrt(1 + sigma**2)
        if kind != "epsilon":
            raise NotMeasured(f"prediction_type must not be {kind!r}")
        return eps

    def end(self, x: Tensor) -> End:
        """The last state as y, at the σ of `final_alpha_cumprod`, 0 if there is none."""
        sigma = _sigma_of(float(getattr(self.scheduler, "final_alpha_cumprod", 1.0)))
        return End(x * math.sqrt(1 + sigma**2), sigma)


class _SigmaSpace(_TableSpace):
    """Schedulers with a list `sigmas` and the state x."""

    def level(self, t: Tensor) -> float:
        """σ of the present step."""
        return float(self.scheduler.sigmas[self.scheduler.step_index or 0])

    def end(self, x: Tensor) -> End:
        """The last state as y, at the last of `sigmas`."""
        sigma = float(self.scheduler.sigmas[-1])
        return End(x * math.sqrt(1 + sigma**2), sigma)


class _ScaledSpace(_SigmaSpace):
    """Schedulers with a list `sigmas` and the state y, which `scale_model_input` scales."""

    def first(self, start: Start) -> Tensor:
        """The state at the first noise level."""
        return start(self.level(self.scheduler.timesteps[0]))

    def level(self, t: Tensor) -> float:
        """σ of the present stage: that of all the scheduler's σ which fits its scaling."""
        one = float(self.scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
        known = [self.scheduler.sigmas]
        known += [s for s in [getattr(self.scheduler, "sigmas_interpol", None)] if s is not None]
        sigmas = torch.cat(known).double()
        sigmas = sigmas[sigmas.isfinite()]
        return float(sigmas[(sigmas - math.sqrt(max(one**-2 - 1, 0.0))).abs().argmin()])

    def end(self, x: Tensor) -> End:
        """The last state, at the last of `sigmas`."""
        return End(x, float(self.scheduler.sigmas[-1]))


class _EDMSpace(_SigmaSpace):
    """Schedulers of EDM: the state y, and a network F whose output they turn into x_0."""

    def first(self, start: Start) -> Tensor:
        """The state at the first noise level."""
        return start(self.level(self.scheduler.timesteps[0]))

    def denoised_state(self, x: Tensor, inside: Tensor, sigma: float) -> Tensor:
        """The state itself."""
        return x.double()

    def output(self, x0: Tensor, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """F from x_0 = a + b F, with a and b taken from the scheduler."""
        made = partial(self.scheduler.precondition_outputs, x, sigma=torch.tensor(sigma).double())
        a = made(torch.zeros_like(x))
        b = made(torch.ones_like(x)) - a
        return (x0 - a) / b

    def end(self, x: Tensor) -> End:
        """The last state, at the last of `sigmas`."""
        return End(x, float(self.scheduler.sigmas[-1]))


class _AngleSpace(_SigmaSpace):
    """IPNDM, whose time is the angle of (α, σ), and which takes v for ε."""

    def level(self, t: Tensor) -> float:
        """σ/α = tan(π t/2)."""
        return math.tan(float(t) * math.pi / 2)

    def output(self, x0: Tensor, y: Tensor, x: Tensor, sigma: float) -> Tensor:
        """V = α ε − σ x_0."""
        return ((y - x0) / sigma - sigma * x0) / math.sqrt(1 + sigma**2)

    def end(self, x: Tensor) -> End:
        """The last state, at the last pair of the table."""
        sigma = float(self.scheduler.betas[-1] / self.scheduler.alphas[-1])
        return End(x * math.sqrt(1 + sigma**2), sigma)


def _space(scheduler: Any) -> _TableSpace | FlowSpace:
    """How a scheduler keeps its states and noise levels."""
    if is_flow_match(type(scheduler)):
        return FlowSpace(scheduler)
    if "sigma_data" in scheduler.config:
        return _EDMSpace(scheduler)
    if "beta_schedule" not in scheduler.config:
        return _AngleSpace(scheduler)
    if getattr(scheduler, "sigmas", None) is None:
        return _TableSpace(scheduler)
    one = torch.ones(1, dtype=torch.float64)
    scaled = float(scheduler.scale_model_input(one, scheduler.timesteps[0])) != 1.0
    return (_ScaledSpace if scaled else _SigmaSpace)(scheduler)


def _sigma_of(alpha_bar: float) -> float:
    """σ/α where α² = ᾱ and σ² = 1 − ᾱ."""
    return math.sqrt((1 - alpha_bar) / alpha_bar)
