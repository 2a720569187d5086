"""Laws about a sampler's error: its orders, its moments, and another sampler step for step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..interop.samplers import GivenLevels, Levels
from .findings import Finding, failed, info, passed, warned
from .level_orders import Order, measure_errors
from .level_problems import UNEVEN
from .subject import FEW, SAME, Subject, difference

__all__ = ["convergence", "limit_moments", "same_method", "weak_order"]

# The largest |observed − claimed| beside the error bar: what higher terms of the error leave.
BANDS = {1: 0.1, 2: 0.15, 3: 0.25, 4: 0.4}
WIDEST = 0.5  # a wider error bar cannot tell two orders apart


def convergence(levels: Levels) -> Callable[[Subject], Finding | None]:
    """The law of the order of convergence at some noise levels."""

    def law(subject: Subject) -> Finding | None:
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


def limit_moments(subject: Subject) -> Finding | None:
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


def weak_order(subject: Subject) -> Finding | None:
    """The weak order of a sampler that draws noise."""
    if not subject.draws_noise:
        return None
    order = subject.moments.order
    if order is None:
        return info("cannot tell: the bias is within five standard errors")
    return _compared(order, subject.order, "weak order", "bias of mean and standard deviation")


def same_method(subject: Subject) -> Finding | None:
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
    found = difference(y, same.before_zero[0])
    text = f"differs from {subject.like.name} by {found:.1e} of the state at N = {FEW}"
    if found < SAME:
        return passed(f"{text}: equal", found)
    return failed(text, "it is another method, or starts or ends in another way", found)
