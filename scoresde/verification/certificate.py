"""`certify`: what a sampler of any library does on exact problems, beside what is claimed of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_integer
from .._text import reason_of
from ..interop.samplers import ForeignSampler, GivenLevels, Levels, foreign_sampler
from ..interop.samplers.own import OwnSampler
from ..names.samplers import parse_sampler, sampler_label
from ..samplers import Sampler
from .findings import CheckReport, Finding, failed, info, passed, warned
from .level_orders import STEPS, Moments, Order, measure_errors, measure_moments
from .level_problems import (
    EVEN,
    POINT,
    UNEVEN,
    mixture_denoiser,
    mixture_states,
    point_denoiser,
    point_states,
)
from .named import named_sampler
from .runs import Outcome, run_sampler

__all__ = ["certify"]

FEW = STEPS[0]  # steps of laws for which their number does not matter
KEPT = 7  # samples whose batch mates are changed
# The largest |observed − claimed| beside the error bar: what higher terms of the error leave.
BANDS = {1: 0.1, 2: 0.15, 3: 0.25, 4: 0.4}
WIDEST = 0.5  # a wider error bar cannot tell two orders apart
SAME = 1e-5  # relative difference that counts as rounding; schedulers may compute in float32
UNMOVED = 1e-7  # a real last step moves the state by at least σ_min times a share of its size
EARLY = 0.25  # share of a step by which an end may be off


def certify(
    sampler: Any,
    *,
    order: int | None = None,
    like: str | Sampler | None = None,
    arguments: Mapping[str, Any] | None = None,
    steps: Sequence[int] = STEPS,
) -> CheckReport:
    """Measure what a sampler of any library does on problems whose solutions are known.

    Deterministic samplers: the order of convergence with an error bar, on equal steps and on steps
    of lengths h, 3h, h, 3h, … in log σ. Samplers that draw noise: mean and standard deviation of
    the output, and their weak order. All samplers: the noise level at which they end, whether the
    last step moves, evaluations, dependence on the other samples of the batch, and repeatability.

    Args:
        sampler: A sampler of this package; a scheduler of diffusers or a sampler of azula, class or
            object; a callable of (denoiser, x, sigmas), as in k-diffusion, where x = x_0 + σ ε,
            denoiser(x, σ) = E[x_0 | x] and the result is x at the last of `sigmas`; a class or
            function without required arguments that makes one; or the name or place of one of
            these, as `package.module:Name:key=value`.
        order: The order that is claimed for it; None measures without a verdict.
        like: A deterministic sampler of this package, object or text, that it claims to be. Both
            run on the same noise levels. This shows mistakes that do not change the order.
        arguments: Keyword arguments of the class or of the callable.
        steps: Numbers of steps of the measurement, at least three, increasing.

    Returns:
        One finding for each law, in words with numbers; `print(report)` shows them.

    Raises:
        ConfigError: If a text names no sampler.
        TypeError: If the object is no sampler of these kinds.
        ValueError: If order is below 1, steps are fewer than three, or an argument is unknown.
    """
    if isinstance(sampler, str):
        return _certified(named_sampler(sampler, arguments), order, like, steps)
    return _certified(foreign_sampler(sampler, arguments), order, like, steps)


def _certified(
    sampler: ForeignSampler, order: int | None, like: str | Sampler | None, steps: Sequence[int]
) -> CheckReport:
    if order is not None:
        check_integer("order", order, minimum=1, maximum=20)
    if len(steps) < 3 or sorted(set(steps)) != list(steps):
        raise ValueError(f"steps must be at least three increasing numbers, got {tuple(steps)}")
    own = parse_sampler(like) if isinstance(like, str) else like
    reference = None if own is None else OwnSampler(sampler_label(own), own)
    subject = _Subject(sampler, order, reference, tuple(steps))
    findings = []
    for name, law in LAWS.items():
        try:
            found = law(subject)
        except NotImplementedError as error:
            found = info(f"not measured: {error}")
        except Exception as error:  # code of the user may raise anything
            found = failed(reason_of(error), f"the sampler raised {type(error).__name__}")
        findings += [] if found is None else [replace(found, law=name)]
    return CheckReport(sampler.name, tuple(findings), "sampler")


@dataclass(frozen=True)
class _Subject:
    """A sampler with its claim, and the runs that several laws share."""

    sampler: ForeignSampler
    order: int | None
    like: OwnSampler | None
    steps: tuple[int, ...]

    def run(self, steps: int = FEW, levels: Levels = EVEN, **seeds: int) -> Outcome:
        """A run on the mixture."""
        return run_sampler(self.sampler, mixture_denoiser(), mixture_states, levels, steps, **seeds)

    @cached_property
    def first(self) -> Outcome:
        """The run with both seeds 0."""
        return self.run()

    @cached_property
    def moments(self) -> Moments:
        """The moments of a sampler that draws noise."""
        return measure_moments(self.sampler, EVEN, self.steps)

    @cached_property
    def draws_noise(self) -> bool:
        """Whether other seeds give other results."""
        return _difference(self.run(seed=1, global_seed=1).y, self.first.y) > SAME


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference of two states, relative to the size of the second."""
    return float((a - b).abs().max() / b.abs().max())


def _convergence(levels: Levels) -> Callable[[_Subject], Finding | None]:
    """The law of the order of convergence at some noise levels."""

    def law(subject: _Subject) -> Finding | None:
        if subject.draws_noise:
            return None
        errors = measure_errors(subject.sampler, levels, subject.steps)
        shown = f"errors {errors.errors[0]:.1e} to {errors.errors[-1]:.1e}"
        if errors.order is None:
            return info(f"cannot tell: {shown}, rounding {errors.rounding:.0e}")
        return _compared(errors.order, subject.order, "order", shown)

    return law


def _compared(observed: Order, claimed: int | None, noun: str, shown: str) -> Finding:
    """The finding about an observed order beside the claimed one."""
    value, bar, steps = observed
    text = f"observed {value:.2f} ± {bar:.2f} for N = {steps[0]} to {steps[-1]} ({shown})"
    if claimed is None:
        return info(text, value)
    text = f"claimed {claimed}, {text}"
    band = max(bar, BANDS.get(claimed, BANDS[4]))
    if bar > WIDEST:
        return info(f"{text}: cannot tell, the error bar is too wide", value)
    if abs(value - claimed) <= band:
        return passed(f"{text}: consistent with {noun} {claimed}", value)
    if value > claimed:
        return warned(
            f"{text}: higher than {noun} {claimed}", "it is not the method of this order", value
        )
    return failed(
        f"{text}: not {noun} {claimed}",
        "compare formula, history and first and last step with the paper",
        value,
    )


def _moments(subject: _Subject) -> Finding | None:
    """Whether the moments tend to the exact ones."""
    if not subject.draws_noise:
        return None
    moments = subject.moments
    std, error, mean = moments.limit()
    text = (
        f"standard deviation {std:.3f} ± {error:.3f}, mean off by {mean:+.3f} ± {1.4 * error:.3f}, "
        f"in exact standard deviations for N → ∞ ({moments.std[-1]:.3f} at N = {moments.steps[-1]})"
    )
    if abs(std - 1) > 3 * error + 0.01 or abs(mean) > 4.2 * error + 0.01:
        advice = "the scale of its noise, or its drift, does not belong to the process"
        return failed(f"{text}: not those of the data", advice, std)
    return passed(f"{text}: consistent with the data", std)


def _weak_order(subject: _Subject) -> Finding | None:
    """The weak order of a sampler that draws noise."""
    if not subject.draws_noise:
        return None
    order = subject.moments.order
    if order is None:
        return info("cannot tell: the bias is within five standard errors")
    return _compared(order, subject.order, "weak order", "bias of mean and standard deviation")


def _like(subject: _Subject) -> Finding | None:
    """Whether the sampler is another one, step for step."""
    if subject.like is None:
        return None
    try:
        outcome = subject.run(levels=UNEVEN)
    except NotImplementedError:
        outcome = subject.first
    y, sigma = outcome.before_zero
    levels: Levels = UNEVEN
    if not subject.sampler.keeps_levels:
        levels = GivenLevels.of(sorted({*outcome.calls, sigma}, reverse=True))
    same = replace(subject, sampler=subject.like).run(levels=levels)
    found = _difference(y, same.before_zero[0])
    text = f"differs from {subject.like.name} by {found:.1e} of the state at N = {FEW}"
    if found < SAME:
        return passed(f"{text}: equal", found)
    return failed(text, "it is another method, or starts or ends in another way", found)


def _end_point(subject: _Subject) -> Finding:
    """Whether the sampler ends where its library says, on data that are one point."""
    outcome = run_sampler(subject.sampler, point_denoiser(), point_states, EVEN, FEW)
    got, last = float((outcome.y - POINT).square().mean().sqrt()), outcome.calls[-1]
    if outcome.sigma == 0:
        if got > EARLY * last:
            return failed(
                f"stated end σ = 0, noise left {got:.3g}", "the last step does not reach the data"
            )
        return passed(f"ends at the data, σ = 0; last evaluation at σ = {last:.3g}", 0.0)
    text = f"stated end σ = {outcome.sigma:.3g}, noise left {got:.3g}"
    text += f"; last evaluation at σ = {last:.3g}"
    step = (math.log(EVEN.sigma_max) - math.log(EVEN.sigma_min)) / FEW
    missing = math.log(got / outcome.sigma) / step if got > 0 else -math.inf
    if missing > EARLY:
        return failed(
            f"{text}: {missing:.1f} steps too early", "it leaves noise: is the last step taken?"
        )
    if missing < -EARLY:
        return warned(f"{text}: {-missing:.1f} steps too far", "its step is not exact for a point")
    return passed(text, outcome.sigma)


def _last_step(subject: _Subject) -> Finding:
    """Whether the last evaluation changes the result, and whether it ends with denoising."""
    outcome = subject.first
    moved = _difference(outcome.y, outcome.last)
    if moved < UNMOVED:
        return failed(
            "the end equals the state of the last evaluation",
            "the last evaluation is without effect: the last step has zero size or is missing",
            moved,
        )
    denoised = mixture_denoiser()(outcome.last, outcome.calls[-1])
    if _difference(outcome.y, denoised) < SAME:
        return passed(f"denoises: the end is E[x_0] at σ = {outcome.calls[-1]:.3g}", moved)
    noise = "" if outcome.sigma == 0 else f"; noise of σ = {outcome.sigma:.3g} is left"
    return passed(f"moves by {moved:.1e} of the state{noise}", moved)


def _level_zero(subject: _Subject) -> Finding | None:
    """Whether a function of noise levels accepts 0 as the last one."""
    if not hasattr(subject.sampler, "to_zero"):
        return None
    try:
        zero = replace(subject, sampler=replace(subject.sampler, to_zero=True)).run()
    except RuntimeError as error:
        return warned(str(error), "end the list of noise levels above 0, and denoise afterwards")
    denoised = mixture_denoiser()(zero.last, zero.calls[-1]) if zero.calls[-1] > 0 else zero.last
    same = _difference(zero.y, denoised) < SAME
    return passed("accepted; the step to 0 is " + ("E[x_0]" if same else "not E[x_0]"))


def _evaluations(subject: _Subject) -> Finding:
    """Evaluations as a function of the number N of steps."""
    few, many = FEW, STEPS[1]
    counts = len(subject.first.calls), len(subject.run(many).calls)
    per_step = (counts[1] - counts[0]) / (many - few)
    text = f"{counts[0]} at N = {few}, {counts[1]} at N = {many}"
    if per_step != int(per_step) or per_step == 0:
        return info(text, per_step)
    rest = round(counts[0] - per_step * few)
    formula = ("" if per_step == 1 else f"{per_step:g} ") + "N"
    sign = "+" if rest > 0 else "−"
    return info(f"{formula} {sign} {abs(rest)}" if rest else formula, per_step)


def _batch_mates(subject: _Subject) -> Finding:
    """Whether a sample changes if the other samples of the batch do."""

    def start(sigma: float) -> Tensor:
        y = mixture_states(sigma)
        return torch.cat([y[:KEPT], -0.5 * y[KEPT:]])

    other = run_sampler(subject.sampler, mixture_denoiser(), start, EVEN, FEW)
    found = _difference(other.y[:KEPT], subject.first.y[:KEPT])
    text = f"a sample changes by {found:.1e} if the others of its batch are changed"
    if found > SAME:
        return failed(text, "norms or means over the batch mix its samples", found)
    return passed(text, found)


def _repeatable(subject: _Subject) -> Finding:
    """Whether the same seed gives the same result, and where randomness comes from."""
    first = subject.first
    if _difference(subject.run().y, first.y) > 0:
        return failed("equal seeds give other results", "it keeps a state, or draws unseeded noise")
    if not subject.draws_noise:
        used = "; it draws from a global random state without effect" if first.used_global else ""
        return passed(f"deterministic{used}")
    if _difference(subject.run(global_seed=1).y, first.y) == 0:
        return passed("equal generators give equal results")
    text = "draws from a global random state"
    if subject.sampler.takes_generator:
        return failed(f"{text}, and not only from the given generator", "pass the generator on")
    return warned(f"{text}: repeatable only through torch.manual_seed", "give it a generator")


LAWS: Mapping[str, Callable[[_Subject], Finding | None]] = {
    "order on equal steps": _convergence(EVEN),
    "order on steps h, 3h": _convergence(UNEVEN),
    "same method": _like,
    "moments": _moments,
    "weak order": _weak_order,
    "end point": _end_point,
    "last step": _last_step,
    "last level 0": _level_zero,
    "evaluations": _evaluations,
    "batch mates": _batch_mates,
    "repeatability": _repeatable,
}
