"""Denoising score matching: the error, its weighting and the distribution of the times.

    L = E_{t, x_0, ε} [ w(t) |ε̂(x_t, t) − ε|² / D ],   x_t = α(t) x_0 + σ(t) ε

Vincent 2011; Song et al. 2021, arXiv:2011.13456, eq. (7). The error is always measured in ε,
whatever the network's own target is, because |ε̂ − ε|² = σ² |score error|² = |x0 error|² (α/σ)².
So the weighting alone decides where the optimum is; the target decides how easily the network
reaches it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ._tensor import check_choice, check_integer, check_number, float64, plain_numbers
from .error_history import ErrorHistory
from .learned_bound import bound_term
from .score import ScoreModel
from .score.errors import squared_errors
from .score.sets import numbers_of_sets, only_present
from .sde import SDE, Node
from .training_loss import TrainingLoss

__all__ = ["Objective", "bound_term", "denoising_error"]

Weighting = Literal["simple", "likelihood", "edm", "min_snr", "velocity"]
Times = Literal["uniform", "log_snr", "log_normal", "logit_normal", "ladder", "second_moment"]

# What is finite at t = 1 where α(1) = 0.
_REGULAR_WEIGHTINGS = ("simple", "min_snr", "velocity")
_REGULAR_TIMES = ("uniform", "log_normal", "logit_normal", "ladder")


def denoising_error(model: ScoreModel, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """|ε̂(x_t, t) − ε|² summed over dimensions, at x_t = α x_0 + σ ε.

    Args:
        model: Score model.
        x0: Data, shape (B, *D).
        t: Times, shape (B,).
        eps: Standard normal noise like x0.

    Returns:
        Shape (B,). Its mean over ε is at least the irreducible D − σ² E|∇ log p_t|².
    """
    return squared_errors(model, "eps", x0, model.sde.at(t, x0), eps)[0].flatten(1).sum(1)


@dataclass(frozen=True)
class Objective(TrainingLoss):
    """A weighting w(t) and a distribution of t.

    Weightings, as factors of the ε error (σ̂ = σ/α, SNR = 1/σ̂²):

        simple      1                      λ = σ² on the score: NCSN, DDPM's L_simple
        likelihood  g²/σ²                  g² on the score: the bound on the log-likelihood
                                           (Song et al. 2021, arXiv:2101.09258)
        edm         (σ̂² + d²)/d²           Karras et al. 2022, arXiv:2206.00364, table 1; d = 1 is
                                           SNR + 1 on the x0 error, the error of v on VP
                                           (Salimans and Ho 2022, arXiv:2202.00512)
        min_snr     min(SNR, γ)/SNR        Hang et al. 2023, arXiv:2303.09556, section 3.4
        velocity    (σ′ − α′ σ/α)²         |û − u|² of u = α′ x_0 + σ′ ε: flow matching (Lipman et
                                           al. 2022, arXiv:2210.02747). Computed from û itself,
                                           because the factor is infinite where α = 0

    Times:

        uniform     t ~ U(t_min, 1)
        log_snr     λ uniform, and the loss divided by the resulting density of t. By importance
                    sampling this is the same objective as `uniform`. As g²/σ² = −2 dλ/dt, the
                    likelihood weighting becomes constant, and most of its variance vanishes.
        log_normal  log σ̂ ~ N(log_mean, log_std²), truncated to [t_min, 1]. This density is part of
                    the objective (EDM); the loss is not divided by it.
        logit_normal  t = 1/(1 + e^{−z}), z ~ N(log_mean, log_std²), truncated to [t_min, 1], t our
                    time, which is 1 at the noise. Esser et al. 2024, arXiv:2403.03206, section
                    3.1, also with t = 1 at the noise; 0 and 1 are usual. Under `Linear`, where
                    t/(1 − t) = σ̂, it is `log_normal`. The loss is not divided by this density.
        second_moment  λ with a density proportional to √E[L²], L the loss per unit of λ, measured
                    during the training, and the loss divided by the density of t. This is the same
                    objective as `uniform`; among such densities it gives the loss of one sample the
                    smallest variance (Nichol and Dhariwal 2021, arXiv:2102.09672, section 3.3).
        ladder      a uniform choice among the `levels` times of the discrete model. With the
                    weighting `simple` it is DDPM's L_simple on a `TabulatedVP` and, up to a
                    constant, NCSN's loss on VE.

    If α(1) = 0, the largest time is 1 where all of this is finite, and λ = −6 otherwise, which is
    `sde.t_regular`: for the weightings `likelihood` and `edm`, for the times `log_snr` and
    `second_moment`, and for a network that is not regular at t = 1 (`ScoreModel.t_most`).

    Args:
        weighting: One of the above.
        times: One of the above.
        t_min: Smallest time, in [0, 1); 0 only if σ(0) > 0. Not used by `ladder`. A network with
            discrete labels uses the time of its first label if that is larger.
        sigma_data: d of the EDM weighting.
        gamma: γ of min-SNR.
        log_mean: Mean of log σ̂ for `log_normal`, of z for `logit_normal`.
        log_std: Standard deviation of log σ̂ for `log_normal`, of z for `logit_normal`.
        levels: Number of times of `ladder`.
        vlb_weight: λ of the bound that trains a learned variance, see below.

    For a network with a learned variance the loss is L + λ L_vlb, `L_hybrid` of Nichol and Dhariwal
    2021, arXiv:2102.09672, eq. (16). L_vlb is DDPM's bound of the chain on the ladder, in which the
    mean of each step is held fixed, so that its gradient trains the variance alone. Their λ is
    0.001. It multiplies nats per dimension here, and bits per dimension in their code. Data with
    levels are dequantized, so that L_0 is a density.

    Raises:
        TypeError: If an argument is not a number, or `levels` not an integer.
        ValueError: If an argument is unknown or out of range.
    """

    weighting: Weighting = "simple"
    times: Times = "uniform"
    t_min: float = 1e-5
    sigma_data: float = 0.5
    gamma: float = 5.0
    log_mean: float = -1.2
    log_std: float = 1.2
    levels: int = 1000
    vlb_weight: float = 1e-3

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("weighting", self.weighting, get_args(Weighting))
        check_choice("times", self.times, get_args(Times))
        check_number("t_min", self.t_min, at_least=0, below=1)
        for name in ("sigma_data", "gamma", "log_std", "vlb_weight"):
            check_number(name, getattr(self, name), above=0)
        check_number("log_mean", self.log_mean)
        # A ladder is held in memory.
        check_integer("levels", self.levels, minimum=2, maximum=10**6)

    def check(self, sde: SDE, learned_variance: bool = False) -> None:
        """Raise unless every time the objective can draw has a score under this SDE.

        Args:
            sde: The forward process.
            learned_variance: Whether the model has a learned variance.

        Raises:
            ValueError: If σ(t_min) = 0, if a table of β does not have `levels` steps, if the noise
                levels of `log_normal` hardly overlap with those of the SDE, or if a variance is to
                be learned at times that are no ladder, or where α(1) = 0.
        """
        if learned_variance and sde.ends_in_noise:
            raise ValueError(
                f"learned_variance needs an SDE with α(1) > 0, got {type(sde).__name__}: the bound "
                "that trains it has infinite terms"
            )
        if learned_variance and self.times != "ladder":
            raise ValueError(
                "times must be 'ladder' for a network with learned_variance, whose variance is "
                f"that of the steps of a ladder, got {self.times!r}"
            )
        t, _ = self.draw_times(sde, float64([0.0, 1.0]))
        sde.nodes(t)

    def new_history(self, model: ScoreModel) -> ErrorHistory | None:
        """An empty history of errors if the distribution of t is learned, otherwise None."""
        if self.times != "second_moment":
            return None
        return ErrorHistory(model.sde, self._for(model).t_min)

    def draw_times(
        self,
        sde: SDE,
        u: Tensor,
        history: ErrorHistory | None = None,
        t_most: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Times from uniform draws, and the factor that corrects for their distribution.

        Args:
            sde: The forward process.
            u: Uniform draws in [0, 1], shape (B,), float64.
            history: The errors so far, for `second_moment`. Without them, and until every noise
                level has some, λ is uniform.
            t_most: Largest time at which the network can be evaluated.

        Returns:
            Times (B,) and factors (B,), float64. For `log_snr` and `second_moment` the factor is
            (uniform density)/(density of t), whose mean is 1; otherwise it is 1.
        """
        t_max = min(t_most, self._latest(sde))
        if self.times == "uniform":
            return self.t_min + u * (t_max - self.t_min), torch.ones_like(u)
        if self.times == "ladder":
            ladder = sde.ladder(self.levels).to(u.device, non_blocking=True)
            index = (u * self.levels).long().clamp(max=self.levels - 1)
            return ladder[index].clamp(max=t_max), torch.ones_like(u)
        if self.times == "logit_normal":
            z = self._normal(u, _logit(self.t_min), _logit(t_max), "logit(t)")
            return torch.sigmoid(z).clamp(self.t_min, t_max), torch.ones_like(u)
        first, last = sde.nodes([t_max, self.t_min])
        if self.times == "log_normal":
            lam = -self._normal(u, -last.lam, -first.lam, "log(σ/α)")
            return self._time(sde, lam, t_max), torch.ones_like(u)
        place, density = u, 1.0
        if history is not None:
            place, density = history.draw(u, self._loss_per_lam(sde, history.centres))
        span = last.lam - first.lam
        t = self._time(sde, first.lam + place * span, t_max)
        return t, span / _slope(sde, t) / (t_max - self.t_min) / density

    def _latest(self, sde: SDE) -> float:
        """The largest time at which weighting and density are finite."""
        regular = self.weighting in _REGULAR_WEIGHTINGS and self.times in _REGULAR_TIMES
        return 1.0 if regular else sde.t_regular

    def _loss_per_lam(self, sde: SDE, lam: Tensor) -> Tensor:
        """w(t) |dt/dλ|, the loss per unit of λ and of |ε̂ − ε|²."""
        t = self._time(sde, lam, sde.t_regular)
        return self.weight(sde.at(t, t)) / _slope(sde, t)

    def _for(self, model: ScoreModel) -> Objective:
        """The objective at times for which the network has labels."""
        return replace(self, t_min=max(self.t_min, model.t_least))

    def _time(self, sde: SDE, lam: Tensor, t_max: float) -> Tensor:
        # The rounded inverse may lie outside the interval.
        return sde.t_of_lam(lam).clamp(self.t_min, t_max)

    def _normal(self, u: Tensor, low: float, high: float, what: str) -> Tensor:
        """Quantile u of N(log_mean, log_std²) truncated to [low, high]."""
        ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
        first, last = torch.special.ndtr((ends - self.log_mean) / self.log_std).tolist()
        mass = last - first
        if mass < 1e-3:  # for a much smaller mass the quantile could not be computed
            raise ValueError(
                f"log_mean {self.log_mean} and log_std {self.log_std} must put at least 0.001 of "
                f"the draws in the range of {what}, {low:.3g}..{high:.3g}, got {mass:.1g}"
            )
        z = torch.special.ndtri(first + u * (last - first))
        return (self.log_mean + self.log_std * z).clamp(low, high)

    def weight(self, node: Node) -> Tensor:
        """w(t), the factor of |ε̂ − ε|², shaped like the node's entries."""
        if self.weighting == "likelihood":
            return (node.g / node.sigma) ** 2
        if self.weighting == "edm":
            return ((node.sigma / node.alpha) ** 2 + self.sigma_data**2) / self.sigma_data**2
        if self.weighting == "velocity":
            return (node.determinant / node.alpha) ** 2
        if self.weighting == "min_snr":
            return (self.gamma * (node.sigma / node.alpha) ** 2).clamp(max=1.0)
        return torch.ones_like(node.sigma)

    def __call__(
        self,
        model: ScoreModel,
        x0: Tensor,
        u: Tensor,
        eps: Tensor,
        history: ErrorHistory | None = None,
    ) -> tuple[Tensor, ...]:
        """Weighted error of each sample, per dimension.

        Args:
            model: Score model.
            x0: Data, shape (B, *D).
            u: Uniform draws in [0, 1] that choose the times, shape (B,), float64.
            eps: Standard normal noise like x0.
            history: As in `draw_times`; it is only read.

        Returns:
            Losses (B,), whose mean is L, or L_hybrid for a learned variance; times (B,); unweighted
            errors |ε̂ − ε|²/D (B,).
        """
        # A network with discrete labels has no label for times below the first one.
        t, factor = self._for(model).draw_times(model.sde, u, history, model.t_most)
        node = model.sde.at(t, x0)
        flow = self.weighting == "velocity"
        eps, dims = only_present(model, eps), numbers_of_sets(model, x0)
        squares, share = squared_errors(model, "velocity" if flow else "eps", x0, node, eps)
        weight = factor if flow else self.weight(node).flatten() * factor
        error = _mean(squares, dims)
        loss = weight.to(error) * error
        if flow:  # ε̂ − ε = α (û − u)/(α σ′ − α′ σ)
            error = error * (node.alpha / node.determinant).flatten().to(error).square()
        if share is not None:
            bound = self.levels * bound_term(model.sde, t, self.levels, squares.detach(), share)
            loss = loss + self.vlb_weight * bound
        return loss, t, error.detach()


def _mean(squares: Tensor, dims: Tensor | None) -> Tensor:
    """The mean over the elements of each sample, shape (B,); `dims` counts them for padded sets."""
    count = math.prod(squares.shape[1:]) if dims is None else dims.to(squares)
    return squares.flatten(1).sum(1) / count


def _logit(t: float) -> float:
    """log(t/(1 − t)), infinite at 0 and 1."""
    return math.inf if t == 1 else -math.inf if t == 0 else math.log(t / (1 - t))


def _slope(sde: SDE, t: Tensor) -> Tensor:
    """−dλ/dt = g²/(2σ²)."""
    return 0.5 * (sde.g(t) / sde.sigma(t)).square()
