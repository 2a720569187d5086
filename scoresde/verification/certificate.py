"""`certify`: what a sampler of any library does on exact problems, beside what is claimed of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._tensor import check_integer
from .._text import reason_of
from ..interop.samplers import ForeignSampler, foreign_sampler
from ..interop.samplers.own import OwnSampler
from ..names.samplers import parse_sampler, sampler_label
from ..samplers import Sampler
from .conduct import (
    batch_mates,
    end_point,
    evaluations,
    last_step,
    level_zero,
    repeatable,
)
from .findings import CheckReport, Finding, failed, info
from .level_laws import convergence, limit_moments, same_method, weak_order
from .level_orders import STEPS
from .level_problems import EVEN, UNEVEN
from .named import named_sampler
from .subject import Subject

__all__ = ["certify"]


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
    subject = Subject(sampler, order, reference, tuple(steps))
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


LAWS: Mapping[str, Callable[[Subject], Finding | None]] = {
    "order on equal steps": convergence(EVEN),
    "order on steps h, 3h": convergence(UNEVEN),
    "same method": same_method,
    "moments": limit_moments,
    "weak order": weak_order,
    "end point": end_point,
    "last step": last_step,
    "last level 0": level_zero,
    "evaluations": evaluations,
    "batch mates": batch_mates,
    "repeatability": repeatable,
}
