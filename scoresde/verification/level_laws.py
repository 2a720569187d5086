"""Laws about a sampler's error: its orders and its moments."""

from __future__ import annotations

from collections.abc import Callable

from ..interop.samplers import Levels
from .findings import Finding, failed, info, passed, warned
from .level_orders import Order, measure_errors
from .subject import Subject

__all__ = ["convergence", "limit_moments", "weak_order"]

# The largest |observed − claimed| beside the error bar: what higher terms of the error leave.
BANDS = {1: 0.1, 2: 0.15, 3: 0.25, 4: 0.4}
WEAK_BAND = 0.3  # of weak orders, whose errors are closer to the noise
WIDEST = 0.5  # a wider error bar cannot tell two orders apart


def convergence(levels: Levels) -> Callable[[Subject], Finding | None]:
    """The law of the order of convergence at some noise levels."""

    def law(subject: Subject) -> Finding | None:
        if subject.draws_noise:
            return None
        if subject.adaptive:
            return info("adaptive: its error depends on its tolerance, not on N")
        errors = measure_errors(subject.sampler, levels, subject.steps)
        shown = f"errors {errors.errors[0]:.1e} to {errors.errors[-1]:.1e}"
        if errors.order is None:
            return info(f"cannot tell: {shown}, rounding {errors.rounding:.0e}")
        return compared(errors.order, subject.order, "order", shown)

    return law


def compared(observed: Order, claimed: int | None, noun: str, shown: str) -> Finding:
    """The finding about an observed order beside the claimed one."""
    value, bar, steps = observed
    text = f"observed {value:.2f} ± {bar:.2f} for N = {steps[0]} to {steps[-1]} ({shown})"
    if claimed is None:
        return info(text, value)
    text = f"claimed {claimed}, {text}"
    margin = BANDS.get(claimed, BANDS[4])
    band = WEAK_BAND + bar if noun == "weak order" else max(bar, margin)
    if bar > WIDEST and value + bar >= claimed - margin:
        return info(f"{text}: cannot tell, the error bar is too wide", value)
    if abs(value - claimed) <= band:
        return passed(f"{text}: consistent with {noun} {claimed}", value)
    if value > claimed:
        return warned(
            f"{text}: higher than {noun} {claimed}", "it is not the method of this order", value
        )
    advice = "compare formula, history and first and last step with the paper"
    if value + bar < 0:
        advice = (
            "the error grows with N: are its coefficients rounded to float32, or is it unstable?"
        )
    return failed(f"{text}: not {noun} {claimed}", advice, value)


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
        advice = "its noise or its drift does not fit the process, or N leaves a part of it coarse"
        return failed(f"{text}: not those of the data", advice, std)
    return passed(f"{text}: consistent with the data", std)


def weak_order(subject: Subject) -> Finding | None:
    """The weak order of a sampler that draws noise."""
    if not subject.draws_noise:
        return None
    order = subject.moments.order
    if order is None:
        return info("cannot tell: the bias is within five standard errors")
    return compared(order, subject.order, "weak order", "bias of mean and standard deviation")
