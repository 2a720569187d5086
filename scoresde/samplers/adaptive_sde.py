"""The reverse SDE with a step size for each sample ("Gotta Go Fast")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from ..ivp import OnStep, Solution, Stepper, error_norm, march
from ..noise import Noise
from ..score import ScoreModel, reverse_drift
from ..score.sets import share_present
from .base import Sampler, check_rtol

__all__ = ["AdaptiveSDE"]

FIRST_STEP = 0.01  # the paper's h_init
EVALUATIONS = 2  # per attempted step


@dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """Euler–Maruyama against stochastic improved Euler, each sample with its own step size.

        d  = f x − (1 + η²)/2 g² score,   h = t − s,   w = W_t − W_s
        k₁ = −h d(x, t) + η g(t) w,            x'  = x + k₁
        k₂ = −h d(x', s) + η g(s) w,           x'' = x + (k₁ + k₂)/2
        E  = RMS of (x'' − x') / max(atol, rtol max(|x'|, |x'_prev|))   (of sets: of their points)

    If E ≤ 1 the step is accepted: the sample continues from x'' (the paper's "extrapolation"),
    and x'_prev becomes x'. The next step size is 0.9 h E^−0.9, the paper's θ = r = 0.9. Samples
    that have reached ts[-1] leave the batch; the last step ends there exactly. Only the two ends
    of the grid are used.

    2 NFE per attempted step; stochastic unless η = 0. The weak error is proportional to the
    tolerance, not to a power of a step size. Jolicoeur-Martineau et al. 2021, "Gotta go fast when
    generating data with score-based models", arXiv:2105.14080.

    There are three differences from the authors' code. First, the noise of a rejected step is
    kept. A step is often rejected because of its noise, so that drawing new noise after a rejection
    biases the noise of accepted steps. For N(0.3, 0.25) in one dimension under VP, new noise makes
    the standard deviation 0.13 too large at tolerance 0.02, and no tolerance repairs this. Here the
    increment w is kept, and the shorter steps that replace the rejected one divide it as a
    Brownian bridge, in equal parts, so that no very short step remains. The standard deviation is
    then right to 0.002, its standard error. Second, a step is at least 0.2 times and at most 10
    times the last step, and right after a rejection it does not grow. Third, η may have any value.

    The Brownian path is drawn by `noise.fresh`, one draw per attempt for each sample of the batch,
    even if the sample does not use it. So a sample does not depend on its batch mates. The path
    differs from the path of a `BrownianNoise`.

    Args:
        rtol: Relative tolerance in (0, 1); at least 1e-7 in float32.
        atol: Absolute tolerance, greater than 0.
        eta: Stochasticity η ≥ 0; 1 is the reverse SDE, 0 the probability-flow ODE.
        max_steps: Largest number of attempted steps of one sample.

    Raises:
        ValueError: On an argument out of range; from `run`, if rtol is too small for float32.
        SolverError: From `run`, a RuntimeError, if a sample does not reach the end.
    """

    adaptive: ClassVar[bool] = True

    rtol: float = 0.01
    atol: float = 0.01
    eta: float = 1.0
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("rtol", self.rtol, above=0, below=1)
        check_number("atol", self.atol, above=0)
        check_number("eta", self.eta, at_least=0)
        check_integer("max_steps", self.max_steps, minimum=1)

    @torch.no_grad()
    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Solution:
        """Carry every sample from ts[0] down to ts[-1]; arguments as in `Sampler.run`.

        `on_step` is called whenever the time that all samples have reached has moved.
        """
        check_rtol(self.rtol, x.dtype)
        return march(
            _ImprovedEuler(self, model, x, noise),
            x,
            float(ts[0]),
            float(ts[-1]),
            max_evaluations=EVALUATIONS * self.max_steps,
            on_step=on_step,
        )


class _ImprovedEuler(Stepper):
    """One attempt of Euler–Maruyama and stochastic improved Euler with the same increment."""

    name = "AdaptiveSDE"
    evaluations = EVALUATIONS
    exponent = 0.9  # the paper's r

    def __init__(self, sampler: AdaptiveSDE, model: ScoreModel, x: Tensor, noise: Noise) -> None:
        self.sampler, self.model, self.noise, self.x = sampler, model, noise, x

    def start(self, y: Tensor, t_start: float, t_end: float) -> float:
        """The paper's first step size; no increment of the Brownian path is known yet."""
        self.previous = self.euler = y
        self.path = _Increments(y)
        return FIRST_STEP

    def target(self, t: Tensor, t_new: Tensor) -> Tensor:
        """t_new, or the end of a rejected step, whose increment is known, if that comes first."""
        return self.path.target(t, t_new)

    def attempt(self, y: Tensor, t: Tensor, t_new: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x'' and the size of x'' − x'."""
        w = self.path.increment(t, t_new, self._draw(rows)) if self.sampler.eta > 0 else None
        model = self.model.take(rows)
        k1 = self._slope(model, y, t, t - t_new, w)
        self.euler = y + k1
        k2 = self._slope(model, self.euler, t_new, t - t_new, w)
        larger = torch.maximum(self.euler.abs(), self.previous.abs())
        scale = (self.sampler.rtol * larger).clamp(min=self.sampler.atol)
        error = error_norm(0.5 * (k2 - k1) / scale, y.shape[1], share_present(model, self.x[rows]))
        return y + 0.5 * (k1 + k2), error

    def settle(self, accepted: Tensor) -> None:
        """Keep x' of accepted steps as x'_prev, and drop their increments."""
        self.previous = torch.where(accepted[:, None], self.euler, self.previous)
        self.path.forget(accepted)

    def keep(self, running: Tensor) -> None:
        """Keep the data of the samples that are still running."""
        self.previous = self.previous[running]
        self.path.keep(running)

    def _draw(self, rows: Tensor) -> Tensor:
        """N(0, I) of shape (b, N); drawn for the whole batch, so that all draw equally often."""
        z = self.noise.fresh(self.x)
        return z.reshape(len(z), -1)[rows]

    def _slope(
        self, model: ScoreModel, y: Tensor, t: Tensor, h: Tensor, w: Tensor | None
    ) -> Tensor:
        """−h d(y, t) + η g(t) w."""
        x_t = y.reshape(len(y), *self.x.shape[1:])
        node = model.sde.at(t, x_t)
        d = reverse_drift(model, x_t, node, self.sampler.eta).reshape(y.shape)
        k = d * -_column(h, y)
        return k if w is None else k.addcmul_(_column(self.sampler.eta * node.g, y), w)


class _Increments:
    """A stack of the known increments of each sample's Brownian path from its present time on.

    The top increment begins at the sample's present time, the next one begins where the top one
    ends, and so on. A rejected step stays on the stack. A shorter step divides its increment.
    """

    def __init__(self, y: Tensor) -> None:
        self.size = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        self.ends = torch.zeros(1, len(y), dtype=torch.float64, device=y.device)
        self.increments = torch.zeros_like(y)[None]

    def target(self, t: Tensor, t_new: Tensor) -> Tensor:
        """t_new, or, if an increment is known, the end of the first of its equal parts."""
        end, _ = self._top()
        parts = ((t - end) / (t - t_new)).ceil()
        within = torch.where(parts > 1, t - (t - end) / parts, end)
        return torch.where(self.size > 0, within, t_new)

    def increment(self, t: Tensor, t_new: Tensor, z: Tensor) -> Tensor:
        """W_t − W_{t_new}, shape (b, N), made from z ~ N(0, I), and put on top of the stack."""
        known = self.size > 0
        end, total = self._top()
        h = t - t_new
        part = torch.where(known, h / (t - end), 0.0)
        # Within a known increment this is the Brownian bridge; part = 1 gives the increment itself.
        w = _column(part, z) * total + _column((h * (1 - part)).sqrt(), z) * z
        divides = known & (part < 1)
        place = (self.size - 1).clamp(min=0)
        rest = torch.where(divides[:, None], total - w, total)
        self.increments[place, self._samples()] = rest
        self.size = self.size + (divides | ~known)
        if int(self.size.max()) > len(self.ends):
            self.ends = torch.cat([self.ends, torch.zeros_like(self.ends[:1])])
            self.increments = torch.cat([self.increments, torch.zeros_like(self.increments[:1])])
        place = self.size - 1
        self.ends[place, self._samples()] = t_new
        self.increments[place, self._samples()] = w
        return w

    def forget(self, taken: Tensor) -> None:
        """Drop the top increment of the samples whose step was accepted."""
        self.size = self.size - (taken & (self.size > 0)).to(torch.int64)

    def keep(self, running: Tensor) -> None:
        """Drop the samples that have finished."""
        self.size = self.size[running]
        self.ends, self.increments = self.ends[:, running], self.increments[:, running]

    def _samples(self) -> Tensor:
        return torch.arange(len(self.size), device=self.size.device)

    def _top(self) -> tuple[Tensor, Tensor]:
        """The end and the increment on top; meaningless where the stack is empty."""
        place = (self.size - 1).clamp(min=0), self._samples()
        return self.ends[place], self.increments[place]


def _column(value: Tensor, y: Tensor) -> Tensor:
    """One number per sample, shape (b, 1), in the dtype of y."""
    return value.reshape(-1, 1).to(y.dtype)
