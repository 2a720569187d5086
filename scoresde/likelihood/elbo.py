"""Variational bounds on the log-likelihood: DDPM's discrete one and the continuous-time one.

    −log p(x) ≤ prior + diffusion + reconstruction
              = KL(q(x_T | x) ‖ N(0, prior_std² I)) + Σ KL or ∫ + E[−log p(x | x_{t_min})]

They bound the likelihood of the *reverse SDE*, a generative model other than the
probability-flow ODE of `log_likelihood`: which of the two values is larger is not settled unless
the score is exact.

For quantized data x is the centre of its cell, and the end of the ladder matters. A network
trained on dequantized data does not know the centres; where σ/α is below the cell's width w it
pays log(w α/σ) nats per dimension for a precision that the levels do not have. On the digits (17
levels) `continuous_vlb` gives 6.5 bits/dim at t_min = 1e-5, 3.1 at 1e-3 and 1.89 at 0.014, where
σ/α = w/2; dequantized first, given as continuous data, 1.90 at 1e-3 with `bits_offset` added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .._tensor import check_integer, float64
from ..data.spec import DataSpec
from ..evaluation import evaluating, own_context
from ..noise import Noise
from ..score import FIRST_TIME, ScoreModel
from ..sde import SDE, Node
from .denoising import Denoising, Draw
from .reverse_chain import ReverseChain, Variance
from .variational import VLB, BoundData

__all__ = [
    "VLB",
    "VLB_CONTINUOUS",
    "VLB_DDPM",
    "continuous_vlb",
    "ddpm_vlb",
    "last_time",
    "optimal_variances",
]

VLB_DDPM = "vlb-ddpm"
VLB_CONTINUOUS = "vlb-continuous"


@own_context()
def ddpm_vlb(
    model: ScoreModel,
    x: Tensor,
    ts: Tensor | int,
    *,
    spec: DataSpec | None = None,
    variance: Variance | Tensor = "beta",
    decoder: Variance | None = None,
    strata: int | None = None,
    draws: int = 2,
    y: Tensor | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> VLB:
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
    length in λ: unbiased, (strata + 1) · draws evaluations. Sample i depends on (seed, i) alone.

    Args:
        model: Score model; one of rounded labels needs times of its own ladder.
        x: Integer levels for a spec with levels, float32 or float64 data else; shape (B, *D).
        ts: A decreasing grid of N ≥ 2 times, or N for `sde.ladder(N)`.
        spec: Range and levels of quantized data; None or without levels for continuous data.
        variance: v of each step: "beta" (σ²_{t|s}) or "beta_tilde" (that of q(x_s | x_t, x_0)),
            or N numbers of your own, the last one the decoder's; see `optimal_variances`.
        decoder: v_1, where β̃ = 0: "beta" (the default) for β_1, or "beta_tilde" for β̃_2 of the
            step before, which the code of Ho et al. takes with either variance because it gives
            quantized data a better L_0. Only with a named `variance`.
        strata: Steps drawn per sample, at least 1; None = all of them.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        y: Class labels, shape (B,), for a conditional model.
        seed: Integer in [0, 2^64); one stream per sample.
        noise: A source of your own instead of `seed`; then `batch` must be None.
        batch: Samples at a time; None = all at once.
        dtype: In which the model sees quantized data, float32 or float64; others keep theirs.

    Returns:
        The bound per sample; empty for B = 0.

    Raises:
        TypeError: If x does not hold integers (spec with levels) or floats (without), or dtype is
            neither float32 nor float64.
        ValueError: On a bad argument, a time at which σ = 0, or rounded labels off the ladder.
        RuntimeError: If the network is not finite.
    """
    chain = ReverseChain.build(model, ts, variance, decoder)
    data = BoundData(model, x, spec, y, seed, noise, batch, draws, dtype)
    terms = chain.all_terms
    if strata is not None:
        strata = check_integer("strata", strata, minimum=1)
        terms = partial(chain.drawn_terms, strata=strata)
    return data.bound(
        terms,
        first=chain.nodes[0],
        last=chain.nodes[-1],
        variance=chain.variances[-1],
        constant=chain.constant(data.dims),
        protocol=VLB_DDPM,
        settings=chain.settings | {"strata": strata},
    )


@own_context()
def continuous_vlb(
    model: ScoreModel,
    x: Tensor,
    *,
    spec: DataSpec | None = None,
    t_min: float | None = None,
    strata: int = 64,
    draws: int = 2,
    y: Tensor | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> VLB:
    """The bound of the reverse SDE in continuous time, the limit of `ddpm_vlb` for ever more steps.

        diffusion = ∫ E|ε − ε̂(x_t, t)|² dλ   over λ(1) ≤ λ ≤ λ(t_min)

    Kingma et al. 2021, "Variational Diffusion Models", arXiv:2107.00630, eq. (17), with
    d log SNR = 2 dλ; it does not depend on the schedule but for its ends. λ is drawn per sample,
    uniform in each of `strata` intervals of equal length; the paper spreads the times over the
    batch instead, so that its value depends on batch mates.

    We depart from the paper in the reconstruction: the decoder is that of `ddpm_vlb`,
    N(x̂_0, σ²(t_min) I) integrated over the cells of quantized data, so that both bounds are of
    one kind. The paper decodes each level from x_{t_min} without the network.

    Args:
        model: Score model, right at all times: rounded labels are refused.
        x: Integer levels for a spec with levels, float32 or float64 data else; shape (B, *D).
        spec: Range and levels of quantized data; None or without levels for continuous data.
        t_min: Last time, in [0, 1); 0 only for an SDE with σ(0) > 0. None: where σ/α is half the
            width of a cell for quantized data, but at least 1e-5; 1e-5 for continuous data; never
            below the first discrete label of a network that has such labels.
        strata: Intervals of λ, at least 1; (strata + 1) · draws evaluations.
        draws: Independent draws of each term, at least 1; 2 or more for a standard error.
        y: This and what follows are as for `ddpm_vlb`.
        seed: See there.
        noise: See there.
        batch: See there.
        dtype: See there.

    Returns:
        The bound per sample; empty for B = 0.

    Raises:
        TypeError: As for `ddpm_vlb`.
        ValueError: On a bad argument, a time at which σ = 0, or rounded labels.
        RuntimeError: If the network is not finite.
    """
    strata = check_integer("strata", strata, minimum=1)
    least = max(last_time(model.sde, spec), model.t_least)
    t_min = model.first_time(least if t_min is None else t_min)
    if model.snapped:
        raise ValueError(
            "model must be exact at every time, got one with rounded labels, which are wrong "
            "between its discrete times; use the label 'index', or ddpm_vlb on its ladder"
        )
    first, last = model.sde.nodes([1.0, t_min])
    data = BoundData(model, x, spec, y, seed, noise, batch, draws, dtype)
    return data.bound(
        partial(_lam_terms, first=first, last=last, strata=strata),
        first=first,
        last=last,
        variance=last.sigma**2,
        constant=0.0,
        protocol=VLB_CONTINUOUS,
        settings={"t_min": t_min, "strata": strata},
    )


@own_context()
def optimal_variances(
    model: ScoreModel,
    x: Tensor,
    ts: Tensor | int,
    *,
    spec: DataSpec | None = None,
    draws: int = 1,
    y: Tensor | None = None,
    seed: int | None = None,
    noise: Noise | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The reverse variances that make `ddpm_vlb` of continuous data least, estimated from data.

        v = β̃ + (∂μ/∂x̂_0)² E|x_0 − x̂_0|²/D   for each step, and E|x_0 − x̂_0|²/D for the decoder

    The optimum over one number per step; for an exact model it is that of Bao et al. 2022,
    "Analytic-DPM", arXiv:2201.06503. Take other data for it than those to be scored: fitted to
    the test set it would no longer be a model's bound. For quantized data the decoder's variance
    is that of the centres, of which the cells are not aware.

    Args:
        model: This and what follows are as for `ddpm_vlb`.
        x: Data to average over, shape (n, *D), n ≥ 1.
        ts: See there.
        spec: See there.
        draws: Draws of the noise per sample and time, at least 1.
        y: See there.
        seed: See there.
        noise: See there.
        batch: See there.
        dtype: See there.

    Returns:
        v of every step of the grid and of the decoder, shape (N,), float64, to be given to
        `ddpm_vlb` as `variance`.

    Raises:
        TypeError: As for `ddpm_vlb`.
        ValueError: As for `ddpm_vlb`, or if there are no data.
        RuntimeError: If the network is not finite.
    """
    chain = ReverseChain.build(model, ts, "beta", None)
    data = BoundData(model, x, spec, y, seed, noise, batch, draws, dtype)
    if data.n == 0:
        raise ValueError("x must hold at least one datum, got none")
    sums = torch.zeros(len(chain.nodes), dtype=torch.float64, device="cpu")
    with evaluating(model):
        for denoising, _ in data.chunks():
            for i, node in enumerate(chain.nodes):
                sums[i] += denoising.mean(node, lambda residual: residual.square)[0].sum().cpu()
    return chain.optimum(sums / (data.n * data.dims))


def last_time(sde: SDE, spec: DataSpec | None) -> float:
    """The last time of a bound: where σ/α is half the width of a cell, and at least 1e-5.

    Args:
        sde: The SDE.
        spec: What the data are; None or without levels for continuous data, whose time is 1e-5.
    """
    if spec is None or spec.levels is None:
        return FIRST_TIME
    half = 0.5 * spec.span / spec.levels
    t = sde.t_of_lam(float64(-math.log(half)))
    return max(float(t), FIRST_TIME)


def _lam_terms(
    denoising: Denoising, *, first: Node, last: Node, strata: int
) -> Iterator[Callable[[], Draw]]:
    """∫ E|ε − ε̂|² dλ as one uniform λ per sample in each of equal intervals."""
    sde, width = denoising.model.sde, (last.lam - first.lam) / strata

    def draw(m: int) -> Draw:
        lam = first.lam + width * (m + denoising.uniform())
        t = sde.t_of_lam(lam).clamp(last.t, first.t)  # its rounding may leave the interval
        return Draw(sde.at(t, denoising.x0), width)

    return (partial(draw, m) for m in range(strata))
