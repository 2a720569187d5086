"""Laws of conditional models."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..._condition import leaves, map_condition
from ...evaluation import evaluating
from ..findings import Finding, failed, info, judged, passed, warned
from ..probe import MIDDLE, Probe, distance

__all__ = ["CONDITION_LAWS"]

N = 4


def refused(probe: Probe) -> Finding | None:
    """Class numbers outside the range, and another number of conditions, are refused."""
    model = probe.model
    if probe.y is None:
        return _refused_at_all(probe)
    y = probe.condition(range(N))
    wrong = {f"{N} conditions for {N + 1} samples": (y, N + 1)}
    if model.classes is not None and isinstance(y, torch.Tensor):
        wrong[f"class {model.classes}"] = (torch.full_like(y, model.classes), N)
        wrong["class -1"] = (torch.full_like(y, -1), N)
    taken = [name for name, (y, n) in wrong.items() if _accepts(probe, y, n)]
    if taken:
        advice = "the model's labelled() must refuse it: the network would use a wrong condition"
        return failed(f"{', '.join(taken)} accepted", advice)
    return passed(", ".join(wrong))


def _refused_at_all(probe: Probe) -> Finding | None:
    """A model without conditions refuses them."""
    if probe.model.takes_labels:
        return info("not tested: the model may take one; give y")
    if _accepts(probe, torch.zeros(N, dtype=torch.int64), N):
        advice = "the model has takes_labels = False, so labelled() must refuse a condition"
        return failed("a condition was accepted", advice)
    return passed("every condition: the model takes none")


def _accepts(probe: Probe, y: object, n: int) -> bool:
    try:
        probe.model.labelled(y, n, probe.device)
    except (ValueError, TypeError):
        return False
    return True


def effect(probe: Probe) -> Finding | None:
    """Another condition gives another ε."""
    x = probe.points(1)
    rows = 0 if probe.y is None else max(len(leaf) for _, leaf in leaves(probe.y))
    y = probe.condition(range(rows))
    others = [i for i in range(1, rows) if _differs(y, i)]
    if probe.y is None:
        return None
    if not others:
        return info("not tested: give several conditions that differ")
    first = probe.eps(x, rows=[0])
    gap = max(distance(probe.eps(x, rows=[i]), first) for i in others[:8])
    if gap > 0:
        return passed(f"relative difference {gap:.1e}", gap)
    advice = "the network ignores it, or is untrained with zero weights in its last layer"
    return warned("the same ε for every condition", advice, 0.0)


def _differs(y: object, row: int) -> bool:
    """Whether a row of a condition differs from the first."""
    return any(not torch.equal(leaf[0], leaf[row]) for _, leaf in leaves(y))


def rows_follow(probe: Probe) -> Finding | None:
    """Conditions follow their samples if some samples leave the batch."""
    if probe.y is None:
        return None
    x, left = probe.points(N), [3, 0]
    want = probe.eps(x)[left]
    y = map_condition(lambda leaf: leaf.to(probe.device), probe.condition(range(N)))
    rows = torch.tensor(left, device=probe.device)
    model = probe.model.labelled(y, N, probe.device).take(rows)
    with evaluating(model):
        gap = distance(model.eps(x[left], MIDDLE), want)
    advice = "take() must select the rows of the condition that is bound with given()"
    return judged("relative difference", gap, probe.tolerance, advice)


CONDITION_LAWS: Mapping[str, Callable[[Probe], Finding | None]] = {
    "wrong conditions refused": refused,
    "condition has an effect": effect,
    "conditions follow samples": rows_follow,
}
