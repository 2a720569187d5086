"""Laws of conditional models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch

from ..._condition import Condition, bound_rows, leaves, map_condition
from ...evaluation import evaluating
from ..findings import Finding, failed, info, judged, passed, warned
from ..probe import MIDDLE, Probe, distance

__all__ = ["CONDITION_LAWS"]

N = 4


def refused(probe: Probe) -> Finding:
    """Conditions that the model was not built for are refused before any evaluation."""
    model = probe.model
    if model.condition is None and probe.y is None:
        return info("not tested: the model may take a condition; give y")
    taken, tried = [], []
    for name, y, n in _wrong_conditions(probe):
        tried.append(name)
        try:
            model.given(None).labelled(y, n, probe.device)
        except (ValueError, TypeError):
            continue
        taken.append(name)
    if taken:
        advice = "the model's labelled() must refuse it: the network would use a wrong condition"
        return failed(f"{', '.join(taken)} accepted", advice)
    return passed(", ".join(tried))


def _wrong_conditions(probe: Probe) -> Iterator[tuple[str, Condition, int]]:
    """Name, condition and number of samples of conditions that must be refused."""
    spec = probe.model.condition
    if spec is not None and not spec:
        yield "any condition", torch.zeros(N, dtype=torch.int64), N
        return
    y = probe.condition(range(N))
    yield f"{N} conditions of {N + 1} samples", y, N + 1
    if probe.model.needs_labels:
        yield "no condition", None, N
    if spec is None:
        return
    parts = spec.parts(bound_rows(y, N, "cpu"), N)
    for kind, part in parts.items():
        if kind == "class":
            wrong = {"class -1": -torch.ones_like(part)}
            wrong[f"class {spec.classes}"] = torch.full_like(part, spec.classes)
        elif kind == "size":
            least, most = spec.sizes
            wrong = {f"size {n}": torch.full_like(part, n) for n in (least - 1, most + 1)}
        else:
            wrong = {f"a longer {kind}": torch.cat([part, part[:, :1]], 1)}
            wrong[f"{kind} with NaN"] = part.clone().index_fill_(0, torch.tensor([1]), math.nan)
        for name, value in wrong.items():
            yield name, parts | {kind: value} if len(parts) > 1 else value, N


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
