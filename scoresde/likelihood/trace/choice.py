"""The cheapest trace rule for a model, chosen by measured variances along its path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._deferred import checked_at_end
from ..._tensor import check_integer, check_number, check_type, float64, plain_numbers
from ...batches import Batch, batches
from ...evaluation import evaluating, own_context
from ...exact import GaussianMixture
from ...noise import Noise
from ...score import ScoreModel
from ...score.sets import only_present
from ...sde import Node
from ..method import check_exact
from .control import check_control, gaussian_control
from .jacobian import Jacobian, linearize
from .probing import Probing
from .rules import ExactTrace, Hutchinson, TraceRule
from .sketch import HutchPP, XTrace

__all__ = ["TraceChoice", "TraceCost", "TraceSearch", "choose_trace", "trace_candidates"]

# Cost of a vector-Jacobian product in forward passes, measured on small U-Nets whose parameters
# need no gradient, on a CPU.
PASS_COST = 0.97


@dataclass(frozen=True)
class TraceSearch:
    """How trace rules are measured and compared by `choose_trace`.

    Args:
        candidates: Rules; None = `trace_candidates`.
        std_error: Standard error wanted for each log p, in nats; None = 0.01 bits/dim.
        evaluations: Evaluations that the integral needs even without noise, at least 1.
        times: Times to measure at, at least 1.
        repeats: Draws of each rule at each of these times, at least 2.
        pass_cost: Cost of a derivative pass in forward passes, at least 0.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a number is out of range, or there are no candidates.
    """

    candidates: Sequence[TraceRule] | None = None
    std_error: float | None = None
    evaluations: int = 32
    times: int = 6
    repeats: int = 2
    pass_cost: float = PASS_COST

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("times", self.times, minimum=1)
        check_integer("repeats", self.repeats, minimum=2)
        check_integer("evaluations", self.evaluations, minimum=1)
        check_number("pass_cost", self.pass_cost, at_least=0)
        if self.std_error is not None:
            check_number("std_error", self.std_error, above=0)
        if self.candidates is not None and not self.candidates:
            raise ValueError("candidates must hold at least one rule")


@dataclass(frozen=True)
class TraceCost:
    """The cost of a rule for a wanted error.

    Attributes:
        rule: The rule.
        controlled: Whether the rule is used with the control variate.
        variance: Λ ∫ Var(σ tr ∂ε/∂x) dλ over Λ = λ(t_min) − λ(1), in nats², the mean over the
            points. With N evaluations and fresh probes, one in each of N equal parts of λ, the
            variance of log p is `variance`/N.
        passes: Derivative passes per evaluation.
        evaluations: Evaluations needed for the wanted error.
        total: Cost of these evaluations in forward passes, derivative passes included.
    """

    rule: TraceRule
    controlled: bool
    variance: float
    passes: int
    evaluations: int
    total: float


@dataclass(frozen=True)
class TraceChoice:
    """Result of `choose_trace`.

    Attributes:
        rule: The cheapest rule.
        controlled: Whether this rule is cheapest with the control variate.
        table: Every candidate, cheapest first.
    """

    rule: TraceRule
    controlled: bool
    table: tuple[TraceCost, ...]


def trace_candidates(dims: int) -> tuple[TraceRule, ...]:
    """The rules that `choose_trace` compares in D = `dims` dimensions if none are given."""
    probing = [Probing(colours) for colours in (2, 4, 8, 16) if colours < dims]
    sketches = [HutchPP(12), XTrace(12)] if dims > 12 else []
    return ExactTrace(), Hutchinson(), *probing, *sketches


@own_context()
def choose_trace(
    model: ScoreModel,
    x: Tensor,
    search: TraceSearch = TraceSearch(),
    *,
    seed: int,
    t_min: float | None = None,
    control: GaussianMixture | None = None,
) -> TraceChoice:
    """The trace rule that reaches a standard error of log p with the least work.

    In half log-SNR λ the divergence enters log p as ∫ σ tr ∂ε/∂x dλ. The range of λ is divided into
    `times` equal parts. At the middle of each part x is perturbed, the network is evaluated once,
    and each rule is drawn `repeats` times. The rules are compared as if their probes were drawn
    anew at every evaluation. Probes that are kept along the path have a larger variance, by about
    the same factor for all rules.

    The cost is times · repeats · Σ passes derivative passes on the points x. Ten data are enough to
    distinguish rules whose variances differ by a half.

    Args:
        model: Score model, labels bound.
        x: Some data at the model's scale, shape (B, *D), B ≥ 1.
        search: Which rules are compared, and how.
        seed: Integer in [0, 2^64), for the noise and the probes.
        t_min: First time of the path, in (0, 1).
        control: Gaussian whose control variate is measured with each rule as well.

    Returns:
        The rule, and the table it was chosen from.

    Raises:
        TypeError: If an argument has a wrong type, or `control` is not a mixture.
        ValueError: If t_min is out of range, there are no data, or the labels are rounded.
        RuntimeError: If the network or a derivative is not finite.
    """
    check_type("model", model, ScoreModel)
    check_exact(model)
    t_min = check_number("t_min", model.first_time(t_min), above=0)
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"x must have shape (B, *D) with B ≥ 1, got {tuple(x.shape)}")
    dims = math.prod(x.shape[1:])
    if control is not None:
        check_control(control, x)
    target = search.std_error or 0.01 * dims * math.log(2)
    rules = search.candidates or trace_candidates(dims)
    uses = (False,) if control is None else (False, True)
    pairs = [(rule, controlled) for rule in rules for controlled in uses]
    (batch,) = batches(model, len(x), x.device, seed=seed)
    with evaluating(model), checked_at_end():
        variances = _variances(batch, x, pairs, control, t_min, search)
    table = []
    for (rule, controlled), variance in zip(pairs, variances.tolist(), strict=True):
        needed = max(search.evaluations, math.ceil(variance / target**2))
        total = needed * (1 + search.pass_cost * rule.cost(dims))
        table.append(TraceCost(rule, controlled, variance, rule.cost(dims), needed, total))
    table.sort(key=lambda row: row.total)
    return TraceChoice(table[0].rule, table[0].controlled, tuple(table))


def _variances(
    batch: Batch,
    x: Tensor,
    pairs: Sequence[tuple[TraceRule, bool]],
    control: GaussianMixture | None,
    t_min: float,
    search: TraceSearch,
) -> Tensor:
    """Λ² times the mean over times and points of σ² Var(tr), for each pair of rule and control."""
    model, noise, times = batch.model, batch.noise, search.times
    ends = model.sde.lam(float64([1.0, t_min]))
    middles = (torch.arange(times, dtype=torch.float64, device="cpu") + 0.5) / times
    nodes = model.sde.nodes(model.sde.t_of_lam(torch.lerp(ends[0], ends[1], middles)))
    sums = torch.zeros(len(pairs), dtype=torch.float64, device=x.device)
    for node in nodes:
        x_t = node.alpha * x + node.sigma * noise.fresh(x)
        plain = linearize(_eps(model, node), x_t, model.nfe, node.t)
        known = None if control is None else gaussian_control(control, node, x_t)
        for i, (rule, controlled) in enumerate(pairs):
            jacobian = plain.minus(known) if controlled else plain
            sums[i] += node.sigma**2 * _variance(rule, jacobian, noise, search.repeats)
    return float(ends[1] - ends[0]) ** 2 * sums / times


def _eps(model: ScoreModel, node: Node) -> Callable[[Tensor], Tensor]:
    """ε(x, t), which is 0 at the padding of sets."""
    return lambda x: only_present(model, model.eps(x, node))


def _variance(rule: TraceRule, jacobian: Jacobian, noise: Noise, repeats: int) -> Tensor | float:
    """Variance of a rule's mean over its probes, averaged over the points."""
    if isinstance(rule, ExactTrace):
        return 0.0
    draws = [
        rule.estimate(jacobian, rule.draw(noise, jacobian.value)).mean(1) for _ in range(repeats)
    ]
    return torch.stack(draws).var(0).mean()
