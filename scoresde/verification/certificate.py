"""`certify`: what a sampler of any library does on exact problems, beside what is claimed of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from .._tensor import check_integer
from .._text import reason_of
from ..interop.samplers import NotMeasured, foreign_sampler
from ..interop.samplers.own import OwnSampler
from ..names.samplers import parse_sampler, sampler_label
from ..samplers import Sampler
from ..samplers.steps import draws_noise
from ..sde import VE
from .conduct import (
    batch_mates,
    call,
    end_point,
    evaluations,
    first_level,
    last_step,
    level_zero,
    repeatable,
    tolerance,
)
from .findings import CheckReport, Finding, failed, info
from .level_laws import convergence, limit_moments, weak_order
from .level_orders import STEPS
from .level_problems import EVEN, UNEVEN
from .level_same import same_method
from .limit import TooLong, at_most
from .named import named_sampler
from .subject import Subject

__all__ = ["certify"]

LONGEST = 300  # characters of an error's message


def certify(
    sampler: Any,
    *,
    order: int | None = None,
    like: str | Sampler | None = None,
    arguments: Mapping[str, Any] | None = None,
    steps: Sequence[int] = STEPS,
    limit: float | None = None,
) -> CheckReport:
    """Measure what a sampler of any library does on problems whose solutions are known.

    Deterministic samplers: the order of convergence with an error bar, on equal steps and on steps
    of lengths h, 3h, h, 3h, … in log σ. Samplers that draw noise: mean and standard deviation of
    the output, and their weak order. All samplers: the noise level at which they end, whether the
    last step moves, evaluations and whether all of them have an effect, tolerances, dependence on
    the other samples of the batch, and repeatability.

    Args:
        sampler: A sampler of this package; a scheduler of diffusers or a sampler of azula, class or
            object; a callable of (denoiser, x, sigmas), as in k-diffusion, where x = x_0 + σ ε,
            denoiser(x, σ) = E[x_0 | x] and the result is x at the last of `sigmas`; a class or
            function without required arguments that makes one; or the name or place of one of
            these, as `package.module:Name:key=value`.
        order: The order that is claimed for it; None measures without a verdict.
        like: A deterministic sampler of this package, object or text, that it claims to be. Both
            run on the same noise levels, and all evaluations are compared. This shows mistakes that
            do not change the order, and where they begin.
        arguments: Keyword arguments of the class or of the callable.
        steps: Numbers of steps of the measurement, at least three, increasing.
        limit: Seconds after which a sampler that has not ended is given up, which is a failure;
            None waits for ever.

    Returns:
        One finding for each law, in words with numbers; `print(report)` shows them.

    Raises:
        ConfigError: If a text names no sampler.
        TypeError: If the object is no sampler of these kinds.
        ValueError: If order is below 1, steps are fewer than three, `like` draws noise, an argument
            is unknown, or limit is not above 0 or cannot be kept here.
    """
    named = isinstance(sampler, str)
    made = named_sampler(sampler, arguments) if named else foreign_sampler(sampler, arguments)
    if order is not None:
        check_integer("order", order, minimum=1, maximum=20)
    if len(steps) < 3 or sorted(set(steps)) != list(steps):
        raise ValueError(f"steps must be at least three increasing numbers, got {tuple(steps)}")
    subject = Subject(made, order, _reference(like), tuple(steps))
    with _one_thread(), at_most(limit):
        findings = tuple(_findings(subject, limit))
    return CheckReport(made.name, findings, "sampler")


def _reference(like: str | Sampler | None) -> OwnSampler | None:
    """The sampler of this package to compare with."""
    if like is None:
        return None
    own = parse_sampler(like) if isinstance(like, str) else like
    if own.adaptive or draws_noise(VE(), own, 1e-3):
        raise ValueError(
            f"like must be a deterministic sampler on a grid, got {sampler_label(own)}: samplers "
            "that draw noise or choose their steps cannot be compared step by step"
        )
    return OwnSampler(sampler_label(own), own)


def _findings(subject: Subject, limit: float | None) -> Iterator[Finding]:
    """The findings one by one. Without a first run, there is only the one about this."""
    for name, law in LAWS.items():
        try:
            found = law(subject)
        except NotMeasured as error:
            found = info(f"not measured: {error}")
        except TooLong:
            yield replace(failed(f"not ended after {limit:g} s", "does it end?"), law=name)
            return
        except Exception as error:  # code of the user may raise anything
            found = failed(_raised(error), "the sampler must run on every problem of the ladder")
        if found is not None:
            yield replace(found, law=name)
        if name == "call" and found is not None and found.verdict in ("fail", "info"):
            return


def _raised(error: Exception) -> str:
    """What was raised, and where, on one line."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    place = f"{frame.filename.rpartition('/')[2]}, line {frame.lineno}"
    return f"{type(error).__name__} in {place}: {reason_of(error)[:LONGEST]}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: the states are so small that more of them only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


LAWS: Mapping[str, Callable[[Subject], Finding | None]] = {
    "call": call,
    "order on equal steps": convergence(EVEN),
    "order on steps h, 3h": convergence(UNEVEN),
    "same method": same_method,
    "moments": limit_moments,
    "weak order": weak_order,
    "tolerance": tolerance,
    "first level": first_level,
    "end point": end_point,
    "last step": last_step,
    "last level 0": level_zero,
    "evaluations": evaluations,
    "batch mates": batch_mates,
    "repeatability": repeatable,
}
