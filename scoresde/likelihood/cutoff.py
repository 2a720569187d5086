"""The cut-off at t_min: its size (`neglected`), and a dequantization without a cut-off.

A likelihood by the probability-flow ODE starts at t_min > 0 and treats the datum as a sample of p
at t_min. It is a sample of p_0, so that the result is log p_{t_min}(x) in place of log p_0(x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from .._deferred import checked_at_end
from .._tensor import check_number, float64, plain_numbers
from ..batches import Batch, batches
from ..data.spec import DataSpec
from ..evaluation import count_nfe, evaluating, own_context
from ..exact import GaussianMixture
from ..noise import Noise
from ..score import ScoreModel
from ..score.sets import numbers_of_sets, only_present
from ..sde import Node
from .dequantize import Dequantization, Points, UniformDequantization, cell_centre, log_normal
from .method import check_data, check_exact, check_no_sets
from .trace.jacobian import linearize
from .trace.names import trace_rule
from .trace.rules import TraceRule
from .vlb.decoder import cell_log_prob

__all__ = ["CutOff", "GaussianNoising", "decoder_std", "neglected"]


@dataclass(frozen=True)
class CutOff:
    """Result of `neglected`.

    Attributes:
        value: log p_0(x) − log p_{t_min}(x) in nats, to be added to a log-likelihood that starts
            at t_min; shape (B,), float64.
        std_error: Its standard error from the probes of the trace: 0 for an exact trace, NaN for a
            single probe. Shape (B,), float64.
        exact: Whether both densities are known in closed form, rather than estimated.
        departure: Relative distance between the score and the score of a density that is smooth
            over distances of σ(t_min), shape (B,), float64. It is 0 for a smooth density. It is
            about 1 if |ε|² does not fall with σ, because ε is then mostly an error of the network.
            NaN for order 1, which does not measure it.
        nfe: Network evaluations per sample.
        nfe_derivative: Derivative passes per sample.
    """

    value: Tensor
    std_error: Tensor
    exact: bool
    departure: Tensor
    nfe: int = 0
    nfe_derivative: int = 0


@own_context()
def neglected(
    model: ScoreModel,
    x: Tensor,
    t_min: float,
    *,
    trace: TraceRule | str = "auto",
    order: Literal[1, 2] = 1,
    seed: int | None = None,
    noise: Noise | None = None,
) -> CutOff:
    """log p_0(x) − log p_{t_min}(x), from the score at t_min and its divergence.

    In x̂ = x/α and τ = (σ/α)² the density obeys the heat equation, at fixed x̂

        ∂ log p̂/∂τ = ½ (∇·ŝ + |ŝ|²),   ŝ = ∇ log p̂ = α s,   log p_t(x) = log p̂_τ(x/α) − D log α

    Order 1 uses the right-hand side at t_min for all times. The integral over 0 … τ, while x̂ moves
    from x to x/α, is then

        log p_0(x) − log p_t(x) ≈ D log α + (1 − α)/σ ε·x − ½ (|ε|² − σ ∇·ε)       (order 1)

    Order 2 uses the straight line through its values at t_min and at the time where τ has doubled.
    The errors of orders 1 and 2 are O(t_min²) and O(t_min³) for VP and subVP, O(σ⁴) and O(σ⁶) for
    VE. p_0 is the density of the data without noise, σ = 0. VE has σ_min at t = 0; its cut-off
    includes the part below σ_min. For a `GaussianMixture` both densities are computed in closed
    form instead.

    p must be smooth over distances of σ(t_min). If the model's ε is wrong by e, the estimate is
    wrong by about |e|²/2 − (1 − α)/σ e·x. At the smallest noise the ε of a smooth density is nearly
    0, while the ε of a network is mostly its error e; the estimate is then meaningless. Order 2
    detects this: |ε|² and σ ∇·ε of a smooth density double when τ doubles, and `departure` is the
    relative distance from doubling.

    Args:
        model: Score model with the labels of x bound.
        x: Points at the model's scale, shape (B, *D).
        t_min: Start time of x in [0, 1); 0 only for an SDE with σ(0) > 0.
        trace: How ∇·ε is estimated, a rule or its text; "auto" is exact up to D = 16, else one
            Rademacher probe.
        order: 1 or 2; also the number of evaluations.
        seed: Integer in [0, 2^64) for the probes; one stream per sample.
        noise: A source of your own instead of `seed`.

    Returns:
        The difference with its uncertainty and cost.

    Raises:
        TypeError: If x is not float32 or float64.
        ValueError: On a bad argument, an estimated trace without randomness, a model with rounded
            labels, or a mixture whose data have no density.
        RuntimeError: If the network or its derivative is not finite.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    check_exact(model)
    check_data(x)
    (batch,) = batches(model, len(x), x.device, seed=seed, noise=noise, random=False)
    model, nodes = batch.model, _nodes(model, t_min, order)
    if isinstance(model, GaussianMixture):
        point = x.to(torch.float64)
        value = model.log_prob(point) - model.log_prob(point, nodes[0])
        return CutOff(value, torch.zeros_like(value), True, torch.zeros_like(value))
    rule = trace_rule(trace, x)
    with evaluating(model), count_nfe(model) as counted, checked_at_end():
        probes = rule.draw(batch.noise, x)
        rates = [_rates(model, x, node, rule, probes) for node in nodes]
    values = _integrated(rates, nodes)
    sizes = numbers_of_sets(model, x)
    dims = math.prod(x.shape[1:]) if sizes is None else sizes[:, None]
    values = values + dims * math.log(nodes[0].alpha)
    error = rule.std_error(values, math.prod(x.shape[1:]))
    nfe, derivatives = counted.forward, counted.derivative
    return CutOff(values.mean(1), error, False, _departure(rates), nfe, derivatives)


@dataclass(frozen=True)
class GaussianNoising(Dequantization):
    """x_t = α x_0 + σ z replaces the datum, and a decoder gives log p(x_0 | x_t): no cut-off.

        log p(x_0) ≥ E[log p_t(x_t) + log N(x_0; x0(x_t), s² I) − log q(x_t | x_0)]

    This bounds the density of a generator that stops at t and then draws around x0(x_t), the
    model's denoised mean. For Gaussian data of variance c and s² = σ² c/(α² c + σ²) the bound is
    sharp for every draw. The default s = σ/α is the limit for c ≫ σ²; its bound is loose by O(σ⁴).

    Quantized data are treated in one of two variants. For a model trained on the centres of the
    cells, x_0 is the centre, and the decoder gives the probability of the level (`cell_log_prob`).
    For a model trained on dequantized data, x_0 is dequantized first (`before`). With the centre
    instead, q would be much narrower than p_t of such a model if σ ≪ span/levels.

    Args:
        std: Standard deviation s of the decoder at the model's scale; None = σ/α. Estimate it
            (`decoder_std`) from data that are not scored.
        before: Dequantization before noise is added; None for continuous data or for centres.

    Raises:
        ValueError: If std is not positive.
    """

    noised: ClassVar[bool] = True

    std: float | None = None
    before: UniformDequantization | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        if self.std is not None:
            check_number("std", self.std, above=0)

    @property
    def name(self) -> str:
        """Either "decoder", or "uniform+decoder" for data that are dequantized first."""
        return "decoder" if self.before is None else f"{self.before.name}+decoder"

    @own_context()
    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """x_t, with log q = log q(x_t | x_0) + log q(x_0 | k) − log decoder; 1 evaluation.

        With a continuous spec, k holds real data x_0 at the model's scale.
        """
        check_no_sets(batch.model, "dequantization must be no added noise")
        x0, log_q0 = self._start(batch, k, spec, t)
        x = (t.alpha * x0 + t.sigma * batch.noise.fresh(x0)).to(dtype)
        with evaluating(batch.model), checked_at_end():
            eps = batch.model.eps(x, t).to(torch.float64)
        # x0(x_t) − x_0 = (σ/α) (z − ε); the difference of the two would cancel in float32
        z = (x.to(torch.float64) - t.alpha * x0) / t.sigma
        mean = x0 + t.sigma / t.alpha * (z - eps)
        std = self.std or t.sigma / t.alpha
        if spec.levels is None or self.before is not None:
            decoded = log_normal(x0, mean, std)
        else:
            decoded = cell_log_prob(k, mean, std, spec)
        return Points(x, log_normal(x, t.alpha * x0, t.sigma) + log_q0 - decoded)

    def _start(
        self, batch: Batch, k: Tensor, spec: DataSpec, t: Node
    ) -> tuple[Tensor, Tensor | float]:
        """x_0 in float64 and log q(x_0 | k), which is 0 if x_0 is not random."""
        if self.before is not None:
            first = self.before.draw(batch, k, spec, t, torch.float64)
            return first.x, first.log_q
        if spec.levels is not None:
            return cell_centre(k, spec), 0.0
        return k.to(torch.float64), 0.0


@own_context()
def decoder_std(model: ScoreModel, x: Tensor, t_min: float, *, seed: int) -> float:
    """The best s for `GaussianNoising`:  s² = E|x_0 − x0(α x_0 + σ z, t_min)|²/D over data.

    This s maximizes the mean of log N(x_0; x0(x_t), s² I).

    Args:
        model: Score model with the labels of x bound.
        x: Data that will not be scored, shape (B, *D), B ≥ 1.
        t_min: Time in (0, 1).
        seed: Integer in [0, 2^64), one stream per sample.

    Returns:
        s at the model's scale.

    Raises:
        ValueError: If there are no data, or on a bad argument.
    """
    if len(x) == 0:
        raise ValueError("x must hold at least one sample, got none")
    (batch,) = batches(model, len(x), x.device, seed=seed)
    model, node = batch.model, _nodes(model, t_min, 1)[0]
    z = batch.noise.fresh(x)
    with evaluating(model), checked_at_end():
        eps = model.eps(node.alpha * x + node.sigma * z, node)
    return node.sigma / node.alpha * float((z - eps).square().mean(dtype=torch.float64).sqrt())


def _nodes(model: ScoreModel, t_min: float, n: int) -> list[Node]:
    """t_min and, for n = 2, the time at which (σ/α)² has doubled."""
    (first,) = model.sde.nodes([model.first_time(t_min)])
    if n == 1:
        return [first]
    later = model.sde.t_of_lam(float64([first.lam - 0.5 * math.log(2)]))
    return [first, *model.sde.nodes(later)]


class _Rates(NamedTuple):
    """The terms of the rate of change of the density at a node, in nats."""

    along: Tensor  # ŝ·x, shape (B, 1)
    square: Tensor  # ½ |ε|² = ½ τ |ŝ|², shape (B, 1)
    divergence: Tensor  # ½ σ ∇·ε = −½ τ ∇·ŝ, one per trace estimate


def _rates(model: ScoreModel, x: Tensor, node: Node, rule: TraceRule, probes: Tensor) -> _Rates:
    jacobian = linearize(lambda x: only_present(model, model.eps(x, node)), x, model.nfe, node.t)
    eps = jacobian.value.to(torch.float64)
    along = (eps * x).flatten(1).sum(1, keepdim=True) * (-node.alpha / node.sigma)
    squares = (eps**2).flatten(1).sum(1, keepdim=True)
    return _Rates(along, 0.5 * squares, 0.5 * node.sigma * rule.estimate(jacobian, probes))


def _integrated(rates: list[_Rates], nodes: list[Node]) -> Tensor:
    """−∫ ŝ·x dδ − ½ ∫ (∇·ŝ + |ŝ|²) dτ, δ = 1/α − 1: each rate constant, or linear in δ and in τ."""
    along, spreads = rates[0].along, [rate.square - rate.divergence for rate in rates]
    deltas = [(1 - node.alpha) / node.alpha for node in nodes]
    if len(rates) == 1:
        return -deltas[0] * along - spreads[0]
    gap = deltas[1] - deltas[0]
    if gap > 0:  # else α does not change, and deltas[0] = 0
        along = along - 0.5 * deltas[0] / gap * (rates[1].along - along)
    # mean over 0 … τ of a line through its values at τ and 2 τ; each spread holds the factor ½ τ
    return -deltas[0] * along - (1.5 * spreads[0] - 0.25 * spreads[1])


def _departure(rates: list[_Rates]) -> Tensor:
    """How far ½ |ε|² and ½ σ ∇·ε are from doubling with τ, relative to their size, shape (B,)."""
    if len(rates) == 1:
        return torch.full_like(rates[0].square[:, 0], math.nan)
    gap = size = torch.zeros_like(rates[0].square[:, 0])
    for one, two in zip(rates[0][1:], rates[1][1:], strict=True):
        gap = gap + (two.mean(1) - 2 * one.mean(1)).abs()
        size = size + one.mean(1).abs()
    return gap / size.clamp(min=1e-300)
