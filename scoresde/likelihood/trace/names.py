"""Trace rules by name, and the rule that "auto" stands for."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ...plain import construct_named
from .probing import Probing
from .rules import ExactTrace, Hutchinson, TraceRule
from .sketch import HutchPP, XTrace

__all__ = ["EXACT_LIMIT", "EXACT_UP_TO", "TRACES", "as_trace", "parse_trace", "trace_rule"]

# Up to this many dimensions D, an exact trace (D derivative passes) costs about as much as a few
# probes.
EXACT_UP_TO = 16
# Above this many dimensions an exact trace takes hours for a few images.
EXACT_LIMIT = 4096

TRACES: dict[str, Callable[..., TraceRule]] = {
    "exact": ExactTrace,
    "hutchinson": Hutchinson,
    "probing": Probing,
    "hutch++": HutchPP,
    "xtrace": XTrace,
}


def parse_trace(text: str) -> TraceRule:
    """A trace rule from `name` or `name:key=value:key=value`, such as `hutchinson:probes=4`.

    Raises:
        ConfigError: If the name or a key is unknown (with the nearest one), or a value is wrong.
    """
    return construct_named("trace", text, TRACES)


def as_trace(trace: TraceRule | str) -> TraceRule | str:
    """The given rule, the rule that the given text names, or the text "auto".

    Raises:
        TypeError: If `trace` is neither a rule nor text.
        ConfigError: As for `parse_trace`.
    """
    if isinstance(trace, str):
        return trace if trace == "auto" else parse_trace(trace)
    if not isinstance(trace, TraceRule):
        raise TypeError(f"trace must be a TraceRule or its text, got {trace!r}")
    return trace


def trace_rule(trace: TraceRule | str, x: Tensor, force: bool = False) -> TraceRule:
    """The rule for data x; "auto" is exact up to D = 16 and one Rademacher probe above.

    Args:
        trace: A rule or its text.
        x: Data, shape (B, *D), of which only the shape matters.
        force: Allow an exact trace above D = 4096.

    Raises:
        TypeError: As for `as_trace`.
        ValueError: If the text names no rule, or if an exact trace is wanted for D > 4096 without
            `force`.
    """
    dims, rule = math.prod(x.shape[1:]), as_trace(trace)
    if rule == "auto":
        return ExactTrace() if dims <= EXACT_UP_TO else Hutchinson()
    if isinstance(rule, ExactTrace) and dims > EXACT_LIMIT and not force:
        raise ValueError(
            f"trace=ExactTrace() needs D = {dims} derivative passes per evaluation, more than "
            f"{EXACT_LIMIT}; use Hutchinson(), or force=True if you can wait"
        )
    return rule
