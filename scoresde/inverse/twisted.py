"""`TwistedSMC`: sequential Monte Carlo with particles that are guided to the measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .._tensor import check_integer, check_number, plain_numbers
from ..ivp import OnStep, Solution
from ..noise import Noise
from ..samplers.base import Sampler
from ..score import ScoreModel
from ..sde import Node
from .measured import Measured, measured_in, of_nothing, posterior_variance
from .wrappers import PiGDM

__all__ = ["TwistedSMC"]


class _Twist(NamedTuple):
    """What the measurement says of particles x_t, for B samples of K particles.

    Attributes:
        x0: Their x0, shape (B K, *D).
        gradient: ∇ log p̃(y | x_t), shape (B K, *D).
        log: log p̃(y | x_t) up to a number that is the same for all, shape (B, K), float64.
    """

    x0: Tensor
    gradient: Tensor
    log: Tensor


@dataclass(frozen=True)
class TwistedSMC(Sampler):
    """Twisted sequential Monte Carlo: K weighted particles for each sample, one of which it is.

        p̃(y | x_t) = N(y; A x0(x_t), r² A Aᵀ + σ_y² I)                       r² as in `PiGDM`
        p(x_s | x_t) = N(m, b² u I),  m = a (σ_s²/σ_t²) x_t + α_s (b²/σ_t²) x0,   a = α_t/α_s
        proposal       N(m + (b²/a) ∇ log p̃(y | x_t), b² u I),                     b = σ_{t|s}
        log w  +=  log p(x_s | x_t) − log proposal(x_s) + log p̃(y | x_s) − log p̃(y | x_t)

    where u = (α_s² v + σ_s²)/(α_t² v + σ_t²), which is exact for data of variance v. Particles are
    resampled (systematic) where their effective number (Σ w)²/Σ w² is below `resample` K. At the
    end one particle is drawn by its weight. The particles of a sample do not depend on those of
    others, and its first particle starts from the given state. As K → ∞ the samples follow the
    posterior of the chain Π p(x_s | x_t), which tends to that of the data with the number of steps.

    At each of the N + 1 times, K NFE and K derivative passes; stochastic. `Samples.effective` is
    the least effective number of each sample. Wu et al. 2023, arXiv:2306.17775, algorithm 1.

    Args:
        particles: K, at least 1. One particle is guided, without any correction.
        resample: Share of K below which particles are resampled, in [0, 1]; 1 is always.
        data_var: v, the variance of the data around their mean, above 0.

    Raises:
        TypeError: If `particles` is no integer.
        ValueError: If a number is out of range.
    """

    measured: ClassVar[bool] = True

    particles: int = 16
    resample: float = 0.5
    data_var: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("particles", self.particles, minimum=1)
        check_number("resample", self.resample, at_least=0, at_most=1)
        check_number("data_var", self.data_var, above=0)

    def counted_on(self, model: ScoreModel) -> ScoreModel:
        """A model with a measurement."""
        return of_nothing(model)

    def run(
        self, model: ScoreModel, x: Tensor, ts: Tensor, noise: Noise, on_step: OnStep | None = None
    ) -> Solution:
        """Carry the particles through the grid, and choose one of each sample."""
        problem = self._checked(model)
        twisted = self._twisted(problem, x)
        nodes = model.sde.nodes(ts)
        x = self._started(x, noise, model.sde.start_std(nodes[0].t))
        twist = self._at(problem, twisted, x, nodes[0])
        log_w, least = twist.log, torch.full_like(twist.log[:, 0], math.inf)
        for i, (t, s) in enumerate(zip(nodes[:-1], nodes[1:], strict=True)):
            x, twist, log_w, least = self._resampled(x, twist, log_w, least, noise)
            x, change = self._moved(x, twist, t, s, noise)
            before, twist = twist.log, self._at(problem, twisted, x, s)
            log_w = log_w + change + twist.log - before
            if on_step is not None:
                on_step(i + 1, s.t, self._chosen(x, log_w.argmax(1)))
        least = torch.minimum(least, _effective(log_w))
        edges = torch.softmax(log_w, 1).cumsum(1)[:, :-1]
        index = (noise.uniform(edges.new_empty(len(edges), 1)) >= edges).sum(1)
        return Solution(self._chosen(x, index), effective=least.cpu())

    def _checked(self, model: ScoreModel) -> Measured:
        """The model, or raise unless it is a `Measured` one with noise."""
        problem = measured_in(model, self)
        if problem is not model:
            raise ValueError(
                "TwistedSMC needs the Measured model itself, not one around it or grad=True, got "
                f"{type(model).__name__}"
            )
        if problem.noise == 0:
            raise ValueError(
                "noise must be above 0 for TwistedSMC, which needs the density of y, got 0"
            )
        return problem

    def _twisted(self, problem: Measured, x: Tensor) -> PiGDM:
        """The guided model with the measurement of each particle, and the counter of `problem`."""
        twisted = PiGDM(problem.model, problem.operator, problem.noise, self.data_var)
        twisted.nfe = problem.nfe
        y = problem.measurement(x)
        return twisted.given(y.repeat_interleave(self.particles, 0))

    def _started(self, x: Tensor, noise: Noise, std: float) -> Tensor:
        """The particles at the first time: x, and draws from N(0, std² I)."""
        x = x[:, None]
        if self.particles > 1:
            others = noise.fresh(x.expand(-1, self.particles - 1, *x.shape[2:]))
            x = torch.cat([x, std * others], 1)
        return x.flatten(0, 1)

    def _at(self, problem: Measured, twisted: PiGDM, x: Tensor, node: Node) -> _Twist:
        """x0 and the twist of particles; every particle counts as one evaluation."""
        for _ in range(self.particles - 1):
            problem.nfe.add_forward(node.t)
            problem.nfe.add_derivative()
        x0, gradient = twisted.with_gradient(x, node)
        residual = twisted.residual(x0)
        variance = posterior_variance(node, self.data_var)
        white = problem.operator.solve(residual, variance, problem.noise**2)
        square = (residual * white).flatten(1).sum(1, dtype=torch.float64)
        return _Twist(x0, gradient, -0.5 * square.reshape(-1, self.particles))

    def _moved(
        self, x: Tensor, twist: _Twist, t: Node, s: Node, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """The particles at s, and log p(x_s | x_t) − log proposal(x_s), shape (B, K)."""
        a, b = t.alpha / s.alpha, t.sigma * math.sqrt(-math.expm1(2 * (t.lam - s.lam)))
        v, k = self.data_var, self.particles
        u = (s.alpha**2 * v + s.sigma**2) / (t.alpha**2 * v + t.sigma**2)
        std, shift = b * math.sqrt(u), (b**2 / a) * twist.gradient
        grouped = x.reshape(-1, k, *x.shape[1:])
        z = noise.increment(grouped, t.t, s.t).flatten(0, 1)
        mean = (a * (s.sigma / t.sigma) ** 2) * x + (s.alpha * (b / t.sigma) ** 2) * twist.x0
        # |std z + shift|² − |std z|², over −2 std²
        change = -(z + shift / (2 * std)) * shift / std
        log_ratio = change.flatten(1).sum(1, dtype=torch.float64).reshape(-1, k)
        return mean + shift + std * z, log_ratio

    def _resampled(
        self, x: Tensor, twist: _Twist, log_w: Tensor, least: Tensor, noise: Noise
    ) -> tuple[Tensor, _Twist, Tensor, Tensor]:
        """Particles, twists, log-weights and least effective numbers after resampling."""
        k, size = self.particles, _effective(log_w)
        uniform = noise.times(log_w)[:, None]  # drawn always, so that no draw depends on another
        due = (size < self.resample * k) | (self.resample == 1)
        places = (torch.arange(k, device=log_w.device) + uniform) / k
        edges = torch.softmax(log_w, 1).cumsum(1)
        index = torch.searchsorted(edges[:, :-1].contiguous(), places, right=True)
        index = torch.where(due[:, None], index, torch.arange(k, device=log_w.device))
        rows = (index + k * torch.arange(len(index), device=index.device)[:, None]).flatten()
        moved = _Twist(twist.x0[rows], twist.gradient[rows], twist.log.gather(1, index))
        log_w = torch.where(due[:, None], 0.0, log_w)
        return x[rows], moved, log_w, torch.minimum(least, size)

    def _chosen(self, x: Tensor, index: Tensor) -> Tensor:
        """One particle of each sample, shape (B, *D)."""
        rows = index + self.particles * torch.arange(len(index), device=index.device)
        return x[rows]


def _effective(log_w: Tensor) -> Tensor:
    """(Σ w)²/Σ w² of log-weights of shape (B, K), shape (B,)."""
    return torch.exp(2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1))
