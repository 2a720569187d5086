"""`Ito`: the log-density of a sample of the reverse SDE, tracked along its random path.

Let p_t be the density of the forward SDE dx = f x dt + g dw and s = ∇ log p_t its score. With
τ = 1 − t the reverse SDE is dx = (−f x + g² s) dτ + g dB. The Fokker–Planck equation says

    −∂_t log p_t = D f + f x·s − ½ g² (∇·s + |s|²)

and Itô's lemma adds x's own motion, s·dx + ½ g² ∇·s dτ. The divergences cancel:

    d log p_t(x_t) = (D f + ½ g² |s|²) dτ + g s·dB                                            (1)

So log p along a random path needs the score alone, and no derivative pass: Karczewski et al. 2024,
"Diffusion Models as Cartoonists", arXiv:2411.01293.

**Steps.** From t to s < t one step of the chain is, with b = σ_{t|s}, a = α_t/α_s and z ~ N(0, I),

    x_s = (x_t + b² score(x_t, t))/a + b (n_s/n_t) z,   n = √(α² d² + σ²)                       (2)

The mean is that of the reverse process for any data, and the variance is that for data N(0, d² I).
The logarithm of (2)'s density over that of the forward transition, N(x_t; a x_s, b² I), is

    r_s − r_t = ½ |b ε/σ_t − κ z|² − ½ |z|² + D log(n_t/n_s),   κ = a n_s/n_t                   (3)

As the steps tend to 0, (3) tends to (1) for every d. A large d gives the Euler–Maruyama step of
(1), whose noise is large wherever the score's derivative is that of noise, −I/σ². The d of the data
takes this part out.

**What it estimates.** Let p̂ be the density of the last state of the chain (2), for any model and
any number of steps. By (3), r = log p̂(x) + log(density of the chain's path given x / density of the
forward path from x). So the mean over the paths that end at x is

    E[r | x] = log p̂(x) + KL(chain's paths ‖ forward paths) ≥ log p̂(x)           (4)
    E[e^{−r} | x] = 1/p̂(x)

With the exact score the KL divergence is 0 in the limit of small steps, and r = log p(x) for every
path. With a learned score ŝ in place of s it stays positive, and in the limit the mean excess over
all samples is ½ ∫ g² E|ŝ − ∇ log p̂_t|² dt. A likelihood of noised data is a lower bound for the
same reason (`ContinuousVLB`): there the mean is taken over forward paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import grid
from .._deferred import checked_at_end
from .._tensor import check_integer, check_number, plain_numbers
from ..batches import Batch
from ..evaluation import count_nfe, evaluating
from ..score import ScoreModel
from ..sde import Node
from .flow import check_points, log_prior
from .method import KNOWN, Likelihood, check_no_sets
from .trace.jacobian import flat_rows

__all__ = ["Ito"]


@dataclass(frozen=True)
class Ito:
    """Samples of the reverse SDE with log p by Itô's lemma, for `sample_with_log_prob`.

        log p(x(t_min)) ≈ log N(x(1); 0, prior_std² I) + ∫ (D f + ½ g² |s|²) dτ + ∫ g s·dB

    See the module for the derivation, for the steps, and for what the value means with a learned
    score: on average over paths it is above log p of the samples, never below.

    Error of each value: of order 1/√steps, at random, where an ODE's falls as fast as its solver's
    order. On average it is above by half its variance. `std_error` estimates it from the change of
    the score over each step, for an exact score; it does not know the errors of a network.

    steps + 1 evaluations, the last one only for `std_error`; no derivative pass; stochastic.

    Args:
        steps: Steps, at least 1. They are equal in the angle arctan(σ/(α d)).
        scale: d > 0 in (2); a good value is the geometric mean of the finest scale of the data and
            their standard deviation.
        t_min: Last time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: 1e-5, but not below the
            first discrete label of a network that has such labels (`ScoreModel.t_least`).

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If one is out of range.
    """

    steps: int = 500
    scale: float = 0.25
    t_min: float | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("steps", self.steps, minimum=1)
        check_number("scale", self.scale, above=0)

    @property
    def of_levels(self) -> bool:
        """Whether `log_prob` is a probability of quantized levels: no, a density of points."""
        return False

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse points, models and times that do not fit."""
        check_points(model, x)
        check_no_sets(model, "method must be an Ode")
        model.first_time(self.t_min)

    def start_std(self, model: ScoreModel) -> float:
        """Standard deviation of the states from which `draw` begins."""
        return model.sde.start_std(model.sde.t_regular)

    def draw(self, batch: Batch, start: Tensor) -> tuple[Tensor, Likelihood]:
        """The samples that begin at `start`, shape (B, *D), and their log-density."""
        model, t_min = batch.model, batch.model.first_time(self.t_min)
        ts = grid.arctan(model.sde, self.steps, t_min, model.sde.t_regular, self.scale)
        nodes = model.sde.nodes(ts)
        log_prob = log_prior(start.double(), self.start_std(model))
        x, variance = start, torch.zeros_like(log_prob)
        with evaluating(model), count_nfe(model) as counted, checked_at_end():
            eps = None
            for t, s in zip(nodes[:-1], nodes[1:], strict=True) if len(x) > 0 else ():
                eps = model.eps(x, t) if eps is None else eps
                z = batch.noise.increment(x, t.t, s.t)
                step = _Step.between(model, t, s, self.scale)
                x = step.move(x, eps, z)
                after = model.eps(x, s)
                log_prob = log_prob + step.change(eps, z)
                variance = variance + step.variance(eps, z, after)
                eps = after
        return x, Likelihood(
            log_prob=log_prob,
            std_error=variance.sqrt(),
            dof=torch.full_like(log_prob, KNOWN),
            correction=torch.zeros_like(log_prob),
            nfe=counted.forward,
            nfe_derivative=counted.derivative,
            t_min=t_min,
            t_max=model.sde.t_regular,
            method=self,
            latent=start,
        )


@dataclass(frozen=True)
class _Step:
    """One step of the chain (2), in numbers that do not cancel.

    Attributes:
        a: a = α_t/α_s.
        b: b = σ_{t|s}.
        c: c = b/σ_t.
        kappa: κ = a n_s/n_t.
        log_ratio: log(n_t/n_s).
        sigma: σ_s.
    """

    a: float
    b: float
    c: float
    kappa: float
    log_ratio: float
    sigma: float

    @classmethod
    def between(cls, model: ScoreModel, t: Node, s: Node, scale: float) -> _Step:
        """The step from t to s."""
        a, b = model.sde.transition(t, s)
        n_t, n_s = (math.hypot(node.alpha * scale, node.sigma) for node in (t, s))
        return cls(a, b, b / t.sigma, a * n_s / n_t, math.log(n_t / n_s), s.sigma)

    def move(self, x: Tensor, eps: Tensor, z: Tensor) -> Tensor:
        """x_s = (x_t − b c ε)/a + (b κ/a) z."""
        return (x / self.a).sub_(eps, alpha=self.b * self.c / self.a).add_(z, alpha=self._std)

    def change(self, eps: Tensor, z: Tensor) -> Tensor:
        """r_s − r_t of (3), in nats, shape (B,), float64."""
        forward, z = self._forward(eps, z), z.double()
        terms = 0.5 * flat_rows(forward - z) * flat_rows(forward + z)  # ½ (|forward|² − |z|²)
        return terms.sum(1) + terms.shape[1] * self.log_ratio

    def variance(self, eps: Tensor, z: Tensor, after: Tensor) -> Tensor:
        """Variance of the step's error, shape (B,), estimated by ½ |∇_z e|².

        e is (3) minus log p_s(x_s) + log p_t(x_t). Its gradient in z is

            ∇_z e = −z − κ (c ε − κ z) − (b κ/a) score(x_s, s)

        To leading order e is a quadratic form in z with a mean of 0, ½ (zᵀ M z − tr M). Its
        variance is ½ |M|², and the mean of |∇_z e|² = |M z|² is |M|².
        """
        gradient = self._forward(eps, z).mul_(-self.kappa).sub_(z.double())
        gradient.add_(after.double(), alpha=self._std / self.sigma)
        return 0.5 * flat_rows(gradient).square().sum(1)

    @property
    def _std(self) -> float:
        return self.b * self.kappa / self.a

    def _forward(self, eps: Tensor, z: Tensor) -> Tensor:
        """(x_t − a x_s)/b = c ε − κ z, the forward step's noise, float64."""
        return self.c * eps.double() - self.kappa * z.double()
