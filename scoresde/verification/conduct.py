"""Laws about a sampler's conduct: where it ends, its evaluations, batch mates and repeatability."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .._text import reason_of
from ..interop.samplers import Denoiser
from .findings import Finding, failed, info, passed, warned
from .level_orders import STEPS
from .level_problems import (
    EVEN,
    POINT,
    mixture_denoiser,
    mixture_states,
)
from .runs import run_sampler
from .subject import FEW, SAME, Subject, difference

__all__ = [
    "batch_mates",
    "call",
    "end_point",
    "evaluations",
    "first_level",
    "last_step",
    "level_zero",
    "repeatable",
    "tolerance",
]

KEPT = 7  # samples whose batch mates are changed
UNMOVED = 1e-7  # a real last step moves the state by at least σ_min times a share of its size
EARLY = 0.25  # share of a step by which a noise level may be off
STEP = (math.log(EVEN.sigma_max) - math.log(EVEN.sigma_min)) / FEW  # of log σ
TOLERANCES = (1e-3, 1e-6)
WRONG = 0.1  # added to a denoised x_0
GAIN = 5.0  # a tolerance 1000 times as small must make the error smaller by this factor


def call(subject: Subject) -> Finding:
    """What the sampler does with its arguments, and how many samples it evaluates at once."""
    outcome = subject.first
    _ = subject.repeats  # the second run follows the first: what a sampler keeps then shows
    rows, sizes = len(outcome.y), {len(evaluated.y) for evaluated in outcome.evaluations}
    remarks = list(outcome.remarks)
    if sizes != {rows}:
        shown = " and ".join(map(str, sorted(sizes)))
        remarks.append(f"it evaluates {shown} samples at once, where the batch has {rows}")
    if remarks:
        return warned("; ".join(remarks), "a caller does not expect this; avoid it or document it")
    return passed(f"evaluates and returns {rows} samples; leaves its arguments as they are")


def first_level(subject: Subject) -> Finding:
    """Whether the first evaluation is at the noise level of the state that it is given."""
    y, sigma = subject.point.evaluations[0]
    noise = _noise(y)
    text = f"the first evaluation is at σ = {sigma:.3g}, and its state has noise {noise:.3g}"
    off = abs(math.log(noise / sigma)) if noise > 0 and sigma > 0 else math.inf
    if off > EARLY * STEP:
        return failed(text, "the model is told a noise level that its input does not have")
    return passed(text, sigma)


def end_point(subject: Subject) -> Finding:
    """Whether the sampler ends where its library says, on data that are one point."""
    outcome = subject.point
    got, last = _noise(outcome.y), outcome.calls[-1]
    if outcome.sigma == 0:
        if got > EARLY * last:
            return failed(
                f"stated end σ = 0, noise left {got:.3g}", "the last step does not reach the data"
            )
        return passed(f"ends at the data, σ = 0; last evaluation at σ = {last:.3g}", 0.0)
    text = f"stated end σ = {outcome.sigma:.3g}, noise left {got:.3g}"
    text += f"; last evaluation at σ = {last:.3g}"
    if got < UNMOVED:
        return failed(f"{text}: denoised", "the result must be the state at the last noise level")
    missing = math.log(got / outcome.sigma) / STEP
    if abs(missing) <= EARLY:
        return passed(text, outcome.sigma)
    text += f": {abs(missing):.1f} steps too {'early' if missing > 0 else 'far'}"
    inexact = abs(math.log(max(_noise(outcome.last), UNMOVED) / last)) > EARLY * STEP / 2
    if missing < 0 or inexact:
        return warned(text, "its step is not exact for a point")
    return failed(text, "it leaves noise: is the last step taken?")


def _noise(y: Tensor) -> float:
    """The distance of states to data that are one point."""
    return float((y - POINT).square().mean().sqrt())


def last_step(subject: Subject) -> Finding:
    """Whether the last evaluation changes the result, and whether it ends with denoising."""
    outcome = subject.first
    if outcome.last.shape != outcome.y.shape:
        return info("not measured: the last evaluation is of another number of samples")
    moved = difference(outcome.y, outcome.last)
    if moved < UNMOVED and subject.adaptive:
        return info("the last evaluation only gives the error of the last step", moved)
    if moved < UNMOVED:
        return failed(
            "the end equals the state of the last evaluation",
            "the last evaluation is without effect: the last step has zero size or is missing",
            moved,
        )
    denoised = mixture_denoiser()(outcome.last, outcome.calls[-1])
    if difference(outcome.y, denoised) < SAME:
        return passed(f"denoises: the end is E[x_0] at σ = {outcome.calls[-1]:.3g}", moved)
    noise = "" if outcome.sigma == 0 else f"; noise of σ = {outcome.sigma:.3g} is left"
    return passed(f"moves by {moved:.1e} of the state{noise}", moved)


def level_zero(subject: Subject) -> Finding | None:
    """Whether a function of noise levels accepts 0 as the last one."""
    if not hasattr(subject.sampler, "to_zero"):
        return None
    to_zero = replace(subject, sampler=replace(subject.sampler, to_zero=True))
    try:
        zero, end = to_zero.run(), to_zero.point
    except Exception as error:  # code of the user may raise anything
        advice = "end the list of noise levels above 0, and denoise afterwards"
        return warned(f"not accepted: {reason_of(error)}", advice)
    left, least = _noise(end.y), EVEN.sigma_min
    if left > EARLY * least:
        text = f"noise {left:.3g} is left at σ = 0, where the level before is σ = {least:.3g}"
        return failed(text, "the step to σ = 0 must end at the data", left)
    if zero.calls[-1] == 0 or zero.last.shape != zero.y.shape:
        return passed("accepted; it reaches the data")
    same = difference(zero.y, mixture_denoiser()(zero.last, zero.calls[-1])) < SAME
    return passed("accepted; the step to 0 is " + ("E[x_0]" if same else "not E[x_0]"))


def evaluations(subject: Subject) -> Finding:
    """Evaluations as a function of the number N of steps."""
    few, many = FEW, STEPS[1]
    counts = len(subject.first.calls), len(subject.run(many).calls)
    per_step = (counts[1] - counts[0]) / (many - few)
    text = f"{counts[0]} at N = {few}, {counts[1]} at N = {many}"
    fixed = per_step == int(per_step) and per_step != 0
    if fixed:
        rest = round(counts[0] - per_step * few)
        text = ("" if per_step == 1 else f"{per_step:g} ") + "N"
        text += f" {'+' if rest > 0 else '−'} {abs(rest)}" if rest else ""
    unused = _unused(subject)
    if fixed and unused:
        text += f"; {unused} of {counts[0]} at N = {few} have no effect on the result"
        return warned(text, "leave them out: they cost time", per_step)
    return info(text, per_step)


def _unused(subject: Subject) -> int:
    """The number of evaluations whose result has no effect.

    Row k of the batch gets a wrong result in evaluation k, and is compared with a run without it.
    """
    calls = subject.first.evaluations
    if any(len(evaluated.y) != len(subject.first.y) for evaluated in calls):
        return 0  # rows of the batch are not rows of an evaluation

    def start(sigma: float) -> Tensor:
        return mixture_states(sigma)[:1].repeat(len(calls), 1)

    def wrong(y: Tensor, sigma: float) -> Tensor:
        x0 = mixture_denoiser()(y, sigma).clone()
        if len(disturbed.calls) <= len(x0):
            x0[len(disturbed.calls) - 1] += WRONG
        return x0

    disturbed = Denoiser(wrong)
    ends = [
        run_sampler(subject.sampler, denoiser, start, EVEN, FEW).y
        for denoiser in (mixture_denoiser(), disturbed)
    ]
    return int((ends[0] == ends[1]).all(1).sum())


def batch_mates(subject: Subject) -> Finding:
    """Whether a sample changes if the other samples of the batch do."""
    if not subject.repeats:
        return info("not measured: equal seeds give other results")

    def start(sigma: float) -> Tensor:
        y = mixture_states(sigma)
        return torch.cat([y[:KEPT], -0.5 * y[KEPT:]])

    other = run_sampler(subject.sampler, mixture_denoiser(), start, EVEN, FEW)
    found = difference(other.y[:KEPT], subject.first.y[:KEPT])
    text = f"a sample changes by {found:.1e} if the others of its batch are changed"
    if found > SAME and subject.adaptive:
        return warned(text, "its steps depend on the error of the whole batch", found)
    if found > SAME:
        return failed(text, "norms or means over the batch mix its samples", found)
    return passed(text, found)


def repeatable(subject: Subject) -> Finding:
    """Whether the same seed gives the same result, and where randomness comes from."""
    first = subject.first
    if not subject.repeats:
        return failed("equal seeds give other results", "it keeps a state, or draws unseeded noise")
    if not subject.draws_noise:
        moved = _place_matters(subject)
        if moved > SAME:
            text = f"a sample changes by {moved:.1e} if it moves to another row of the batch"
            return failed(f"{text}, but not with the seed", "it draws noise of a fixed seed", moved)
        used = "; it draws from a global random state without effect" if first.used_global else ""
        return passed(f"deterministic{used}")
    if difference(subject.run(global_seed=1).y, first.y) == 0:
        return passed("equal generators give equal results")
    text = "draws from a global random state"
    if subject.sampler.takes_generator:
        return failed(f"{text}, and not only from the given generator", "pass the generator on")
    return warned(f"{text}: repeatable only through torch.manual_seed", "give it a generator")


def _place_matters(subject: Subject) -> float:
    """How much samples change if the batch is in the opposite order."""

    def start(sigma: float) -> Tensor:
        return mixture_states(sigma).flip(0)

    end = run_sampler(subject.sampler, mixture_denoiser(), start, EVEN, FEW).y
    return difference(end.flip(0), subject.first.y)


def tolerance(subject: Subject) -> Finding | None:
    """Whether a smaller tolerance makes the error smaller, at the cost of evaluations."""
    strict = [subject.sampler.at_tolerance(value) for value in TOLERANCES]
    if strict[0] is None or strict[1] is None:
        return None
    outcomes = [replace(subject, sampler=sampler).run() for sampler in strict]
    counts = [len(outcome.calls) for outcome in outcomes]
    errors = [difference(o.before_zero[0], mixture_states(o.before_zero[1])) for o in outcomes]
    shown = [
        f"{value:.0e}: error {error:.1e}, {count} evaluations"
        for value, error, count in zip(TOLERANCES, errors, counts, strict=True)
    ]
    text = "; ".join(shown)
    smaller = subject.draws_noise or errors[1] < errors[0] / GAIN
    if counts[1] > counts[0] and smaller:
        return passed(text, errors[1])
    return failed(text, "the tolerance has no effect, or too little", errors[1])
