"""DDPM's variational bound: the discrete reverse chain on any grid of any SDE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ..._condition import Condition
from ..._deferred import checked_at_end
from ..._tensor import check_choice, check_integer, expand, float64
from ...batches import batches
from ...data.spec import DataSpec
from ...evaluation import evaluating, own_context
from ...grid import check_grid, check_on_ladder
from ...noise import Noise
from ...score import ScoreModel
from ...sde import Node
from ...sde.reverse import UNLEARNED, FixedVariance, ReverseVariance, learned_std
from ..method import check_data
from .bound import VLB
from .denoising import Draw, LearnedNode, WeightedNode

__all__ = ["DDPMVLB", "ReverseChain", "optimal_variances"]


@dataclass(frozen=True)
class DDPMVLB(VLB):
    """DDPM's bound L_T + Σ L_{t−1} + L_0 of the reverse chain on a ladder of times.

        L_T     = KL(q(x_T | x_0) ‖ N(0, prior_std² I))
        L_{t−1} = E KL(q(x_s | x_t, x_0) ‖ N(μ(x_t), v_t I))      for each step from t to s
        L_0     = E[−log p(x_0 | x_1)]

    Ho et al. 2020, arXiv:2006.11239, eq. (5), for the chain with the exact transitions of any SDE
    (see `Ancestral`). μ is the mean of q(x_s | x_t, x̂_0). x̂_0 is the model's prediction, not
    clipped to the range of the data. p(x_0 | x_1) is N(x̂_0, v_1 I), for quantized data integrated
    over the cell of each level, eq. (13), as in `VLB`.

    The full sum takes (number of times) · draws evaluations. With `strata` each sample draws only
    this number of steps, stratified over λ. The probability of a step is proportional to its length
    in λ. The estimate is unbiased and takes (strata + 1) · draws evaluations.

    Args:
        times: A decreasing grid of N ≥ 2 times, or N for `sde.ladder(N)`. A model with rounded
            labels needs times of its own ladder.
        spec: What the data are; None for continuous data of any shape. Data with levels are given
            as integers, others as float32 or float64.
        variance: v of each step: "beta" (σ²_{t|s}), "beta_tilde" (that of q(x_s | x_t, x_0)),
            "learned" (between both, by a network with a learned variance; that of the decoder is
            between β_1 and β̃_2), or N numbers of your own, the last one for the decoder; see
            `optimal_variances`.
        decoder: v_1, where β̃ is 0 and cannot be used: "beta" (the default) for β_1, or
            "beta_tilde" for β̃_2 of the step before. The code of Ho et al. uses β̃_2 with either
            variance, because it gives quantized data a better L_0. Only with the variance "beta" or
            "beta_tilde".
        strata: Steps drawn per sample, at least 1; None = all of them.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        dtype: Dtype in which the model sees quantized data, float32 or float64; continuous data
            keep their dtype.

    Raises:
        TypeError: If a setting has a wrong type.
        ValueError: If a setting is out of range, or `times` is not a grid.
    """

    times: Sequence[float] | Tensor | int
    spec: DataSpec | None = None
    variance: ReverseVariance | Sequence[float] | Tensor = "beta"
    decoder: FixedVariance | None = None
    strata: int | None = None
    draws: int = 2
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.times, int):
            check_integer("times", self.times, minimum=2)
        else:
            object.__setattr__(self, "times", tuple(check_grid(self.times).tolist()))
        if self.strata is not None:
            check_integer("strata", self.strata, minimum=1)
        if self.decoder is not None:
            check_choice("decoder", self.decoder, get_args(FixedVariance))
        if isinstance(self.variance, str):
            check_choice("variance", self.variance, get_args(ReverseVariance))
        else:
            object.__setattr__(self, "variance", _positive(self.variance))
        if self.decoder is not None and self.variance not in get_args(FixedVariance):
            raise ValueError("decoder must be None, because variance holds the decoder's")

    def diffusion(self, model: ScoreModel) -> ReverseChain:
        """The chain on the times, or on the ladder of the model.

        Raises:
            ValueError: If σ = 0 at a time, the model's labels are rounded and a time is not on its
                ladder, the variances are not one per time, or the model has no learned variance.
        """
        if self.variance == "learned" and not model.learned_variance:
            raise ValueError(UNLEARNED)
        sde, times = model.sde, self.times
        ts = check_grid(sde.ladder(times) if isinstance(times, int) else times)
        if model.snapped:
            check_on_ladder(sde, ts)
        model.check_last(float(ts[-1]))
        nodes = sde.nodes(ts)
        betas, posterior, gains = [], [], []
        for t, s in pairwise(nodes):
            a, b = sde.transition(t, s)
            betas.append(b**2)
            posterior.append((b * s.sigma / t.sigma) ** 2)
            gains.append(b**2 / (a * t.sigma))
        gains.append(nodes[-1].sigma / nodes[-1].alpha)
        largest = [*betas, nodes[-1].sigma ** 2]
        variances = self._named(largest, posterior)
        if len(variances) != len(nodes):
            raise ValueError(f"variance must have shape ({len(nodes)},), got ({len(variances)},)")
        ratios = None
        if self.variance == "learned":
            least = [*posterior, posterior[-1]]
            ratios = [math.sqrt(p / v) for p, v in zip(least, largest, strict=True)]
        return ReverseChain(nodes, posterior, gains, list(variances), self.strata, ratios)

    def _named(self, largest: list[float], posterior: list[float]) -> Sequence[float]:
        """v of each step and of the decoder; the largest one if it is learned."""
        if not isinstance(self.variance, str):
            return self.variance
        last = posterior[-1] if self.decoder == "beta_tilde" else largest[-1]
        return [*(posterior if self.variance == "beta_tilde" else largest[:-1]), last]


@dataclass(frozen=True)
class ReverseChain:
    """p(x_s | x_t) = N(μ, v I) for each step of a grid, and the decoder N(x̂_0, v_1 I) at its end.

    The term of a step is KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) with q = N(μ̃, β̃ I):

        KL = (κ²/2v) |ε − ε̂|² + D/2 (β̃/v − 1 − log(β̃/v)),   κ = β/(a σ_t),   a = α_t/α_s

    because μ̃ − μ = κ (ε̂ − ε); β = σ²_{t|s}, β̃ = β σ_s²/σ_t². Ho et al. 2020, arXiv:2006.11239,
    eq. (7) and section 3.2.

    Attributes:
        nodes: The SDE at the N times, decreasing.
        posterior: β̃ of the N − 1 steps.
        gains: κ of the N − 1 steps, then σ/α at t_min, with x̂_0 − x_0 = (σ/α)(ε − ε̂).
        variances: v of the N − 1 steps and of the decoder; for a learned variance v at w = 1.
        strata: How many steps each sample draws; None for all steps.
        ratios: √v at w = 0, as a share of √v at w = 1, for each of these; None for a variance that
            is not learned. See `learned_std`.
    """

    nodes: list[Node]
    posterior: list[float]
    gains: list[float]
    variances: list[float]
    strata: int | None
    ratios: list[float] | None = None

    @property
    def ends(self) -> tuple[Node, Node]:
        """The SDE at the first time and at t_min."""
        return self.nodes[0], self.nodes[-1]

    def decoder_std(self, share: Tensor | float | None) -> Tensor | float:
        """√v_1."""
        std = math.sqrt(self.variances[-1])
        return std if self.ratios is None else learned_std(std, self.ratios[-1], share)

    @property
    def constants(self) -> list[float]:
        """The part of each term that does not depend on the model: ½ (r − 1 − log r), r = β̃/v.

        For a learned variance it depends on the model, and is 0 here.
        """
        if self.ratios is not None:
            return [0.0] * (self.strata or len(self.posterior))
        log_r = [math.log(p / v) for p, v in zip(self.posterior, self.variances, strict=False)]
        return np.diff(self._at_edges([0.5 * (math.expm1(r) - r) for r in log_r])).tolist()

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """Where the M terms lie: the M + 1 times between them, and the number of steps of each."""
        times = [t.t - s.t for t, s in pairwise(self.nodes)]
        edges = self.nodes[0].t - self._at_edges(times)
        return float64(edges), float64(np.diff(self._at_edges([1.0] * len(times))))

    def _at_edges(self, values: Sequence[float]) -> np.ndarray:
        """Running sums of values of the steps, at the first time and after each term, (M + 1,).

        An edge of a stratum divides a step in proportion to its probability.
        """
        sums = np.concatenate([[0.0], np.cumsum(values)])
        if self.strata is None:
            return sums
        lams = [node.lam for node in self.nodes]
        return np.interp(np.linspace(lams[0], lams[-1], self.strata + 1), lams, sums)

    def optimum(self, errors: Tensor) -> Tensor:
        """v of least KL, given E|ε − ε̂|²/D at each time: β̃ + κ² E|ε − ε̂|²/D; shape (N,)."""
        return float64([*self.posterior, 0.0]) + float64(self.gains) ** 2 * errors

    def terms(self, x0: Tensor, noise: Noise, draws: int) -> Iterator[list[Draw]]:
        """The weights κ²/2v of |ε − ε̂|², from noise to data, with independent draws of each.

        For a learned variance it is the KL instead of κ²/2v |ε − ε̂|².

        Without strata every step comes once. With strata the steps are drawn per sample, with
        probability P ∝ h = λ_s − λ_t and the factor 1/(strata · P). For a good model the term of a
        step is at most about D h, as in the continuous-time bound, so that the weighted terms have
        similar sizes on any grid. Each stratum is an interval of the distribution function. The sum
        of their terms is an unbiased estimate of the sum over all steps.
        """
        if self.strata is None:
            for node, step in zip(self.nodes, self._steps(), strict=False):
                yield [self._draw(node, step)] * draws
            return
        table = torch.tensor(self._steps(), dtype=torch.float64, device=x0.device).T
        columns = torch.tensor(self.nodes, dtype=torch.float64, device=x0.device).T
        steps = columns[Node._fields.index("lam")].diff()
        edges = torch.cumsum(steps, 0) / steps.sum()
        share = self.strata * steps / steps.sum()
        for m in range(self.strata):
            u = [(m + noise.times(x0)) / self.strata for _ in range(draws)]
            chosen = [torch.searchsorted(edges, v, right=True).clamp(max=len(steps) - 1) for v in u]
            yield [
                self._draw(Node(*(expand(c[i], x0) for c in columns)), table[:, i], 1 / share[i])
                for i in chosen
            ]

    def _steps(self) -> list[tuple[float, ...]]:
        """κ and v of each step, and with a learned variance β̃ and √(β̃/β)."""
        columns = [self.gains[:-1], self.variances[:-1]]
        if self.ratios is not None:
            columns += [self.posterior, self.ratios[:-1]]
        return list(zip(*columns, strict=True))

    def _draw(
        self, node: Node, step: Sequence[float] | Tensor, count: Tensor | float = 1.0
    ) -> Draw:
        """The term of a step, `count` times."""
        gain, variance, *learned = step
        if not learned:
            return WeightedNode(node, count * 0.5 * gain**2 / variance)
        return LearnedNode(node, gain, variance**0.5, *learned, count)


@own_context()
def optimal_variances(
    model: ScoreModel,
    x: Tensor,
    method: DDPMVLB,
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Condition | None = None,
    batch: int | None = None,
) -> Tensor:
    """The reverse variances that minimize `DDPMVLB` of continuous data, estimated from data.

        v = β̃ + (∂μ/∂x̂_0)² E|x_0 − x̂_0|²/D   for each step, and E|x_0 − x̂_0|²/D for the decoder

    These are optimal among variances with one number per step. For an exact model they are those
    of Bao et al. 2022, "Analytic-DPM", arXiv:2201.06503. Estimate them on data that will not be
    scored: variances fitted to the test set do not give a bound. For quantized data the decoder's
    variance is optimal for the density at the centres, not for the integral over cells.

    Args:
        model: Score model.
        x: Data to average over, shape (n, *D), n ≥ 1.
        method: Gives times, spec, dtype, and draws of the noise per sample and time. Its variances
            are not used.
        seed: As for `log_likelihood`.
        noise: As for `log_likelihood`.
        y: As for `log_likelihood`.
        batch: As for `log_likelihood`.

    Returns:
        v of every step of the grid and of the decoder, shape (N,), float64: the argument `variance`
        of `DDPMVLB`.

    Raises:
        TypeError: As for `log_likelihood`.
        ValueError: As for `log_likelihood`, or if there are no data.
        RuntimeError: If the network is not finite.
    """
    check_data(x, method.spec)
    if len(x) == 0:
        raise ValueError("x must hold at least one datum, got none")
    chain = method.diffusion(model)
    numbers = 0.0
    sums = torch.zeros(len(chain.nodes), dtype=torch.float64, device=x.device)
    parts = batches(model, len(x), x.device, seed=seed, noise=noise, y=y, batch=batch)
    with evaluating(model), checked_at_end():
        for part in parts:
            denoising = method.denoising(part, x[part.rows])
            numbers += denoising.numbers
            for i, node in enumerate(chain.nodes):
                squares = [denoising.residual(node).square for _ in range(method.draws)]
                sums[i] += torch.stack(squares).mean(0).sum()
    return chain.optimum(sums.cpu() / numbers)


def _positive(variance: Sequence[float] | Tensor) -> tuple[float, ...]:
    """Variances as numbers, checked."""
    values = torch.as_tensor(variance, dtype=torch.float64)
    if values.ndim != 1:
        raise ValueError(f"variance must have shape (N,), got {tuple(values.shape)}")
    bad = next((v for v in values.tolist() if not (math.isfinite(v) and v > 0)), None)
    if bad is not None:
        raise ValueError(f"variance must be finite and greater than 0, got {bad}")
    return tuple(values.tolist())
