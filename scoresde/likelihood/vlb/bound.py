"""Variational bounds on the log-likelihood: their common part, and the bound in continuous time.

    −log p(x) ≤ prior + diffusion + reconstruction
              = KL(q(x_1 | x) ‖ N(0, prior_std² I)) + Σ KL or ∫ + E[−log p(x | x_{t_min})]

They bound the likelihood of the *reverse SDE*. The reverse SDE is a different generative model from
the probability-flow ODE of `Path` and `Ode`. Only for an exact score is it known which of the two
gives the larger value.

For quantized data x is the centre of its cell, and t_min matters. A network that was trained on
dequantized data does not know the centres. Where σ/α is below the width w of a cell, the bound
loses log(w α/σ) nats per dimension, because it locates x more finely than the levels do. On the
digits (17 levels) `ContinuousVLB` gives 6.5 bits/dim at t_min = 1e-5, 3.1 at 1e-3, and 1.89 at
0.014, where σ/α = w/2. For comparison, the digits dequantized and given as continuous data have
1.90 at 1e-3, with `bits_offset` added.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from ..._deferred import checked_at_end
from ..._tensor import check_integer, check_type, float64, plain_numbers
from ...batches import Batch
from ...data.spec import DataSpec
from ...evaluation import count_nfe, evaluating
from ...noise import Noise
from ...score import FIRST_TIME, ScoreModel
from ...sde import SDE, Node
from ..dequantize import cell_centre
from ..method import Likelihood, LikelihoodMethod, check_data, check_exact
from .decoder import cell_log_prob
from .denoising import (
    DecoderNode,
    Denoising,
    Draw,
    WeightedNode,
    mean_and_variance,
    squared_norm,
)

__all__ = ["VLB", "ContinuousVLB", "Diffusion", "VariationalBound", "last_time"]


@dataclass(frozen=True, kw_only=True)
class VariationalBound(Likelihood):
    """A variational bound and its three parts, log_prob = −(prior + diffusion + reconstruction).

    `log_prob` is an unbiased estimate of a lower bound on the log-probability of quantized data, or
    on the log-density of continuous data. It has draws − 1 degrees of freedom. These are the
    reconstruction's, which has most of the random error.

    Attributes:
        prior: KL(q(x_T | x) ‖ N(0, prior_std² I)) (L_T of DDPM), exact, nats, shape (B,).
        steps: The terms of the part between the first and the last time, from noise to data, nats,
            shape (B, M): L_{t−1} of each step of a chain, or the sum over each stratum.
        reconstruction: −log p(x | x_{t_min}) (L_0), nats, shape (B,).
    """

    prior: Tensor
    steps: Tensor
    reconstruction: Tensor

    def shifted(self, log_det: Tensor) -> Self:
        """See `Likelihood.shifted`; the decoder's density is then in the units of the data."""
        return replace(super().shifted(log_det), reconstruction=self.reconstruction - log_det)

    @property
    def diffusion(self) -> Tensor:
        """The part between the first and the last time (Σ L_{t−1}), nats, shape (B,)."""
        return self.steps.sum(1)

    @property
    def terms(self) -> Tensor:
        """All terms in the order of the chain, whose sum is −log_prob: (B, M + 2)."""
        return torch.cat([self.prior[:, None], self.steps, self.reconstruction[:, None]], 1)


class Diffusion(Protocol):
    """The diffusion part of a bound,  Σ_m (E[w_m |ε − ε̂(x_t, t)|²] + D c_m),  and its decoder.

    Attributes:
        ends: The SDE at t = 1 (or the first time of a ladder) and at t_min.
        constants: c_m, nats per dimension that do not depend on the model, one for each term.
    """

    ends: tuple[Node, Node]
    constants: list[float]

    def decoder_std(self, share: Tensor | float | None) -> Tensor | float:
        """√v of the decoder p(x | x_{t_min}) = N(x̂_0, v I), v learned or a number."""

    def terms(self, x0: Tensor, noise: Noise, draws: int) -> Iterator[Sequence[Draw]]:
        """Independent draws for each term m, from noise to data."""


class VLB(LikelihoodMethod):
    """A variational bound of the reverse SDE.

        −log p(x) ≤ KL(q(x_1 | x) ‖ N(0, prior_std² I)) + diffusion + E[−log p(x | x_{t_min})]

    The decoder p(x | x_{t_min}) is N(x̂_0, v I). x̂_0 is the model's prediction, not clipped to the
    range of the data. For continuous data the decoder's density is used. For quantized data x_0 is
    the centre of the cell, and the decoder is integrated over the cell of each level.
    """

    spec: DataSpec | None
    draws: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("draws", self.draws, minimum=1)
        if self.spec is not None:
            check_type("spec", self.spec, DataSpec)
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")

    @property
    def of_levels(self) -> bool:
        """Whether the data have levels."""
        return self.spec is not None and self.spec.levels is not None

    @abstractmethod
    def diffusion(self, model: ScoreModel) -> Diffusion:
        """The diffusion part, checked for this model."""

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse data that do not fit the spec, and times at which the model is not exact."""
        check_data(x, self.spec)
        self.diffusion(model)

    def estimate(self, batch: Batch, x: Tensor) -> VariationalBound:
        """−log p(x) ≤ prior + Σ_m (E[w_m |ε − ε̂(x_t, t)|²] + D c_m) + E[−log p(x | x_{t_min})]."""
        model, noise = batch.model, batch.noise
        part, denoising = self.diffusion(model), self.denoising(batch, x)
        first, last = part.ends
        with evaluating(model), count_nfe(model) as counted, checked_at_end():
            prior = _prior(denoising, first, model.sde.prior_std)
            draws = part.terms(denoising.x0, noise, self.draws)
            terms = [denoising.term(of_term) for of_term in draws]
            values, variances = (torch.stack(column, 1) for column in zip(*terms, strict=True))
            steps = values + denoising.constants(part.constants)
            reconstruction, variance = self._decode(denoising, x, part)
        bound = -(prior + steps.sum(1) + reconstruction)
        return VariationalBound(
            log_prob=bound,
            std_error=(variances.sum(1) + variance).sqrt(),
            dof=torch.full_like(bound, max(self.draws - 1, 1)),
            correction=torch.zeros_like(bound),
            nfe=counted.forward,
            nfe_derivative=0,
            t_min=last.t,
            method=self,
            prior=prior,
            steps=steps,
            reconstruction=reconstruction,
        )

    def denoising(self, batch: Batch, x: Tensor) -> Denoising:
        """The denoising errors of one batch; quantized data are the centres of their cells."""
        if self.of_levels:
            return Denoising(batch.model, cell_centre(x, self.spec), batch.noise, self.dtype)
        return Denoising(batch.model, x.to(torch.float64), batch.noise, x.dtype)

    def _decode(self, denoising: Denoising, x: Tensor, part: Diffusion) -> tuple[Tensor, Tensor]:
        """E[−log p(x | x_t)] of the decoder at the last time, and its squared error, each (B,)."""
        last = part.ends[1]
        scale = last.sigma / last.alpha  # x̂_0 − x_0 = (σ/α)(ε − ε̂)
        if not self.of_levels:
            return denoising.term([DecoderNode(last, scale, part.decoder_std)] * self.draws)
        values = []
        for _ in range(self.draws):
            residual = denoising.residual(last)
            mean = denoising.x0 + scale * residual.difference
            std = part.decoder_std(residual.share)
            values.append(-cell_log_prob(x, mean, std, self.spec))
        return mean_and_variance(values)


@dataclass(frozen=True)
class ContinuousVLB(VLB):
    """The bound of the reverse SDE in continuous time, the limit of `DDPMVLB` for N → ∞ steps.

        diffusion = ∫ E|ε − ε̂(x_t, t)|² dλ   over λ(1) ≤ λ ≤ λ(t_min)

    Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630, eq. (17), with
    d log SNR = 2 dλ. The integral depends on the schedule only through its ends. λ is drawn per
    sample, uniform in each of `strata` intervals of equal length. The paper spreads the times over
    the batch instead, so that its value depends on batch mates.

    The reconstruction differs from the paper, which decodes each level from x_{t_min} without the
    network. We use the decoder of `DDPMVLB`, N(x̂_0, σ²(t_min) I), so that both bounds are
    comparable.

    The model must be exact at all times: rounded labels are refused.

    Args:
        spec: What the data are; see `DDPMVLB`.
        t_min: Last time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: for quantized data the
            time at which σ/α is half the width of a cell, for continuous data 1e-5; in any case
            at least 1e-5 and at least the time of the network's first discrete label.
        strata: Intervals of λ, at least 1; (strata + 1) · draws evaluations.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        dtype: See `DDPMVLB`.

    Raises:
        TypeError: If a setting has a wrong type.
        ValueError: If a setting is out of range.
    """

    spec: DataSpec | None = None
    t_min: float | None = None
    strata: int = 64
    draws: int = 2
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("strata", self.strata, minimum=1)

    def diffusion(self, model: ScoreModel) -> Diffusion:
        """The integral over λ, in equal strata."""
        check_exact(model)
        least = max(last_time(model.sde, self.spec), model.t_least)
        t_min = model.first_time(least if self.t_min is None else self.t_min)
        first, last = model.sde.nodes([1.0, t_min])
        return _Integral(model.sde, (first, last), self.strata)


@dataclass(frozen=True)
class _Integral:
    """∫ E|ε − ε̂(x_t, t)|² dλ between two nodes, λ uniform in each of `strata` equal intervals."""

    sde: SDE
    ends: tuple[Node, Node]
    strata: int

    @property
    def constants(self) -> list[float]:
        """All 0."""
        return [0.0] * self.strata

    def decoder_std(self, share: Tensor | float | None) -> float:
        """σ(t_min)."""
        return self.ends[1].sigma

    def terms(self, x0: Tensor, noise: Noise, draws: int) -> Iterator[list[WeightedNode]]:
        """One λ per sample for each draw of each interval, from noise to data."""
        first, last = self.ends
        width = (last.lam - first.lam) / self.strata
        for m in range(self.strata):
            lams = [first.lam + width * (m + noise.times(x0)) for _ in range(draws)]
            # the rounded result of t_of_lam may lie outside the interval
            times = [self.sde.t_of_lam(lam).clamp(last.t, first.t) for lam in lams]
            yield [WeightedNode(self.sde.at(t, x0), width) for t in times]


def last_time(sde: SDE, spec: DataSpec | None) -> float:
    """The last time of a bound: σ/α is half the width of a cell there; at least 1e-5.

    Args:
        sde: The SDE.
        spec: What the data are; None or without levels for continuous data, whose time is 1e-5.
    """
    if spec is None or spec.levels is None:
        return FIRST_TIME
    half = 0.5 * spec.span / spec.levels
    t = sde.t_of_lam(float64(-math.log(half)))
    return max(float(t), FIRST_TIME)


def _prior(denoising: Denoising, node: Node, std: float) -> Tensor:
    """KL(N(α x_0, σ² I) ‖ N(0, std² I)) of each sample."""
    log_ratio = 2 * math.log(node.sigma / std)
    spread = denoising.dims * (math.expm1(log_ratio) - log_ratio)
    return 0.5 * ((node.alpha / std) ** 2 * squared_norm(denoising.x0) + spread)
