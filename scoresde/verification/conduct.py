"""Laws about a sampler's conduct: where it ends, its evaluations, batch mates and repeatability."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .findings import Finding, failed, info, passed, warned
from .level_orders import STEPS
from .level_problems import (
    EVEN,
    POINT,
    mixture_denoiser,
    mixture_states,
    point_denoiser,
    point_states,
)
from .runs import run_sampler
from .subject import FEW, SAME, Subject, difference

__all__ = [
    "batch_mates",
    "end_point",
    "evaluations",
    "last_step",
    "level_zero",
    "repeatable",
]

KEPT = 7  # samples whose batch mates are changed
UNMOVED = 1e-7  # a real last step moves the state by at least σ_min times a share of its size
EARLY = 0.25  # share of a step by which an end may be off


def end_point(subject: Subject) -> Finding:
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


def last_step(subject: Subject) -> Finding:
    """Whether the last evaluation changes the result, and whether it ends with denoising."""
    outcome = subject.first
    moved = difference(outcome.y, outcome.last)
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
    try:
        zero = replace(subject, sampler=replace(subject.sampler, to_zero=True)).run()
    except RuntimeError as error:
        return warned(str(error), "end the list of noise levels above 0, and denoise afterwards")
    denoised = mixture_denoiser()(zero.last, zero.calls[-1]) if zero.calls[-1] > 0 else zero.last
    same = difference(zero.y, denoised) < SAME
    return passed("accepted; the step to 0 is " + ("E[x_0]" if same else "not E[x_0]"))


def evaluations(subject: Subject) -> Finding:
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


def batch_mates(subject: Subject) -> Finding:
    """Whether a sample changes if the other samples of the batch do."""

    def start(sigma: float) -> Tensor:
        y = mixture_states(sigma)
        return torch.cat([y[:KEPT], -0.5 * y[KEPT:]])

    other = run_sampler(subject.sampler, mixture_denoiser(), start, EVEN, FEW)
    found = difference(other.y[:KEPT], subject.first.y[:KEPT])
    text = f"a sample changes by {found:.1e} if the others of its batch are changed"
    if found > SAME:
        return failed(text, "norms or means over the batch mix its samples", found)
    return passed(text, found)


def repeatable(subject: Subject) -> Finding:
    """Whether the same seed gives the same result, and where randomness comes from."""
    first = subject.first
    if difference(subject.run().y, first.y) > 0:
        return failed("equal seeds give other results", "it keeps a state, or draws unseeded noise")
    if not subject.draws_noise:
        used = "; it draws from a global random state without effect" if first.used_global else ""
        return passed(f"deterministic{used}")
    if difference(subject.run(global_seed=1).y, first.y) == 0:
        return passed("equal generators give equal results")
    text = "draws from a global random state"
    if subject.sampler.takes_generator:
        return failed(f"{text}, and not only from the given generator", "pass the generator on")
    return warned(f"{text}: repeatable only through torch.manual_seed", "give it a generator")
