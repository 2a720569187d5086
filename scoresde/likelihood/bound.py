"""Variational bounds on the log-likelihood: DDPM's discrete one and the continuous-time one.

    −log p(x) ≤ prior + diffusion + reconstruction
              = KL(q(x_T | x) ‖ N(0, prior_std² I)) + Σ KL or ∫ + E[−log p(x | x_{t_min})]

They bound the likelihood of the *reverse SDE*, a generative model other than the
probability-flow ODE of `Path` and `Ode`: which of the two values is larger is not settled unless
the score is exact.

For quantized data x is the centre of its cell, and the end of the ladder matters. A network
trained on dequantized data does not know the centres; where σ/α is below the cell's width w it
pays log(w α/σ) nats per dimension for a precision that the levels do not have. On the digits (17
levels) `ContinuousVLB` gives 6.5 bits/dim at t_min = 1e-5, 3.1 at 1e-3 and 1.89 at 0.014, where
σ/α = w/2; dequantized first, given as continuous data, 1.90 at 1e-3 with `bits_offset` added.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from .._tensor import check_integer, float64, plain_numbers
from ..batches import Batch, batches
from ..data.spec import DataSpec
from ..evaluation import count_nfe, evaluating, own_context
from ..grid import check_grid
from ..noise import Noise
from ..score import FIRST_TIME, ScoreModel
from ..sde import SDE, Node
from .chain import ReverseChain, Variance
from .decoder import cell_log_prob
from .denoising import Denoising, WeightedNode, mean_and_variance, squared_norm
from .dequantize import cell_centre
from .method import Likelihood, LikelihoodMethod

__all__ = ["ContinuousVLB", "DDPMVLB", "VariationalBound", "last_time", "optimal_variances"]


@dataclass(frozen=True, kw_only=True)
class VariationalBound(Likelihood):
    """A variational bound and its three parts, log_prob = −(prior + diffusion + reconstruction).

    `log_prob` is an unbiased estimate of a lower bound: on the log-probability of the levels for
    quantized data, on the log-density at the scale of x else. Its degrees of freedom are those of
    the reconstruction, draws − 1: most of the random error is the reconstruction's.

    Attributes:
        prior: KL(q(x_T | x) ‖ N(0, prior_std² I)) (L_T of DDPM), exact, nats, shape (B,).
        diffusion: The part between the first and the last time (Σ L_{t−1}), nats, shape (B,).
        reconstruction: −log p(x | x_{t_min}) (L_0), nats, shape (B,).
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor


class _VLB(LikelihoodMethod):
    """A variational bound; its parameters `spec`, `draws` and `dtype` are those of `DDPMVLB`."""

    spec: DataSpec | None
    draws: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("draws", self.draws, minimum=1)
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")

    @property
    def of_levels(self) -> bool:
        """Whether the data have levels."""
        return _quantized(self.spec) is not None

    @abstractmethod
    def _steps(self, model: ScoreModel) -> ReverseChain | _Integral:
        """The diffusion part as a sum of weighted denoising errors, checked for this model."""

    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse data that are not those of the spec, and times that the model does not know."""
        _check_data(x, self.spec)
        self._steps(model)

    def estimate(self, batch: Batch, x: Tensor) -> VariationalBound:
        """−log p(x) ≤ prior + Σ_m E[w_m |ε − ε̂(x_t, t)|²] + constant + E[−log p(x | x_{t_min})]."""
        model, noise = batch.model, batch.noise
        steps, errors = self._steps(model), self.errors(batch, x)
        first, last = steps.ends
        with evaluating(model), count_nfe(model) as counted:
            prior = _prior(errors.x0, first, model.sde.prior_std)
            terms = [errors.term(draws) for draws in steps.terms(errors.x0, noise, self.draws)]
            sums, variances = (torch.stack(column).sum(0) for column in zip(*terms, strict=True))
            diffusion = sums + errors.dims * steps.constant
            reconstruction, variance = self._decode(errors, x, last, steps.variances[-1])
        bound = -(prior + diffusion + reconstruction)
        return VariationalBound(
            log_prob=bound,
            std_error=(variances + variance).sqrt(),
            dof=torch.full_like(bound, max(self.draws - 1, 1)),
            correction=torch.zeros_like(bound),
            latent=None,
            counts=None,
            nfe=counted.forward,
            nfe_derivative=0,
            t_min=last.t,
            method=self,
            prior=prior,
            diffusion=diffusion,
            reconstruction=reconstruction,
        )

    def errors(self, batch: Batch, x: Tensor) -> Denoising:
        """The denoising errors of one batch, of quantized data at the centres of the cells."""
        if self.of_levels:
            return Denoising(batch.model, cell_centre(x, self.spec), batch.noise, self.dtype)
        return Denoising(batch.model, x.to(torch.float64), batch.noise, x.dtype)

    def _decode(
        self, errors: Denoising, x: Tensor, last: Node, variance: float
    ) -> tuple[Tensor, Tensor]:
        """E[−log p(x | x_t)] under N(x̂_0, variance I), and its squared error, each (B,)."""
        scale = last.sigma / last.alpha  # x̂_0 − x_0 = (σ/α)(ε − ε̂)
        if not self.of_levels:
            draws = [WeightedNode(last, 0.5 * scale**2 / variance)] * self.draws
            squares, error = errors.term(draws)
            return squares + 0.5 * errors.dims * math.log(2 * math.pi * variance), error
        values = []
        for _ in range(self.draws):
            mean = errors.x0 + scale * errors.residual(last).difference
            values.append(-cell_log_prob(x, mean, math.sqrt(variance), self.spec))
        return mean_and_variance(values)


@dataclass(frozen=True)
class DDPMVLB(_VLB):
    """DDPM's bound L_T + Σ L_{t−1} + L_0 of the reverse chain on a ladder of times.

        L_T     = KL(q(x_T | x_0) ‖ N(0, prior_std² I))
        L_{t−1} = E KL(q(x_s | x_t, x_0) ‖ N(μ(x_t), v_t I))      for each step from t to s
        L_0     = E[−log p(x_0 | x_1)]

    Ho et al. 2020, arXiv:2006.11239, eq. (5), for the chain with the exact transitions of any SDE
    (see `Ancestral`); μ is the mean of q(x_s | x_t, x̂_0), x̂_0 the model's, not clipped to the
    data's range. p(x_0 | x_1) is N(x̂_0, v_1 I): its density for continuous data, its integral
    over the cell of each level, eq. (13), for quantized ones, whose x_0 are the cells' centres.

    The full sum needs (number of times) · draws evaluations. With `strata` each sample draws so
    many of the steps instead, stratified over λ with probability proportional to the step's
    length in λ: unbiased, (strata + 1) · draws evaluations.

    Args:
        times: A decreasing grid of N ≥ 2 times, or N for `sde.ladder(N)`. A model of rounded
            labels needs times of its own ladder.
        spec: What the data are; None for continuous data of any shape. Data with levels are given
            as integers, others as float32 or float64.
        variance: v of each step: "beta" (σ²_{t|s}) or "beta_tilde" (that of q(x_s | x_t, x_0)),
            or N numbers of your own, the last one the decoder's; see `optimal_variances`.
        decoder: v_1, where β̃ = 0: "beta" (the default) for β_1, or "beta_tilde" for β̃_2 of the
            step before, which the code of Ho et al. takes with either variance because it gives
            quantized data a better L_0. Only with a named `variance`.
        strata: Steps drawn per sample, at least 1; None = all of them.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        dtype: In which the model sees quantized data, float32 or float64; others keep theirs.

    Raises:
        TypeError: If a setting is of another type.
        ValueError: On a setting out of range or a grid that is none.
    """

    times: Sequence[float] | Tensor | int
    spec: DataSpec | None = None
    variance: Variance | Sequence[float] | Tensor = "beta"
    decoder: Variance | None = None
    strata: int | None = None
    draws: int = 2
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.times, int):
            object.__setattr__(self, "times", tuple(check_grid(self.times).tolist()))
        if self.strata is not None:
            check_integer("strata", self.strata, minimum=1)
        if not isinstance(self.variance, str):
            if self.decoder is not None:
                raise ValueError("decoder must be None with variances of your own, which hold it")
            object.__setattr__(self, "variance", _positive(self.variance))
        named = {"variance": self.variance, "decoder": self.decoder or "beta"}
        for name, value in named.items():
            if isinstance(value, str) and value not in get_args(Variance):
                raise ValueError(f"{name} must be 'beta' or 'beta_tilde', got {value!r}")

    def _steps(self, model: ScoreModel) -> ReverseChain:
        """The chain's table."""
        return ReverseChain.build(model, self.times, self.variance, self.decoder, self.strata)


@dataclass(frozen=True)
class ContinuousVLB(_VLB):
    """The bound of the reverse SDE in continuous time, the limit of `DDPMVLB` for ever more steps.

        diffusion = ∫ E|ε − ε̂(x_t, t)|² dλ   over λ(1) ≤ λ ≤ λ(t_min)

    Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630, eq. (17), with
    d log SNR = 2 dλ; it does not depend on the schedule but for its ends. λ is drawn per sample,
    uniform in each of `strata` intervals of equal length; the paper spreads the times over the
    batch instead, so that its value depends on batch mates.

    We depart from the paper in the reconstruction: the decoder is that of `DDPMVLB`,
    N(x̂_0, σ²(t_min) I) integrated over the cells of quantized data, so that both bounds are of
    one kind. The paper decodes each level from x_{t_min} without the network.

    The model must be right at all times: rounded labels are refused.

    Args:
        spec: What the data are; see `DDPMVLB`.
        t_min: Last time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: where σ/α is half the
            width of a cell for quantized data, but at least 1e-5; 1e-5 for continuous data; never
            below the first discrete label of a network that has such labels.
        strata: Intervals of λ, at least 1; (strata + 1) · draws evaluations.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        dtype: See `DDPMVLB`.

    Raises:
        TypeError: If a setting is of another type.
        ValueError: On a setting out of range.
    """

    spec: DataSpec | None = None
    t_min: float | None = None
    strata: int = 64
    draws: int = 2
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("strata", self.strata, minimum=1)

    def _steps(self, model: ScoreModel) -> _Integral:
        """λ(1) … λ(t_min) in equal strata."""
        if model.snapped:
            raise ValueError(
                "model must be exact at every time, got one with rounded labels, which are wrong "
                "between its discrete times; use the label 'index', or DDPMVLB on its ladder"
            )
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
    constant: ClassVar[float] = 0.0

    @property
    def variances(self) -> list[float]:
        """Of the decoder."""
        return [self.ends[1].sigma ** 2]

    def terms(self, x0: Tensor, noise: Noise, draws: int) -> Iterator[list[WeightedNode]]:
        """One λ per sample for each draw of each interval, from noise to data."""
        first, last = self.ends
        width = (last.lam - first.lam) / self.strata
        for m in range(self.strata):
            lams = [first.lam + width * (m + noise.times(x0)) for _ in range(draws)]
            # rounding in t_of_lam may leave the interval
            times = [self.sde.t_of_lam(lam).clamp(last.t, first.t) for lam in lams]
            yield [WeightedNode(self.sde.at(t, x0), width) for t in times]


@own_context()
def optimal_variances(
    model: ScoreModel,
    x: Tensor,
    method: DDPMVLB,
    *,
    seed: int | None = None,
    noise: Noise | None = None,
    y: Tensor | None = None,
    batch: int | None = None,
) -> Tensor:
    """The reverse variances that make `DDPMVLB` of continuous data least, estimated from data.

        v = β̃ + (∂μ/∂x̂_0)² E|x_0 − x̂_0|²/D   for each step, and E|x_0 − x̂_0|²/D for the decoder

    The optimum over one number per step; for an exact model it is that of Bao et al. 2022,
    "Analytic-DPM", arXiv:2201.06503. Take other data for it than those to be scored: fitted to
    the test set it would no longer be a model's bound. For quantized data the decoder's variance
    is that of the centres, of which the cells are not aware.

    Args:
        model: Score model.
        x: Data to average over, shape (n, *D), n ≥ 1.
        method: Times, spec, dtype, and draws of the noise per sample and time; its variances do
            not matter.
        seed: This and what follows are as for `log_likelihood`.
        noise: See there.
        y: See there.
        batch: See there.

    Returns:
        v of every step of the grid and of the decoder, shape (N,), float64, to be given to
        `DDPMVLB` as `variance`.

    Raises:
        TypeError: As for `log_likelihood`.
        ValueError: As for `log_likelihood`, or if there are no data.
        RuntimeError: If the network is not finite.
    """
    _check_data(x, method.spec)
    if len(x) == 0:
        raise ValueError("x must hold at least one datum, got none")
    chain = ReverseChain.build(model, method.times)
    sums = torch.zeros(len(chain.nodes), dtype=torch.float64, device="cpu")
    parts = batches(model, len(x), x.device, seed=seed, noise=noise, y=y, batch=batch)
    with evaluating(model):
        for part in parts:
            errors = method.errors(part, x[part.rows])
            for i, node in enumerate(chain.nodes):
                squares = [errors.residual(node).square for _ in range(method.draws)]
                sums[i] += torch.stack(squares).mean(0).sum().cpu()
    return chain.optimum(sums / x.numel())


def last_time(sde: SDE, spec: DataSpec | None) -> float:
    """The last time of a bound: where σ/α is half the width of a cell, and at least 1e-5.

    Args:
        sde: The SDE.
        spec: What the data are; None or without levels for continuous data, whose time is 1e-5.
    """
    if _quantized(spec) is None:
        return FIRST_TIME
    half = 0.5 * spec.span / spec.levels
    t = sde.t_of_lam(float64(-math.log(half)))
    return max(float(t), FIRST_TIME)


def _quantized(spec: DataSpec | None) -> DataSpec | None:
    """The spec of quantized data, None for continuous ones."""
    return None if spec is None or spec.levels is None else spec


def _check_data(x: Tensor, spec: DataSpec | None) -> None:
    """Raise unless x has the spec's shape, and holds its levels or finite floats."""
    if x.ndim == 0 or math.prod(x.shape[1:]) < 1:
        raise ValueError(f"x must have shape (B, *D) with every D ≥ 1, got {tuple(x.shape)}")
    if spec is not None and tuple(x.shape[1:]) != spec.shape:
        wanted = ", ".join(["B", *map(str, spec.shape)])
        raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
    if _quantized(spec) is not None:
        spec.encode(x)  # refuses what is no level
        return
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64 (levels need their spec), got {x.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"x must be finite, got {int((~torch.isfinite(x)).sum())} values not")


def _positive(variance: Sequence[float] | Tensor) -> tuple[float, ...]:
    """Variances as numbers, checked."""
    values = torch.as_tensor(variance, dtype=torch.float64)
    if values.ndim != 1:
        raise ValueError(f"variance must have shape (N,), got {tuple(values.shape)}")
    bad = next((v for v in values.tolist() if not (math.isfinite(v) and v > 0)), None)
    if bad is not None:
        raise ValueError(f"variance must be finite and greater than 0, got {bad}")
    return tuple(values.tolist())


def _prior(x0: Tensor, node: Node, std: float) -> Tensor:
    """KL(N(α x_0, σ² I) ‖ N(0, std² I)) of each sample."""
    log_ratio = 2 * math.log(node.sigma / std)
    spread = math.prod(x0.shape[1:]) * (math.expm1(log_ratio) - log_ratio)
    return 0.5 * ((node.alpha / std) ** 2 * squared_norm(x0) + spread)
